"""Benchmark suites in YAML: tasks to run, statistics to show, and published numbers."""

from __future__ import annotations

import re
from typing import Annotated, Any

from msgspec import Meta

from unirs.errors import did_you_mean
from unirs.tasks.config import task_label
from unirs.utils.typed_yaml import StrictStruct, Text


class Published(StrictStruct, frozen=True):
    """Published numbers of a model on one task.

    Attributes:
        model: the model's name.
        source: key of the publication in the suite's `sources`.
        numbers: by statistic, with all printed digits, times 100; `accuracy` is a micro average, `accuracy_macro` the
            mean over categories.
        unclear: statistics for which the source does not determine whether they are micro or macro.
        zero_shot: whether the model was not trained on the task's data; None if the source does not state it.
    """

    model: Text
    source: Text
    numbers: Annotated[dict[str, str], Meta(min_length=1)]
    unclear: tuple[str, ...] = ()
    zero_shot: bool | None = None

    def __post_init__(self) -> None:
        """Checks that numbers are numbers, and that `unclear` names some of them."""
        for statistic, text in self.numbers.items():
            if not re.fullmatch(r"[+-]?\d+(\.\d+)?", text):
                raise ValueError(f"numbers.{statistic}: '{text}' is not a number")
        for statistic in self.unclear:
            if statistic not in self.numbers:
                raise ValueError(
                    f"unclear: '{statistic}' is not among the numbers. {did_you_mean(statistic, self.numbers)}"
                )


class SuiteTask(StrictStruct, frozen=True):
    """A task of a suite.

    Attributes:
        title: its name in tables.
        task: the task as in a config's `data.tasks`.
        columns: titles of the statistics to show, in order.
        published: published numbers, in the order to show.
    """

    title: Text
    task: dict[str, Any]
    columns: Annotated[dict[str, str], Meta(min_length=1)]
    published: tuple[Published, ...] = ()

    @property
    def label(self) -> str:
        """The task's name in results."""
        return task_label(self.task)

    def __post_init__(self) -> None:
        """Checks that the task has a name, and that published numbers have a column."""
        if not isinstance(self.task.get("name"), str):
            raise ValueError(f"task.name: must name a task plugin, got {self.task.get('name')!r}")  # noqa: TRY004
        for index, entry in enumerate(self.published):
            for statistic in entry.numbers:
                if statistic not in self.columns:
                    raise ValueError(
                        f"published[{index}].numbers.{statistic}: not a column of the task. "
                        f"{did_you_mean(statistic, self.columns)}"
                    )


class Suite(StrictStruct, frozen=True):
    """A benchmark suite.

    Attributes:
        title: what it measures.
        tasks: in the order to run and show.
        sources: publications by key.
    """

    title: Text
    tasks: Annotated[tuple[SuiteTask, ...], Meta(min_length=1)]
    sources: dict[str, str] = {}  # noqa: RUF012 (msgspec copies an empty default)

    def __post_init__(self) -> None:
        """Checks that labels are unique and that sources exist."""
        labels = [task.label for task in self.tasks]
        for index, task in enumerate(self.tasks):
            if labels.count(task.label) > 1:
                raise ValueError(
                    f"{labels.count(task.label)} tasks are named '{task.label}'. Give each a 'label' of its own"
                )
            for row, entry in enumerate(task.published):
                if entry.source not in self.sources:
                    raise ValueError(
                        f"tasks[{index}].published[{row}].source: '{entry.source}' is not among the sources. "
                        f"{did_you_mean(entry.source, self.sources)}"
                    )
