"""Comparisons of two runs as text for a terminal, Markdown, and JSON lines."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from unirs.errors import UniRSError, did_you_mean
from unirs.evaluation.comparison import ChangedPrediction, Comparison
from unirs.utils.io import write_atomically
from unirs.utils.tables import decimal, to_markdown, to_text

_WIDTH = 100

_SMALLEST_P = 0.0001


def format_comparison(comparison: Comparison, show: int = 5) -> str:
    """Lays out a comparison for a terminal: the statistics, McNemar's test, and some of the rows that changed.

    The runs are called A and B.

    Args:
        comparison: of one task.
        show: the most changed rows to list in either direction.
    """
    lines = [comparison.task, to_text(_statistics(comparison))]
    if comparison.sides:
        lines += ["", "  McNemar: rows that only one run has right", to_text(_sides(comparison))]
    lines += ["", f"  {_counted(comparison)}"]
    for title, changes in zip(("better in B", "better in A"), _directions(comparison), strict=True):
        if changes and show:
            lines.append(f"  {title}:")
            lines += map(_told, changes[:show])
            if len(changes) > show:
                lines.append(f"    … and {len(changes) - show} more")
    return "\n".join(lines)


def write_report(path: Path, comparisons: Sequence[Comparison], runs: tuple[str, str]) -> None:
    """Writes all rows that changed: to `.jsonl` a row each; to `.md` with the tables. A former file is replaced whole.

    Args:
        path: the file; its ending says how to write.
        comparisons: one a task.
        runs: what A and B are.

    Raises:
        UniRSError: another ending.
    """
    writers = {".jsonl": _json_lines, ".md": _markdown}
    if path.suffix not in writers:
        raise UniRSError(f"{path}: the ending must be .jsonl or .md. {did_you_mean(path.suffix, writers)}")
    text = "".join(f"{part}\n" for part in writers[path.suffix](comparisons, runs))
    write_atomically(path, text.encode("utf-8", errors="backslashreplace"))


def _json_lines(comparisons: Sequence[Comparison], runs: tuple[str, str]) -> Iterator[str]:
    for comparison in comparisons:
        for change in comparison.changes:
            row = change.first
            yield json.dumps(
                {
                    "task": comparison.task,
                    "id": row.id,
                    "category": row.category,
                    "media": list(row.media),
                    "prompt": row.prompt,
                    "references": list(row.references),
                    "runs": list(runs),
                    "predictions": [row.text, change.second.text],
                    "scores": list(change.scores),
                },
                ensure_ascii=False,
            )


def _markdown(comparisons: Sequence[Comparison], runs: tuple[str, str]) -> Iterator[str]:
    yield f"A is `{runs[0]}`, B is `{runs[1]}`.\n"
    for comparison in comparisons:
        yield f"## {comparison.task}\n"
        yield to_markdown(_statistics(comparison)) + "\n"
        if comparison.sides:
            yield "McNemar's test of rows that only one run has right:\n"
            yield to_markdown(_sides(comparison)) + "\n"
        yield _counted(comparison) + "\n"
        if comparison.changes:
            rows = [
                [
                    change.first.id,
                    change.first.category,
                    " / ".join(change.first.references),
                    change.first.text,
                    change.second.text,
                    *map(decimal, change.scores),
                ]
                for change in comparison.changes
            ]
            yield (
                to_markdown([["id", "category", "references", "A says", "B says", "A scores", "B scores"], *rows])
                + "\n"
            )


def _statistics(comparison: Comparison) -> list[list[str]]:
    table = [["metric", "A", "B", "B - A", "95 % interval", "p", "n"]]
    for line in comparison.lines:
        gap = line.difference
        table.append(
            [
                line.metric,
                _number(line.first),
                _number(line.second),
                _number(gap.value, "+"),
                _number(math.nan)
                if math.isnan(gap.ci_low)
                else f"[{_number(gap.ci_low, '+')}, {_number(gap.ci_high, '+')}]",
                _p(gap.p),
                str(line.n),
            ]
        )
    return table


def _sides(comparison: Comparison) -> list[list[str]]:
    table = [["category", "n", "only A", "only B", "p", "test"]]
    for side in comparison.sides:
        counts = [str(side.n), str(side.only_first), str(side.only_second)]
        table.append([side.category or "all rows", *counts, _p(side.p), side.test])
    return table


def _counted(comparison: Comparison) -> str:
    n = comparison.lines[0].n
    better, worse = map(len, _directions(comparison))
    verb = "changed sides" if comparison.sides else "changed their score"
    told = f"{better + worse} of {n} rows {verb}: {better} better in B, {worse} better in A."
    if any(comparison.left_out):
        told += " Left out: {} rows that only A has, {} that only B has.".format(*comparison.left_out)
    return told


def _directions(comparison: Comparison) -> tuple[list[ChangedPrediction], list[ChangedPrediction]]:
    better = [change for change in comparison.changes if change.scores[1] > change.scores[0]]
    return better, [change for change in comparison.changes if change.scores[1] < change.scores[0]]


def _told(change: ChangedPrediction) -> str:
    row = change.first
    kind = f", {row.category}" if row.category else ""
    scores = "" if set(change.scores) == {0.0, 1.0} else " ({:.2f} -> {:.2f})".format(*change.scores)
    start = f"    {row.id}{kind}{scores}: "
    room = max(16, (_WIDTH - len(start) - len("'', A '', B ''")) // 3)
    texts = (row.references[0], row.text, change.second.text)
    return start + "'{}', A '{}', B '{}'".format(*(textwrap.shorten(text, room, placeholder="…") for text in texts))


def _number(number: float, sign: str = "") -> str:
    if not math.isfinite(number):
        return decimal(None)
    return f"{number:{sign}.4f}"


def _p(p: float) -> str:
    return f"<{_SMALLEST_P}" if p < _SMALLEST_P else _number(p)
