"""Benchmark suites: which tasks to run, which statistics to show, and what others have published, as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from unirs.errors import DataError, did_you_mean
from unirs.plugins import short_name
from unirs.utils.yaml_node import Node, read_yaml


@dataclass(frozen=True)
class Published:
    """What a publication says of a model on one task.

    Attributes:
        model: the model's name.
        source: where the numbers are printed; a key of the suite's sources.
        numbers: by statistic, as printed: with all digits, accuracies and caption scores times 100. The statistic says
            what an average is: `accuracy` over all questions (micro), `accuracy_macro` the mean over kinds.
        unclear: statistics of which neither the source nor the numbers tell whether they are micro or macro.
        zero_shot: whether the model had not been trained on the task's data; None where the source does not say.
    """

    model: str
    source: str
    numbers: Mapping[str, Decimal]
    unclear: tuple[str, ...]
    zero_shot: bool | None


@dataclass(frozen=True)
class SuiteTask:
    """A task of a suite.

    Attributes:
        label: its name in results.
        title: its name in tables.
        spec: the task as in a config's `data.tasks`: plugin name, root, options, `synthetic`.
        columns: titles of the statistics to show, in order.
        published: others' numbers, in the order to show.
    """

    label: str
    title: str
    spec: Mapping[str, Any]
    columns: Mapping[str, str]
    published: tuple[Published, ...]


@dataclass(frozen=True)
class Suite:
    """A benchmark suite.

    Attributes:
        title: what it measures.
        sources: publications by key.
        tasks: in the order to run and show.
    """

    title: str
    sources: Mapping[str, str]
    tasks: tuple[SuiteTask, ...]


def read_suite(path: Path) -> Suite:
    """Reads a suite.

    The file has `title`, `tasks` and, where numbers are published, `sources`. A task has `task` (as in a config's
    `data.tasks`), `title`, `columns` (statistic: title) and `published`, whose entries have `model`, `source`,
    `numbers` (statistic: "text as printed"), `zero_shot` and `unclear`.

    Raises:
        DataError: the file is missing or no YAML; a key is unknown (with the nearest match), missing or of the wrong
            type; a source or statistic is named that is not there; two tasks have one label. Names file and key.
    """
    suite = read_yaml(path)
    suite.only("title", "sources", "tasks")
    sources = suite.texts("sources")
    tasks = tuple(_task(node, sources) for node in suite.list("tasks"))
    labels = [task.label for task in tasks]
    for label in labels:
        if labels.count(label) > 1:
            raise DataError(f"{path}: {labels.count(label)} tasks are named '{label}'. Give each a 'label' of its own.")
    if not tasks:
        raise DataError(f"{path}: 'tasks' is empty. Name at least one.")
    return Suite(suite.get("title", str), sources, tasks)


def _task(node: Node, sources: Mapping[str, str]) -> SuiteTask:
    node.only("task", "title", "columns", "published")
    spec: dict[str, Any] = node.get("task", dict)
    name = spec.get("name")
    if not isinstance(name, str):
        raise node.fail("task.name", f"must be the name of a task plugin, it is {name!r}.")
    node.get("columns", dict)
    columns = node.texts("columns")
    published = tuple(_published(entry, columns, sources) for entry in node.list("published"))
    return SuiteTask(str(spec.get("label") or short_name(name)), node.get("title", str), spec, columns, published)


def _published(node: Node, columns: Mapping[str, str], sources: Mapping[str, str]) -> Published:
    node.only("model", "source", "numbers", "unclear", "zero_shot")
    source = node.get("source", str)
    if source not in sources:
        raise node.fail("source", f"'{source}' is not among the sources. {did_you_mean(source, sources)}")
    node.get("numbers", dict)
    numbers = node.texts("numbers", lambda text: _decimal(node, text))
    for statistic in numbers:
        if statistic not in columns:
            raise node.fail(f"numbers.{statistic}", f"is no column of the task. {did_you_mean(statistic, columns)}")
    unclear = [entry.content for entry in node.list("unclear")]
    for statistic in unclear:
        if statistic not in numbers:
            raise node.fail(
                "unclear", f"'{statistic}' is not among the numbers. {did_you_mean(str(statistic), numbers)}"
            )
    zero_shot = node.content.get("zero_shot")
    if not isinstance(zero_shot, bool | None):
        raise node.fail("zero_shot", f"must be true, false or left out, it is {zero_shot!r}.")
    return Published(node.get("model", str), source, numbers, tuple(unclear), zero_shot)


def _decimal(node: Node, text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise node.fail("numbers", f"'{text}' is not a number.") from None
    if not number.is_finite():
        raise node.fail("numbers", f"'{text}' is not a number.")
    return number
