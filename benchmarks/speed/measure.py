"""Shared by the speed scripts: timing of two sides in turn, a table, and `runs/speed/<script>.json`."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from unirs.utils.io import write_atomically
from unirs.utils.tables import to_text

OUT = Path("runs/speed")


@dataclass(frozen=True)
class Row:
    """One line of a script's result.

    Attributes:
        name: the measured work.
        ours: figure of UniRS.
        baseline: figure of the baseline in the same run; None if there is no baseline.
        unit: of both.
        ratio: how many times better UniRS is, or as the name defines it; None if there is no baseline.
    """

    name: str
    ours: float
    baseline: float | None
    unit: str
    ratio: float | None


def in_turn(
    ours: Callable[[], object], baseline: Callable[[], object], *, rounds: int = 3, warmup: int = 1
) -> tuple[list[float], list[float]]:
    """Seconds of both sides, called alternately, without the warm-up rounds.

    Args:
        ours: does the work once.
        baseline: does the same work once.
        rounds: number of measured calls of each side.
        warmup: number of calls before them.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(warmup + rounds):
        for side, work in zip(seconds, (ours, baseline), strict=True):
            start = time.perf_counter()
            work()
            if turn >= warmup:
                side.append(time.perf_counter() - start)
    return seconds


def rates(name: str, count: int, unit: str, seconds: tuple[Sequence[float], Sequence[float]]) -> Row:
    """A row with the rates per second of both sides; its ratio is the median of the ratios by round."""
    ours, baseline = seconds
    ratio = statistics.median(other / own for own, other in zip(ours, baseline, strict=True))
    return Row(name, count / statistics.median(ours), count / statistics.median(baseline), f"{unit}/s", ratio)


def report(script: str, rows: Sequence[Row]) -> None:
    """Prints the table of a script's rows, and writes them to `runs/speed/<script>.json`."""
    table = [["", "ours", "baseline", "unit", "ratio"]]
    for row in rows:
        table.append([row.name, *map(_number, (row.ours, row.baseline)), row.unit, _number(row.ratio)])
    print(f"\n{script} on {machine()}\n" + to_text(table))
    path = OUT / f"{Path(script).stem}.json"
    write_atomically(path, json.dumps([asdict(row) for row in rows], indent=2).encode() + b"\n")
    print(f"Written to {path}")


def machine() -> str:
    """The processor, and the number of cores available to this process."""
    models = [line for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else platform.processor()
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {platform.system()}, Python {platform.python_version()}"


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"
