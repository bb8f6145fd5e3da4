"""Comparisons of two runs, called A and B, as text for a terminal, Markdown, and JSON lines."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from unirs.errors import UniRSError, did_you_mean
from unirs.evaluation.comparison import ChangedPrediction, Comparison
from unirs.utils.io import write_atomically
from unirs.utils.tables import Table, decimal, to_markdown, to_text

_WIDTH = 100
_SMALLEST_P = 0.0001


def format_comparison(comparison: Comparison, show: int = 5) -> str:
    """Statistics, McNemar's test, and the `show` most changed rows in either direction, for a terminal."""
    lines = [comparison.task, to_text(statistics_table(comparison))]
    if comparison.mcnemar:
        lines += ["", "  McNemar: rows that only one run has right", to_text(_mcnemar(comparison))]
    lines += ["", f"  {_counts(comparison)}"]
    for title, changes in zip(("better in B", "better in A"), _by_direction(comparison), strict=True):
        if changes and show:
            lines += [f"  {title}:", *map(_changed_row, changes[:show])]
            if len(changes) > show:
                lines.append(f"    … and {len(changes) - show} more")
    return "\n".join(lines)


def write_report(path: Path, comparisons: Sequence[Comparison], runs: tuple[str, str]) -> None:
    """Writes all changed rows of runs A and B as `.jsonl`, or with tables as `.md`; others raise a `UniRSError`."""
    writers = {".jsonl": _json_lines, ".md": _markdown}
    if path.suffix not in writers:
        raise UniRSError(f"{path}: the ending must be .jsonl or .md. {did_you_mean(path.suffix, writers)}")
    text = "".join(f"{block}\n" for block in writers[path.suffix](comparisons, runs))
    write_atomically(path, text.encode("utf-8", errors="backslashreplace"))


def _json_lines(comparisons: Sequence[Comparison], runs: tuple[str, str]) -> Iterator[str]:
    for comparison in comparisons:
        for change in comparison.changes:
            row = {key: getattr(change.first, key) for key in ("id", "category", "media", "prompt", "references")}
            texts = [change.first.text, change.second.text]
            row = {"task": comparison.task, **row, "runs": runs, "predictions": texts, "scores": change.scores}
            yield json.dumps(row, ensure_ascii=False)


def _markdown(comparisons: Sequence[Comparison], runs: tuple[str, str]) -> Iterator[str]:
    yield f"A is `{runs[0]}`, B is `{runs[1]}`.\n"
    for comparison in comparisons:
        yield f"## {comparison.task}\n"
        yield to_markdown(statistics_table(comparison)) + "\n"
        if comparison.mcnemar:
            yield "McNemar's test of rows that only one run has right:\n"
            yield to_markdown(_mcnemar(comparison)) + "\n"
        yield _counts(comparison) + "\n"
        if comparison.changes:
            table = [["id", "category", "references", "A", "B", "score of A", "score of B"]]
            for change in comparison.changes:
                row, scores = change.first, map(decimal, change.scores)
                table.append([row.id, row.category, " / ".join(row.references), row.text, change.second.text, *scores])
            yield to_markdown(table) + "\n"


def statistics_table(comparison: Comparison) -> Table:
    """A line for each statistic: both runs, their difference, its interval and p."""
    table = [["metric", "A", "B", "B - A", "95 % interval", "p", "n"]]
    for line in comparison.metrics:
        gap = line.difference
        low, high = decimal(gap.ci_low, "+"), decimal(gap.ci_high, "+")
        interval = low if math.isnan(gap.ci_low) else f"[{low}, {high}]"
        values = [decimal(line.first), decimal(line.second), decimal(gap.value, "+")]
        table.append([line.metric, *values, interval, _p(gap.p), str(line.n)])
    return table


def _mcnemar(comparison: Comparison) -> Table:
    table = [["category", "n", "only A", "only B", "p", "test"]]
    for result in comparison.mcnemar:
        counts = [str(result.n), str(result.only_first), str(result.only_second)]
        table.append([result.category or "all rows", *counts, _p(result.p), result.test])
    return table


def _counts(comparison: Comparison) -> str:
    better, worse = map(len, _by_direction(comparison))
    verb = "changed sides" if comparison.mcnemar else "changed their score"
    n = comparison.metrics[0].n
    text = f"{better + worse} of {n} rows {verb}: {better} better in B, {worse} better in A."
    if any(comparison.unpaired):
        text += " Excluded: {} rows that only A has, {} that only B has.".format(*comparison.unpaired)
    return text


def _by_direction(comparison: Comparison) -> tuple[list[ChangedPrediction], list[ChangedPrediction]]:
    better = [change for change in comparison.changes if change.scores[1] > change.scores[0]]
    return better, [change for change in comparison.changes if change.scores[1] < change.scores[0]]


def _changed_row(change: ChangedPrediction) -> str:
    row = change.first
    category = f", {row.category}" if row.category else ""
    scores = "" if set(change.scores) == {0.0, 1.0} else " ({:.2f} -> {:.2f})".format(*change.scores)
    start = f"    {row.id}{category}{scores}: "
    width = max(16, (_WIDTH - len(start) - len("'', A '', B ''")) // 3)
    texts = (row.references[0], row.text, change.second.text)
    return start + "'{}', A '{}', B '{}'".format(*(textwrap.shorten(text, width, placeholder="…") for text in texts))


def _p(p: float) -> str:
    return f"<{_SMALLEST_P}" if p < _SMALLEST_P else decimal(p)
