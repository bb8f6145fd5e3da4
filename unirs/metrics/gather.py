"""Predictions gathered from all processes of a run."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
import torchmetrics
from torchmetrics.utilities import dim_zero_cat

from unirs.metrics.base import Prediction

_NUMBER = re.compile(r"([0-9]+)")


class PredictionMetric(torchmetrics.Metric):
    """Collects predictions, so that a metric sees the same rows however many processes made them.

    The state is the rows' text as bytes, which torchmetrics gathers like any other state. `compute` is collective: call
    it on every process. Score what it returns on one process, since that may be slow.
    """

    full_state_update = False
    encoded: list[torch.Tensor] | torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("encoded", default=[], dist_reduce_fx="cat")

    def update(self, predictions: Sequence[Prediction]) -> None:
        """Adds rows.

        Args:
            predictions: rows of one task. Rows whose id is already there change nothing.
        """
        lines = "".join(json.dumps(asdict(row)) + "\n" for row in predictions)
        if lines:
            state = torch.frombuffer(bytearray(lines, "ascii"), dtype=torch.uint8).to(self.device)
            self._as_list().append(state)

    def compute(self) -> tuple[Prediction, ...]:
        """The rows of all processes.

        Returns:
            One row an id (samplers repeat rows so that all processes get equally many), in the natural order of ids:
            `a2` before `a10`. Empty where no process has rows.
        """
        states = self._as_list()
        text = bytes(dim_zero_cat(states).cpu().numpy()).decode("ascii") if states else ""
        rows: dict[str, Prediction] = {}
        for line in text.splitlines():
            row = _decode(line)
            rows.setdefault(row.id, row)
        return tuple(rows[key] for key in sorted(rows, key=_natural))

    def sync(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (torchmetrics' own signature, passed on)
        """Gathers the state; called by `compute`."""
        # torchmetrics gives a process without rows an empty float state, which does not gather with the others' bytes.
        states = self._as_list()
        if not states:
            states.append(torch.zeros(0, dtype=torch.uint8, device=self.device))
        super().sync(*args, **kwargs)

    def _wrap_compute(self, compute: Callable[[], tuple[Prediction, ...]]) -> Callable[[], tuple[Prediction, ...]]:
        # torchmetrics' own wrapper keeps the result and walks through it, here and in `.to(device)`, looking for
        # tensors, and refuses frozen dataclasses; it also warns on a process that has no rows.
        @functools.wraps(compute)
        def gathered() -> tuple[Prediction, ...]:
            with self.sync_context(
                dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
            ):
                return compute()

        return gathered

    def _as_list(self) -> list[torch.Tensor]:
        """The state as torchmetrics keeps it: a list, or one tensor once it is gathered."""
        return self.encoded if isinstance(self.encoded, list) else [self.encoded]


def _decode(line: str) -> Prediction:
    values = json.loads(line)
    return Prediction(**values | {name: tuple(values[name]) for name in ("media", "references")})


def _natural(key: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts numbers in an id by value; the id itself decides between `a1` and `a01`."""
    parts = (part.lstrip("0") if index % 2 else part for index, part in enumerate(_NUMBER.split(key)))
    return [(len(part) if index % 2 else 0, part) for index, part in enumerate(parts)], key
