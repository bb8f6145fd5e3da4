"""Two runs on the same questions: how far they differ, whether that could be chance, and where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from unirs import plugins
from unirs.errors import DataError, UniRSError, did_you_mean
from unirs.evaluation.prediction_files import SavedRow, read_rows
from unirs.evaluation.results import read_metrics
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import Difference, difference, point_estimate
from unirs.metrics.registry import METRICS, named_metric
from unirs.metrics.scorer import Scorer
from unirs.metrics.text_metric import as_scorer
from unirs.tasks.task import Task

_FEW = 1000
"""Up to so many discordant rows McNemar's test is computed exactly."""


@dataclass(frozen=True)
class MetricComparison:
    """A statistic of both runs.

    Attributes:
        metric: its name.
        first: its value in the first run; nan where undefined.
        second: in the second run.
        difference: second less first, by the paired bootstrap.
        n: the rows that it speaks of.
    """

    metric: str
    first: float
    second: float
    difference: Difference
    n: int


@dataclass(frozen=True)
class McNemarResult:
    """McNemar's test of rows that are right or wrong.

    Attributes:
        category: of the rows; empty for all rows.
        n: rows.
        only_first: rows that only the first run has right.
        only_second: rows that only the second run has right.
        p: two-sided; rows are taken as independent, which several questions about one picture are not.
        test: `exact` (binomial) or `chi-squared` (with continuity correction).
    """

    category: str
    n: int
    only_first: int
    only_second: int
    p: float
    test: str


