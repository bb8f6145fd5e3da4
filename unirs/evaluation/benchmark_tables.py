"""Results of a suite beside published numbers, times 100: as text, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from unirs.evaluation.results import format_coverage
from unirs.evaluation.suite import Suite, SuiteTask
from unirs.utils import tables as layout

_NONE, _UNCLEAR = "-", "?"

Table = Mapping[str, Any]
"""A task's table: `label` and `title`, `columns` (titles by statistic), `rows` and `notes`.

A row has `model`, `source` (the key of a publication, None for a model that this benchmark ran), `zero_shot` (None if
unknown) and `numbers` by statistic. A number has `value` (text with its printed digits, or with two decimals for one of
ours), the ends `ci_low` and `ci_high` of its 95 % interval, and `unclear`: it may be a micro or a macro average.
"""


def bench_tables(suite: Suite, results: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Lays out results, the content of `metrics.json` by model, beside published numbers: one table for each task.

    A model without results of a task has no row.
    """
    return [_table(suite, task, results) for task in suite.tasks]


def to_text(tables: Sequence[Table]) -> str:
    """Tables for a terminal; the 95 % interval is below its number."""
    return "\n\n".join(
        "\n".join(
            [table["title"], layout.to_text(_cells(table, separator="\n")), *(f"  {one}" for one in table["notes"])]
        )
        for table in tables
    )


def markdown_report(tables: Sequence[Table], title: str) -> str:
    """A page with a heading and a table for each task."""
    parts = [f"# {title}"]
    for table in tables:
        notes = "\n".join(f"- {note}" for note in table["notes"])
        parts += [f"## {table['title']}", layout.to_markdown(_cells(table)), notes]
    return "\n\n".join(parts) + "\n"


def latex_report(tables: Sequence[Table]) -> str:
    """A `table` environment for each task, in the style of booktabs."""
    return "\n\n".join(layout.to_latex(_cells(table), table["title"], table["notes"]) for table in tables) + "\n"


def csv_report(tables: Sequence[Table]) -> str:
    """One line for each number, for further processing."""
    head = ["task", "model", "source", "zero_shot", "metric", "value", "ci_low", "ci_high", "unclear"]
    lines = [
        [
            table["label"],
            row["model"],
            row["source"] or "this benchmark",
            _yes_or_no(row["zero_shot"]),
            metric,
            cell["value"],
            *("" if end is None else f"{end:.2f}" for end in (cell["ci_low"], cell["ci_high"])),
            _yes_or_no(cell["unclear"]),
        ]
        for table in tables
        for row in table["rows"]
        for metric, cell in row["numbers"].items()
    ]
    return layout.to_csv([head, *lines])


def json_report(tables: Sequence[Table], suite: Suite) -> str:
    """All content of the tables; `value` is text with its printed digits, `ci_low` and `ci_high` are numbers."""
    document = {"title": suite.title, "sources": suite.sources, "scale": 100, "tasks": tables}
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _table(suite: Suite, task: SuiteTask, results: Mapping[str, Mapping[str, Any]]) -> Table:
    ran = {model: document for model, document in results.items() if task.label in document["tasks"]}
    rows: list[dict[str, Any]] = []
    for entry in task.published:
        numbers = {name: _number(text, unclear=name in entry.unclear) for name, text in entry.numbers.items()}
        rows.append({"model": entry.model, "source": entry.source, "zero_shot": entry.zero_shot, "numbers": numbers})
    for model, document in ran.items():
        found = document["tasks"][task.label]
        # METEOR needs Java, and a limited run may lack a category: a dash is shown, as for an undefined number.
        known = {name: found[name] for name in task.columns if name in found and found[name]["value"] is not None}
        numbers = {
            name: _number(f"{100 * one['value']:.2f}", _percent(one["ci_low"]), _percent(one["ci_high"]))
            for name, one in known.items()
        }
        rows.append({"model": model, "source": None, "zero_shot": None, "numbers": numbers})
    notes = [f"Numbers are times 100. [low, high]: 95 % bootstrap interval. {_NONE}: unknown."]
    if any(cell["unclear"] for row in rows for cell in row["numbers"].values()):
        notes.append(f"{_UNCLEAR}: it is unknown whether the average is micro or macro.")
    by_count: dict[str, list[str]] = {}
    for model, document in ran.items():
        by_count.setdefault(format_coverage(document, task.label), []).append(model)
    notes += [f"{', '.join(models)}: {counts}." for counts, models in by_count.items()]
    cited = dict.fromkeys(entry.source for entry in task.published)
    notes += [f"{source}: {suite.sources[source]}." for source in cited]
    return {"label": task.label, "title": task.title, "columns": task.columns, "rows": rows, "notes": notes}


def _number(value: str, low: float | None = None, high: float | None = None, *, unclear: bool = False) -> Table:
    return {"value": value, "ci_low": low, "ci_high": high, "unclear": unclear}


def _percent(number: float | None) -> float | None:
    return None if number is None else 100 * number


def _cells(table: Table, separator: str = " ") -> list[list[str]]:
    """The table as text; `separator` is between a number and its interval."""
    cited = any(row["source"] for row in table["rows"])
    lines = [["Model", *["Zero-shot"] * cited, *table["columns"].values(), *["Source"] * cited]]
    for row in table["rows"]:
        texts = [_cell(row["numbers"].get(metric), separator) for metric in table["columns"]]
        trained = [_yes_or_no(row["zero_shot"]) or _NONE] * cited
        lines.append([row["model"], *trained, *texts, *[row["source"] or _NONE] * cited])
    return lines


def _cell(number: Table | None, separator: str) -> str:
    if number is None:
        return _NONE
    text = str(number["value"]) + _UNCLEAR * number["unclear"]
    low, high = number["ci_low"], number["ci_high"]
    return text if low is None or high is None else f"{text}{separator}[{low:.1f}, {high:.1f}]"


def _yes_or_no(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"
