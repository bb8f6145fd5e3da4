"""A task as a config names it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from unirs import plugins
from unirs.errors import DataError, PluginError, did_you_mean
from unirs.tasks.task import Task

ClueUse = Literal["never", "test", "always"]


@dataclass(frozen=True)
class TaskConfig:
    """A task as the config names it.

    Attributes:
        name: the task's name in results: `label` where given, else the plugin's name.
        root: where its data are.
        task: what the plugin built.
        weight: how often an epoch shows each training sample; fractions show a random part.
        synthetic: `size` and `seed` of the data to make where none is found.
        clue: when its prompts hold clues.
        augment: whether training turns and mirrors its media.
    """

    name: str
    root: Path
    task: Task
    weight: float
    synthetic: Mapping[str, int] | None
    clue: ClueUse
    augment: bool

    @classmethod
    def from_config(cls, spec: Mapping[str, Any]) -> TaskConfig:
        """Builds a task from its part of the config; its `root` is `data/<name>` where left out.

        Raises:
            PluginError: an unknown plugin or option, a weight below 0, or a wrong `synthetic`.
        """
        options = dict(spec)
        label = options.pop("label", None) or plugins.short_name(str(options.get("name", "")))
        weight = options.pop("weight", 1.0)
        synthetic = options.pop("synthetic", None)
        augment = options.pop("augment", False)
        if not isinstance(augment, bool):
            raise PluginError(f"Task '{label}': augment must be true or false, got {augment!r}.")
        clue = options.pop("clue", "never")
        if clue not in get_args(ClueUse):
            raise PluginError(f"Task '{label}': unknown clue '{clue}'. {did_you_mean(str(clue), get_args(ClueUse))}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise PluginError(f"Task '{label}': weight must be a number of 0 or more, got {weight!r}.")
        if synthetic is not None and not _is_synthetic(synthetic):
            raise PluginError(f"Task '{label}': synthetic must be {{size: …, seed: …}}, got {synthetic!r}.")
        root = options["root"] = Path(options.get("root") or Path("data") / label)
        return cls(label, root, plugins.create("unirs.tasks", options), float(weight), synthetic, clue, augment)

    def missing_paths(self) -> list[Path]:
        """The needed files and folders that do not exist."""
        return [path for path in self.task.required_paths if not path.exists()]

    def prepare(self) -> None:
        """Makes the data where the config says so and none is there.

        Raises:
            DataError: data are missing and not to be made; says where to get them.
        """
        missing = self.missing_paths()
        if not missing:
            return
        if (
            self.synthetic is not None
            and self.task.synthesize is not None
            and len(missing) == len(self.task.required_paths)
        ):
            self.task.synthesize(self.synthetic.get("size", 512), self.synthetic.get("seed", 0))
            return
        files = ", ".join(map(str, missing))
        remedy = "Or set 'synthetic: {size: 512, seed: 0}' for this task." if self.task.synthesize is not None else ""
        raise DataError(
            f"Task '{self.name}': missing {files}. Get the data: {self.task.download_hint} {remedy}".strip()
        )


def _is_synthetic(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) <= {"size", "seed"}
        and all(type(number) is int and number >= 0 for number in value.values())
    )
