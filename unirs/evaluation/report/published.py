"""Published numbers of a suite, beside those of a run or of all models of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from msgspec import structs

from unirs.evaluation.benchmark_tables import Table, bench_tables
from unirs.evaluation.report import charts
from unirs.evaluation.report.content import TaskSection
from unirs.evaluation.suite import Suite
from unirs.plugins import plugin_options
from unirs.tasks.config import TaskOptions, check_task_options

# They change training, the location of the data, which metrics are computed, or what the model may use: not the task.
_NOT_COMPARED = {"root", "label", "weight", "clue", "augment", "allow_outside_root", "meteor"}


def published_sections(
    suite: Suite, run: str, document: Mapping[str, Any], specs: Mapping[str, Mapping[str, Any]]
) -> dict[str, TaskSection]:
    """Sections with the published numbers of a run's tasks, by task; a task without published numbers has none.

    Tasks are matched by their names in results. If their options differ, the section has a note instead of numbers.

    Args:
        suite: has the published numbers.
        run: name of the run, for its row.
        document: the run's `metrics.json`.
        specs: entries of the run's tasks in a config, by name; empty if they are unknown.
    """
    sections = {}
    for task in suite.tasks:
        label = task.label
        if not task.published or label not in document["tasks"]:
            continue
        title = f"{task.title}: published numbers of the suite '{suite.title}'"
        if differences := _differences(specs[label], task.task) if label in specs else []:
            note = f"Not comparable: {'; '.join(differences)}. Set the same options in the suite and in the run."
            sections[label] = TaskSection(title, [], [note], {})
            continue
        (table,) = bench_tables(structs.replace(suite, tasks=(task,)), {run: document})
        section = table_section(table)
        unknown = [] if label in specs else ["The run's options of this task are unknown: tasks are matched by name."]
        sections[label] = TaskSection(title, section.table, [*section.notes, *unknown], section.charts)
    return sections


def table_section(table: Table) -> TaskSection:
    """A task's table of `bench_tables`, the best model first, with bars for each column."""
    columns: Mapping[str, str] = table["columns"]
    primary = next(iter(columns))
    rows = sorted(table["rows"], key=lambda row: -float(row["numbers"].get(primary, {"value": "-inf"})["value"]))
    lines = [["model", *columns.values(), "source"]]
    for row in rows:
        lines.append(
            [row["model"], *(_number(row["numbers"].get(name)) for name in columns), row["source"] or "this run"]
        )
    models = [row["model"] for row in rows]
    names = [
        model if models.count(model) == 1 else f"{model} ({row['source'] or 'this run'})"
        for model, row in zip(models, rows, strict=True)
    ]
    ours = [name for name, row in zip(names, rows, strict=True) if row["source"] is None] or ["none"]
    drawn = {}
    for metric, title in columns.items():
        known = {
            name: row["numbers"][metric] | {"value": float(row["numbers"][metric]["value"])}
            for name, row in zip(names, rows, strict=True)
            if metric in row["numbers"]
        }
        if known:
            drawn[title] = charts.bars(dict(sorted(known.items(), key=lambda one: -one[1]["value"])), title, ours)
    return TaskSection(table["title"], lines, table["notes"], drawn)


def _number(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "-"
    text = str(cell["value"]) + "?" * bool(cell["unclear"])
    low, high = cell["ci_low"], cell["ci_high"]
    return text if low is None or high is None else f"{text} ({low:.1f} to {high:.1f})"


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The options by which the entry of a run's task differs from that of a suite's, as text."""
    if ours == theirs:
        return []
    run, suite = _all_options(ours), _all_options(theirs)
    names = ["name"] if run["name"] != suite["name"] else sorted(run)
    return [
        f"'{name}' is {run[name]!r} in the run and {suite[name]!r} in the suite"
        for name in names
        if run[name] != suite[name]
    ]


def _all_options(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an entry that its numbers depend on, with their defaults."""
    options = check_task_options(spec)
    defaults = {option.name: option.default for option in plugin_options("unirs.tasks", options["name"])}
    defaults |= {entry.name: entry.default for entry in fields(TaskOptions)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in (defaults | options).items()
        if name not in _NOT_COMPARED
    }