@dataclass(frozen=True)
class ChangedPrediction:
    """A row that the two runs score differently.

    Attributes:
        first: the first run's row.
        second: the second run's.
        scores: the row's score in either run.
    """

    first: Prediction
    second: Prediction
    scores: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Two runs on one task.

    Attributes:
        task: the task's name.
        metric: the metric's name.
        lines: a statistic each, in the metric's order.
        sides: McNemar's test over all rows and by kind; empty where rows have graded scores.
        changes: rows with different scores, the largest difference first, in either direction.
        left_out: rows that only the first and only the second run has, of the intersection.
    """

    task: str
    metric: str
    lines: tuple[MetricComparison, ...]
    sides: tuple[McNemarResult, ...]
    changes: tuple[ChangedPrediction, ...]
    left_out: tuple[int, int]


def compare_runs(
    first: Path,
    second: Path,
    stage: str = "test",
    task: str | None = None,
    *,
    metric: str | None = None,
    intersect: bool = False,
    resamples: int = 10_000,
) -> list[Comparison]:
    """Compares the saved answers of two runs.

    Args:
        first: folder of a run, with `<stage>/metrics.json` and `<stage>/predictions/<task>.jsonl`.
        second: the other.
        stage: `test`, `validate`, `bench` or `score`.
        task: only this task; None compares all tasks, which must be the same in both.
        metric: A name in `METRICS` or a dotted path; None takes the task's own, as the first run's config names it or,
            without one, the installed task of that name.
        intersect: compare the tasks and rows that both have, and leave out the others.
        resamples: of the bootstrap.

    Raises:
        DataError: a file is missing or wrong, or the runs answered different questions. Names file, line and id.
        UniRSError: there is no such task, or its metric is not known.
    """
    listed = [list(read_metrics(run / stage / "metrics.json")["tasks"]) for run in (first, second)]
    shared = [name for name in listed[0] if name in listed[1]]
    if task is not None:
        if task not in shared:
            raise UniRSError(f"{first} and {second} have no task '{task}' in common. {did_you_mean(task, shared)}")
        shared = [task]
    elif not shared or (set(listed[0]) != set(listed[1]) and not intersect):
        raise UniRSError(
            f"The runs have different tasks: {first / stage} has {', '.join(listed[0])}; {second / stage} has "
            f"{', '.join(listed[1])}. Choose one with --task, or compare what both have with --intersect."
        )
    comparisons = []
    for name in shared:
        paths = [run / stage / "predictions" / f"{name}.jsonl" for run in (first, second)]
        rows, left_out = pair_rows(*map(read_rows, paths), intersect=intersect)
        kinds = [row.category for row, _ in rows]
        scorer = as_scorer(named_metric(metric, kinds)) if metric else _scorer_of(name, first)
        comparisons.append(replace(compare_rows(name, scorer, rows, resamples=resamples), left_out=left_out))
    return comparisons


def pair_rows(
    first: Mapping[str, SavedRow], second: Mapping[str, SavedRow], *, intersect: bool = False
) -> tuple[list[tuple[Prediction, Prediction]], tuple[int, int]]:
    """Matches the rows of two runs by id, in the order of the first.

    Args:
        first: one run's rows.
        second: the other's.
        intersect: leave out what only one of them has.

    Returns:
        Rows of equal id, kind and references; and how many only the first and only the second has.

    Raises:
        DataError: a row has no partner, or one with another kind or other references; names file, line and id.
    """
    alone = [
        [row for key, row in mine.items() if key not in other] for mine, other in ((first, second), (second, first))
    ]
    if len(alone[0]) == len(first):
        raise DataError(f"{_file(first)} and {_file(second)} have no row in common: they answer different questions.")
    for rows, other in zip(alone, (second, first), strict=True):
        if rows and not intersect:
            raise DataError(
                f"{rows[0].where}: row '{rows[0].id}' is not in {_file(other)} (nor are {len(rows) - 1} others). "
                "Answer the same questions with both runs, or compare what both have with --intersect."
            )
    for key, row in first.items():
        if key in second and (row.category, row.scored_against()) != (
            second[key].category,
            second[key].scored_against(),
        ):
            raise DataError(
                f"{row.where} and {second[key].where} have the id '{key}' but different kinds or references: the runs "
                "answered different data."
            )
    pairs = [(_prediction(row), _prediction(second[key])) for key, row in first.items() if key in second]
    return pairs, (len(alone[0]), len(alone[1]))


def compare_rows(
    task: str, scorer: Scorer, rows: Sequence[tuple[Prediction, Prediction]], *, resamples: int = 10_000
) -> Comparison:
    """Compares two systems' answers to the same questions.

    Args:
        task: the task's name.
        scorer: Scores both.
        rows: one pair a question; rows that show the same media are resampled together.
        resamples: of the bootstrap.
    """
    first, second = (scorer.evaluate([pair[side] for pair in rows]) for side in (0, 1))
    clusters = [row.media or (row.id,) for row, _ in rows]
    lines = [
        MetricComparison(
            name,
            point_estimate(statistic),
            point_estimate(second.statistics[name]),
            difference(statistic, second.statistics[name], clusters, resamples),
            statistic.n,
        )
        for name, statistic in first.statistics.items()
        # METEOR is missing where its program failed for one of them, which the log tells.
        if name in second.statistics
    ]
    scores = list(zip(first.scores, second.scores, strict=True))
    changes = [
        ChangedPrediction(*pair, scores=both)
        for pair, both in zip(rows, scores, strict=True)
        if abs(both[1] - both[0]) > 0
    ]
    changes.sort(key=lambda change: -abs(change.scores[1] - change.scores[0]))
    graded = any(score not in (0.0, 1.0) for both in scores for score in both)
    sides = [] if graded else _sides([row.category for row, _ in rows], scores)
    return Comparison(task, scorer.name, tuple(lines), tuple(sides), tuple(changes), (0, 0))


def mcnemar(only_first: int, only_second: int) -> tuple[float, str]:
    """McNemar's test of whether two systems are right equally often (McNemar, 1947).

    Args:
        only_first: rows that only one system has right.
        only_second: rows that only the other has right.

    Returns:
        The two-sided p, and how it was computed: `exact`, from the binomial distribution, up to 1000 such rows, beyond
        them `chi-squared`, with Edwards' continuity correction.
    """
    discordant = only_first + only_second
    if discordant <= _FEW:
        tail = sum(math.comb(discordant, count) for count in range(min(only_first, only_second) + 1))
        return min(1.0, 2 * tail / 2**discordant), "exact"
    distance = max(0, abs(only_first - only_second) - 1)
    return math.erfc(math.sqrt(distance**2 / discordant / 2)), "chi-squared"


def _sides(kinds: Sequence[str], scores: Sequence[tuple[float, float]]) -> list[McNemarResult]:
    groups = {"": scores}
    for kind in sorted(set(kinds) - {""}):
        groups[kind] = [both for both, its in zip(scores, kinds, strict=True) if its == kind]
    sides = []
    for kind, group in groups.items():
        only_first = sum(first > second for first, second in group)
        only_second = sum(second > first for first, second in group)
        sides.append(McNemarResult(kind, len(group), only_first, only_second, *mcnemar(only_first, only_second)))
    return sides


def _scorer_of(name: str, run: Path) -> Scorer:
    """The metric of a run's task: as its config names it, else of the installed task of that name."""
    config = run / "config.yaml"
    if config.is_file():
        from unirs.tasks.config import TaskConfig

        content: Any = yaml.safe_load(config.read_text(encoding="utf-8"))
        for spec in content["data"]["tasks"]:
            task = TaskConfig.from_config(spec)
            if task.name == name:
                return task.task.scorer
    elif name in plugins.list_plugins("unirs.tasks"):
        built: Task = plugins.create("unirs.tasks", {"name": name, "root": Path("data") / name})
        return built.scorer
    raise UniRSError(f"The metric of task '{name}' in {run} is not known. Add --metric ({', '.join(METRICS)}).")


def _prediction(row: SavedRow) -> Prediction:
    references = row.scored_against()
    return Prediction(row.id, row.task, row.media, row.category, row.prompt, row.answered(), references, row.clue)


def _file(rows: Mapping[str, SavedRow]) -> str:
    return next(iter(rows.values())).where.rpartition(", line ")[0]
