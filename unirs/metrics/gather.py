"""The torchmetrics metric around a scorer: gathers predictions from all processes of a run and scores them."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import torch
import torchmetrics

from unirs.metrics.base import Evaluation, LazyRows, Prediction
from unirs.metrics.bootstrap import point_estimate

_DIGITS = re.compile(r"([0-9]+)")


class PredictionMetric(torchmetrics.Metric):
    """Collects predictions, so that the scored rows do not depend on the number of processes.

    The state is the rows' text as bytes, which torchmetrics gathers like any other state. `compute` and `predictions`
    are collective: call them on every process.

    Args:
        evaluate: Scores the rows of all processes, e.g. the method of a `Scorer`.
    """

    full_state_update = False
    encoded: list[torch.Tensor] | torch.Tensor

    def __init__(self, evaluate: Callable[[Sequence[Prediction]], Evaluation]) -> None:
        super().__init__()
        self.evaluate = evaluate
        self.add_state("encoded", default=[], dist_reduce_fx="cat")

    @property
    def update_called(self) -> bool:
        """True: a process may have no rows, of which torchmetrics would otherwise warn."""
        return True

    def update(self, predictions: Sequence[Prediction]) -> None:
        """Adds rows of one task. A row whose id is present already is ignored."""
        lines = b"".join(row.to_json() + b"\n" for row in predictions)
        if lines:
            state = torch.frombuffer(bytearray(lines), dtype=torch.uint8).to(self.device)
            self._as_list().append(state)

    def compute(self) -> dict[str, torch.Tensor]:
        """Scores the rows of all processes: every statistic by name, float32 scalars; empty if there are no rows."""
        rows = self._decode()
        statistics = self.evaluate(rows).statistics if rows else {}
        return {
            name: torch.tensor(point_estimate(statistic), dtype=torch.float32, device=self.device)
            for name, statistic in statistics.items()
        }

    def predictions(self) -> LazyRows:
        """The rows of all processes, one per id, in the natural order of ids: `a2` before `a10`.

        Samplers repeat rows so that all processes get equally many.
        """
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
        ):
            return self._decode()

    def sync(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (torchmetrics' own signature, passed on)
        """Gathers the state; called by `compute` and `predictions`."""
        # torchmetrics gives a process without rows an empty float state, which does not gather with the others' bytes.
        states = self._as_list()
        if not states:
            states.append(torch.zeros(0, dtype=torch.uint8, device=self.device))
        super().sync(*args, **kwargs)

    def _decode(self) -> LazyRows:
        text = b"".join(state.cpu().numpy().data for state in self._as_list())
        starts: dict[str, int] = {}
        start = 0
        while start < len(text):
            end = text.index(b"\n", start) + 1
            starts.setdefault(_read_id(text[start:end]), start)
            start = end
        order = array("q", (starts[key] for key in _sort(starts)))
        return LazyRows(
            len(order), lambda index: Prediction.from_json(text[order[index] : text.index(b"\n", order[index])])
        )

    def _as_list(self) -> list[torch.Tensor]:
        """The state: torchmetrics keeps a list, or one tensor once it is gathered."""
        return self.encoded if isinstance(self.encoded, list) else [self.encoded]


class _Id(msgspec.Struct):
    id: str


_DECODER = msgspec.json.Decoder(_Id)


def _read_id(line: bytes) -> str:
    try:
        return _DECODER.decode(line).id
    except msgspec.DecodeError:
        return Prediction.from_json(line).id  # has lone surrogates


def _sort(ids: Iterable[str]) -> list[str]:
    """Sorts ids in their natural order; a million numbers without the memory of general keys."""
    if all(key.isascii() and key.isdigit() for key in ids):
        return sorted(ids, key=lambda key: (len(number := key.lstrip("0")), number, key))
    return sorted(ids, key=_natural)


def _natural(key: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key of an id: numbers by value; the id itself decides between `a1` and `a01`."""
    parts = (part.lstrip("0") if index % 2 else part for index, part in enumerate(_DIGITS.split(key)))
    return [(len(part) if index % 2 else 0, part) for index, part in enumerate(parts)], key
