"""What one evaluation loader has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, get_args

from unirs.tasks.perturbation import Perturbation


@dataclass(frozen=True)
class EvalSet:
    """The examples of one evaluation loader: a task's, or the same with perturbed media as a sanity baseline."""

    task: str
    perturbation: Perturbation | None = None

    @property
    def name(self) -> str:
        """`<task>` or `<task>.<perturbation>`; `Batch.eval_set` of its batches."""
        return self.task if self.perturbation is None else f"{self.task}.{self.perturbation}"

    @classmethod
    def from_name(cls, name: str) -> EvalSet:
        """The set with this `name`."""
        task, _, end = name.rpartition(".")
        return cls(task, cast("Perturbation", end)) if end in get_args(Perturbation) else cls(name)
