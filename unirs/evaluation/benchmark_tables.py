"""Results of a suite beside published numbers, times 100: as text, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
        value: as shown: a published number with its printed digits, one of ours times 100 with two decimals.
        ci_low: lower end of the 95 % interval, times 100; None if there is none.
        ci_high: upper end.
        unclear: whether it is unknown if the number is a micro or a macro average.
    """

    value: str
    ci_low: float | None = None
    ci_high: float | None = None
    unclear: bool = False


@dataclass(frozen=True)
class BenchRow:
    """A model's numbers on one task.

    Attributes:
        model: its name.
        source: key of the publication; None for a model that this benchmark ran.
        zero_shot: as published; None if unknown.
        numbers: by statistic.
    """

    model: str
    source: str | None
    zero_shot: bool | None
    numbers: Mapping[str, Cell]


@dataclass(frozen=True)
class BenchTable:
    """A task's table.

    Attributes:
        label: the task's name in results.
        title: the task's name in tables.
        columns: titles by statistic, in order.
        rows: published models first, then those of this benchmark.
        notes: sentences about scale, averages, counts and sources.
    """

    label: str
    title: str
    columns: Mapping[str, str]
    rows: tuple[BenchRow, ...]
    notes: tuple[str, ...]


def bench_tables(suite: Suite, results: Mapping[str, Mapping[str, Any]]) -> list[BenchTable]:
    """Lays out results beside published numbers, one table for each task.

    Args:
        suite: what to show.
        results: content of `metrics.json` by model, in the order to show. A model without results of a task has no row.

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
    """Tables for a terminal; the 95 % interval is below its number."""
    return "\n\n".join(
        "\n".join([table.title, layout.to_text(_cells(table, separator="\n")), *(f"  {one}" for one in table.notes)])
        for table in tables
    )


def markdown_report(tables: Sequence[BenchTable], title: str) -> str:
    """A page with a heading and a table for each task."""
    parts = [f"# {title}"]
    for table in tables:
        notes = "\n".join(f"- {note}" for note in table.notes)
        parts += [f"## {table.title}", layout.to_markdown(_cells(table)), notes]
    return "\n\n".join(parts) + "\n"


def latex_report(tables: Sequence[BenchTable]) -> str:
    """A `table` environment for each task, in the style of booktabs."""
    return "\n\n".join(layout.to_latex(_cells(table), table.title, table.notes) for table in tables) + "\n"


def csv_report(tables: Sequence[BenchTable]) -> str:
    """One line for each number, for further processing."""
    head = ["task", "model", "source", "zero_shot", "metric", "value", "ci_low", "ci_high", "unclear"]
    lines = [
        [
            table.label,
            row.model,
            row.source or "this benchmark",
            _yes_or_no(row.zero_shot),
            metric,
            cell.value,
            *("" if end is None else f"{end:.2f}" for end in (cell.ci_low, cell.ci_high)),
            _yes_or_no(cell.unclear),
        ]
        for table in tables
        for row in table.rows
        for metric, cell in row.numbers.items()
    ]
    return layout.to_csv([head, *lines])


def json_report(tables: Sequence[BenchTable], suite: Suite) -> str:
    """All content of the tables; `value` is text with its printed digits, `ci_low` and `ci_high` are numbers."""
    content = [asdict(table) for table in tables]
    document = {"title": suite.title, "sources": dict(suite.sources), "scale": 100, "tasks": content}
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _table(suite: Suite, task: SuiteTask, results: Mapping[str, Mapping[str, Any]]) -> BenchTable:
    ran = {model: document for model, document in results.items() if task.label in document["tasks"]}
    rows = [_published(entry) for entry in task.published]
    rows += [_ours(model, document["tasks"][task.label], task) for model, document in ran.items()]
    notes = [f"Numbers are times 100. [low, high]: 95 % bootstrap interval. {_NONE}: unknown."]
    if any(cell.unclear for row in rows for cell in row.numbers.values()):
        notes.append(f"{_UNCLEAR}: it is unknown whether the average is micro or macro.")
    by_count: dict[str, list[str]] = {}
    for model, document in ran.items():
        evaluated, excluded = (format_counts(document[key].get(task.label, {})) for key in ("evaluated", "excluded"))
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
        # METEOR needs Java, and a limited run may lack a category: a dash is shown, as for an undefined number.
        numbers = metrics.get(metric)
        if numbers is not None and numbers["value"] is not None:
            value, low, high = (_percent(numbers[key]) for key in ("value", "ci_low", "ci_high"))
            cells[metric] = Cell(f"{value:.2f}", low, high)
    return BenchRow(model, None, None, cells)


def _percent(number: float | None) -> float | None:
    return None if number is None else 100 * number


def _cells(table: BenchTable, separator: str = " ") -> list[list[str]]:
    """The table as text; `separator` is between a number and its interval."""
    cited = any(row.source for row in table.rows)
    lines = [["Model", *["Zero-shot"] * cited, *table.columns.values(), *["Source"] * cited]]
    for row in table.rows:
        numbers = [row.numbers.get(metric) for metric in table.columns]
        texts = [_NONE if cell is None else _number(cell, separator) for cell in numbers]
        trained = [_yes_or_no(row.zero_shot) or _NONE] * cited
        lines.append([row.model, *trained, *texts, *[row.source or _NONE] * cited])
    return lines


def _number(cell: Cell, separator: str) -> str:
    text = cell.value + _UNCLEAR * cell.unclear
    no_interval = cell.ci_low is None or cell.ci_high is None
    return text if no_interval else f"{text}{separator}[{cell.ci_low:.1f}, {cell.ci_high:.1f}]"


def _yes_or_no(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"
