"""The torchmetrics metric around a scorer: gathers predictions from all processes of a run and scores them."""

from __future__ import annotations

import re
import struct
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
import torchmetrics

from unirs.metrics.base import Evaluation, LazyRows, Prediction
from unirs.metrics.bootstrap import point_estimate

_DIGITS = re.compile(r"([0-9]+)")
_INT64 = re.compile(r"0|[1-9][0-9]{0,17}")
"""Ids whose natural order is that of their numbers."""

_BLOCK_ROWS = 64
"""Rows of a block: more compress little better, and a row in random order costs the decompression of its block."""

_HEADER = struct.Struct("<II")
"""Number of rows of a block, and of its compressed bytes, which follow."""


class PredictionMetric(torchmetrics.Metric):
    """Collects predictions, so that the scored rows do not depend on the number of processes.

    The state is the rows' text in compressed blocks, which torchmetrics gathers like any other state. `compute`
    and `predictions` are collective: call them on every process.

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
        starts = range(0, len(predictions), _BLOCK_ROWS)
        blocks = b"".join(_compress(predictions[start : start + _BLOCK_ROWS]) for start in starts)
        if blocks:
            state = torch.frombuffer(bytearray(blocks), dtype=torch.uint8).to(self.device)
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
        lines = _Lines(b"".join(state.cpu().numpy().data for state in self._as_list()))
        order = _order(lines)
        return LazyRows(len(order), lambda index: Prediction.from_json(lines[order[index]]))

    def _as_list(self) -> list[torch.Tensor]:
        """The state: torchmetrics keeps a list, or one tensor once it is gathered."""
        return self.encoded if isinstance(self.encoded, list) else [self.encoded]


def _compress(rows: Sequence[Prediction]) -> bytes:
    # Level 1: rows about the same media are so alike that higher ones are little smaller.
    content = zlib.compress(b"\n".join(row.to_json() for row in rows), level=1)
    return _HEADER.pack(len(rows), len(content)) + content


class _Lines:
    """The lines of compressed blocks by index. The block that was read last stays decompressed."""

    def __init__(self, blocks: bytes) -> None:
        self._blocks = blocks
        # Of each block: the index of its first line, and the position of its header.
        self._firsts, self._positions = array("q"), array("q")
        # The decompressed block: the index of its first line, and its lines; replaced as one, for threads.
        self._block = 0, list[bytes]()
        position = count = 0
        while position < len(blocks):
            rows, size = _HEADER.unpack_from(blocks, position)
            self._firsts.append(count)
            self._positions.append(position)
            position += _HEADER.size + size
            count += rows

    def __getitem__(self, index: int) -> bytes:
        first, lines = self._block
        if not 0 <= index - first < len(lines):
            first, lines = self._block = self._read(bisect_right(self._firsts, index) - 1)
        return lines[index - first]

    def ids(self) -> Iterator[str]:
        """The id of each line."""
        for block in range(len(self._firsts)):
            _, lines = self._read(block)
            yield from map(_read_id, lines)

    def _read(self, block: int) -> tuple[int, list[bytes]]:
        start = self._positions[block] + _HEADER.size
        _, size = _HEADER.unpack_from(self._blocks, self._positions[block])
        content = zlib.decompress(memoryview(self._blocks)[start : start + size])
        return self._firsts[block], content.split(b"\n")


class _Id(msgspec.Struct):
    id: str


_DECODER = msgspec.json.Decoder(_Id)


def _read_id(line: bytes) -> str:
    try:
        return _DECODER.decode(line).id
    except msgspec.DecodeError:
        return Prediction.from_json(line).id  # has lone surrogates


def _order(lines: _Lines) -> Sequence[int]:
    """Index of the first line of each id, in the natural order of ids."""
    # A task may have a million rows: numbers need no dictionary and general keys, and no array if they are in order.
    numbers = array("q")
    for key in lines.ids():
        if not _INT64.fullmatch(key):
            break
        numbers.append(int(key))
    else:
        values = np.asarray(numbers)
        if (values[1:] > values[:-1]).all():
            return range(len(values))
        _, firsts = np.unique(values, return_index=True)
        return array("I", firsts.astype(np.uint32).tobytes())
    indices: dict[str, int] = {}
    for index, key in enumerate(lines.ids()):
        indices.setdefault(key, index)
    return array("I", (indices[key] for key in sorted(indices, key=_natural)))


def _natural(key: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key of an id: numbers by value; the id itself decides between `a1` and `a01`."""
    parts = (part.lstrip("0") if index % 2 else part for index, part in enumerate(_DIGITS.split(key)))
    return [(len(part) if index % 2 else 0, part) for index, part in enumerate(parts)], key
