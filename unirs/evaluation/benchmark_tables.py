"""Results of a suite beside published numbers: as text, Markdown, LaTeX, CSV and JSON.

Numbers are times 100, as papers print them; every table says so, and where each number is from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unirs.errors import DataError, did_you_mean
from unirs.evaluation.results import format_counts
from unirs.evaluation.suite import Published, Suite, SuiteTask
from unirs.utils import tables as layout

_NONE = "-"

_UNCLEAR = "?"


@dataclass(frozen=True)
class Cell:
    """A number of a model.

    Attributes:
        text: as shown: a published number with its printed digits, one of ours times 100 with two decimals.
        low: lower end of the 95 % interval, times 100; None where there is none.
        high: upper end.
        unclear: whether it is not known to be micro or macro.
    """

    text: str
    low: float | None = None
    high: float | None = None
    unclear: bool = False


@dataclass(frozen=True)
class BenchRow:
    """A model's numbers on one task.

    Attributes:
        model: its name.
        source: key of the publication; empty for a model that this benchmark ran.
        zero_shot: as published; None where not known.
        cells: by statistic.
    """

    model: str
    source: str
    zero_shot: bool | None
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class BenchTable:
    """A task's table.

    Attributes:
        label: the task's name in results.
        title: the task's name in tables.
        columns: titles by statistic, in order.
        rows: published models first, then ours.
        notes: what a reader must know, a sentence each.
    """

    label: str
    title: str
    columns: Mapping[str, str]
    rows: tuple[BenchRow, ...]
    notes: tuple[str, ...]


def bench_tables(suite: Suite, results: Mapping[str, Mapping[str, Any]]) -> list[BenchTable]:
    """Puts results beside what is published, a table a task.

    Args:
        suite: what to show.
        results: by model, in the order to show, what its `metrics.json` holds. A task that a model was not run on has
            no row for it.

    Raises:
        DataError: a model has results of a task that the suite does not have.
    """
    labels = [task.label for task in suite.tasks]
    for model, document in results.items():
        for label in document["tasks"]:
            if label not in labels:
                raise DataError(
                    f"'{model}' has results of '{label}', which is no task of the suite. {did_you_mean(label, labels)}"
                )
    return [_table(suite, task, results) for task in suite.tasks]


def to_text(tables: Sequence[BenchTable]) -> str:
    """For a terminal; the 95 % interval stands below its number."""
    return "\n\n".join(
        "\n".join(
            [
                table.title,
                layout.to_text(_cells(table, separator="\n")),
                *(f"  {note}" for note in table.notes),
            ]
        )
        for table in tables
    )


def markdown_report(tables: Sequence[BenchTable], title: str) -> str:
    """A page with a heading and a table a task."""
    parts = [f"# {title}"]
    for table in tables:
        notes = "\n".join(f"- {note}" for note in table.notes)
        parts += [f"## {table.title}", layout.to_markdown(_cells(table)), notes]
    return "\n\n".join(parts) + "\n"


def latex_report(tables: Sequence[BenchTable]) -> str:
    """A `table` a task in the style of booktabs."""
    return "\n\n".join(layout.to_latex(_cells(table), table.title, table.notes) for table in tables) + "\n"


def csv_report(tables: Sequence[BenchTable]) -> str:
    """A line a number, for further work."""
    head = ["task", "model", "source", "zero_shot", "metric", "value", "ci_low", "ci_high", "unclear"]
    lines = [
        [
            table.label,
            row.model,
            row.source or "this benchmark",
            _yes_or_no(row.zero_shot),
            metric,
            cell.text,
            *("" if end is None else f"{end:.2f}" for end in (cell.low, cell.high)),
            _yes_or_no(cell.unclear),
        ]
        for table in tables
        for row in table.rows
        for metric, cell in row.cells.items()
    ]
    return layout.to_csv([head, *lines])


def json_report(tables: Sequence[BenchTable], suite: Suite) -> str:
    """Everything that the other forms show; `value` is text with its printed digits, `low` and `high` are numbers."""
    document = {
        "title": suite.title,
        "sources": dict(suite.sources),
        "scale": 100,
        "tasks": [
            {
                "label": table.label,
                "title": table.title,
                "columns": dict(table.columns),
                "rows": [
                    {
                        "model": row.model,
                        "source": row.source or None,
                        "zero_shot": row.zero_shot,
                        "numbers": {
                            metric: {
                                "value": cell.text,
                                "ci_low": cell.low,
                                "ci_high": cell.high,
                                "unclear": cell.unclear,
                            }
                            for metric, cell in row.cells.items()
                        },
                    }
                    for row in table.rows
                ],
                "notes": list(table.notes),
            }
            for table in tables
        ],
    }
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _table(suite: Suite, task: SuiteTask, results: Mapping[str, Mapping[str, Any]]) -> BenchTable:
    ran = {model: document for model, document in results.items() if task.label in document["tasks"]}
    rows = [_published(entry) for entry in task.published]
    rows += [_ours(model, document["tasks"][task.label], task) for model, document in ran.items()]
    notes = [f"Numbers are times 100. [low, high]: 95 % bootstrap interval. {_NONE}: not known."]
    if any(cell.unclear for row in rows for cell in row.cells.values()):
        notes.append(f"{_UNCLEAR}: an average of which it is not known whether it is micro or macro.")
    by_count: dict[str, list[str]] = {}
    for model, document in ran.items():
        evaluated, excluded = (format_counts(document[part].get(task.label, {})) for part in ("evaluated", "excluded"))
        by_count.setdefault(f"evaluated {evaluated}; excluded {excluded}", []).append(model)
    notes += [f"{', '.join(models)}: {counts}." for counts, models in by_count.items()]
    cited = dict.fromkeys(entry.source for entry in task.published)
    notes += [f"{source}: {suite.sources[source]}." for source in cited]
    return BenchTable(task.label, task.title, task.columns, tuple(rows), tuple(notes))


def _published(entry: Published) -> BenchRow:
    cells = {metric: Cell(number, unclear=metric in entry.unclear) for metric, number in entry.numbers.items()}
    return BenchRow(entry.model, entry.source, entry.zero_shot, cells)


def _ours(model: str, metrics: Mapping[str, Mapping[str, float | None]], task: SuiteTask) -> BenchRow:
    cells = {}
    for metric in task.columns:
        # METEOR needs Java, and a limited run may miss a kind: a dash then stands for it, as for an undefined number.
        numbers = metrics.get(metric)
        if numbers is not None and numbers["value"] is not None:
            value, low, high = (_percent(numbers[key]) for key in ("value", "ci_low", "ci_high"))
            cells[metric] = Cell(f"{value:.2f}", low, high)
    return BenchRow(model, "", None, cells)


def _percent(number: float | None) -> float | None:
    return None if number is None else 100 * number


def _cells(table: BenchTable, separator: str = " ") -> list[list[str]]:
    """The table as text; `separator` is between a number and its interval."""
    cited = any(row.source for row in table.rows)
    lines = [["Model", *["Zero-shot"] * cited, *table.columns.values(), *["Source"] * cited]]
    for row in table.rows:
        numbers = [row.cells.get(metric) for metric in table.columns]
        texts = [_NONE if cell is None else _number(cell, separator) for cell in numbers]
        trained = [_yes_or_no(row.zero_shot) or _NONE] * cited
        lines.append([row.model, *trained, *texts, *[row.source or _NONE] * cited])
    return lines


def _number(cell: Cell, separator: str) -> str:
    text = cell.text + _UNCLEAR * cell.unclear
    no_interval = cell.low is None or cell.high is None
    return text if no_interval else f"{text}{separator}[{cell.low:.1f}, {cell.high:.1f}]"


def _yes_or_no(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"
