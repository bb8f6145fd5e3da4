"""Compares the predictions of two runs on the same questions: differences, their significance, and changed rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unirs import plugins
from unirs.errors import DataError, UniRSError, did_you_mean
from unirs.evaluation.prediction_files import SavedRow, read_rows
from unirs.evaluation.results import read_metrics
from unirs.evaluation.scoring import installed_scorer
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import Difference, difference, point_estimate
from unirs.metrics.registry import METRICS, named_metric
from unirs.metrics.scorer import Scorer
from unirs.metrics.text_metric import as_scorer
from unirs.tasks.config import TaskConfig
from unirs.utils.progress import track

_MAX_EXACT = 1000  # discordant rows for which McNemar's test is exact


@dataclass(frozen=True)
class MetricComparison:
    """A statistic of both runs on `n` rows, NaN if undefined; `difference` is second minus first, paired."""

    metric: str
    first: float
    second: float
    difference: Difference
    n: int


@dataclass(frozen=True)
class McNemarResult:
    """McNemar's test of the `n` rows of a category, or of all rows if it is empty.

    `only_first` and `only_second` count the rows that only one run has right. For `p`, rows count as independent, which
    several questions about one image are not.
    """

    category: str
    n: int
    only_first: int
    only_second: int
    p: float
    test: str


@dataclass(frozen=True)
class ChangedPrediction:
    """The rows of both runs for a question that they score differently, and both scores."""

    first: Prediction
    second: Prediction
    scores: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Two runs on one task: statistics, McNemar's tests (none if scores are graded), and rows with different scores.

    Changes are sorted by difference; `unpaired` counts rows that only the first and only the second run has.
    """

    task: str
    metric: str
    metrics: tuple[MetricComparison, ...]
    mcnemar: tuple[McNemarResult, ...]
    changes: tuple[ChangedPrediction, ...]
    unpaired: tuple[int, int] = (0, 0)


def compare_runs(
    first: Path,
    second: Path,
    stage: str = "test",
    task: str | None = None,
    *,
    protocol: str | None = None,
    options: Mapping[str, Any] | None = None,
    intersect: bool = False,
    resamples: int = 10_000,
    trust_remote_code: bool = False,
) -> list[Comparison]:
    """Compares the saved answers of two run folders on one task, or on all tasks, which must be the same in both.

    The metric is the protocol of that name with its options, else that of the task in the first run's config or,
    without a config, of the installed task of that name. `intersect` excludes tasks and rows that only one run has.
    `trust_remote_code` allows that the run's config names code by file or dotted path.

    Raises:
        DataError: a file is missing or wrong, or the runs answered different questions. Names file, line and id.
        UniRSError: there is no such task, or its metric is unknown.
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
    for name in track(shared, "comparison", len(shared), unit="tasks"):
        paths = [run / stage / "predictions" / f"{name}.jsonl" for run in (first, second)]
        rows, unpaired = pair_rows(*map(read_rows, paths), intersect=intersect)
        categories = [row.category for row, _ in rows]
        if protocol:
            scorer = as_scorer(named_metric(protocol, categories, options))
        else:
            with plugins.installed_only(first, trust_remote_code=trust_remote_code):
                scorer = _scorer_of(name, first)
        comparisons.append(replace(compare_rows(name, scorer, rows, resamples=resamples), unpaired=unpaired))
    return comparisons


def pair_rows(
    first: Mapping[str, SavedRow], second: Mapping[str, SavedRow], *, intersect: bool = False
) -> tuple[list[tuple[Prediction, Prediction]], tuple[int, int]]:
    """Pairs the rows of two runs by id; also returns how many rows only the first and only the second run has.

    Raises:
        DataError: a row has no partner and `intersect` is not set, or has another category or other references there.
    """
    if not first.keys() & second.keys():
        raise DataError(f"{_file(first)} and {_file(second)} have no row in common: they answer different questions.")
    counts = []
    for rows, others in ((first, second), (second, first)):
        alone = [row for key, row in rows.items() if key not in others]
        counts.append(len(alone))
        if alone and not intersect:
            raise DataError(
                f"{alone[0].where}: row '{alone[0].id}' is not in {_file(others)} (nor are {len(alone) - 1} others). "
                "Answer the same questions with both runs, or compare what both have with --intersect."
            )
    pairs = [(row, second[key]) for key, row in first.items() if key in second]
    for row, other in pairs:
        if (row.category, row.scored_against()) != (other.category, other.scored_against()):
            raise DataError(
                f"{row.where} and {other.where} have the id '{row.id}' but different categories or references: the "
                "runs answered different data."
            )
    return [(_prediction(row), _prediction(other)) for row, other in pairs], (counts[0], counts[1])


def compare_rows(
    task: str, scorer: Scorer, rows: Sequence[tuple[Prediction, Prediction]], *, resamples: int = 10_000
) -> Comparison:
    """Compares two systems' answers to the same questions; rows with the same media are resampled together."""
    first, second = (scorer.evaluate([pair[side] for pair in rows]) for side in (0, 1))
    groups = [row.media or (row.id,) for row, _ in rows]
    metrics = []
    for name, statistic in first.statistics.items():
        # METEOR is missing if its program failed for one of them, which is logged.
        if name in second.statistics:
            other = second.statistics[name]
            gap = difference(statistic, other, groups, resamples)
            metrics.append(MetricComparison(name, point_estimate(statistic), point_estimate(other), gap, statistic.n))
    scores = list(zip(first.scores, second.scores, strict=True))
    scored = zip(rows, scores, strict=True)
    changes = [ChangedPrediction(*pair, both) for pair, both in scored if abs(both[1] - both[0]) > 0]
    changes.sort(key=lambda change: -abs(change.scores[1] - change.scores[0]))
    graded = any(score not in (0.0, 1.0) for both in scores for score in both)
    tests = [] if graded else _mcnemar_by_category([row.category for row, _ in rows], scores)
    return Comparison(task, scorer.name, tuple(metrics), tuple(tests), tuple(changes))


def mcnemar(only_first: int, only_second: int) -> tuple[float, str]:
    """Two-sided p of McNemar's test (McNemar, 1947), from the number of rows that only one of two systems has right.

    Also returns the test: `exact` (binomial) up to 1000 rows, then `chi-squared` with Edwards' continuity correction.
    """
    discordant = only_first + only_second
    if discordant <= _MAX_EXACT:
        tail = sum(math.comb(discordant, count) for count in range(min(only_first, only_second) + 1))
        return min(1.0, 2 * tail / 2**discordant), "exact"
    distance = max(0, abs(only_first - only_second) - 1)
    return math.erfc(math.sqrt(distance**2 / discordant / 2)), "chi-squared"


def _mcnemar_by_category(categories: Sequence[str], scores: Sequence[tuple[float, float]]) -> list[McNemarResult]:
    results = []
    for category in sorted({"", *categories}):
        group = [both for both, of_row in zip(scores, categories, strict=True) if category in ("", of_row)]
        only_first = sum(first > second for first, second in group)
        only_second = sum(second > first for first, second in group)
        results.append(McNemarResult(category, len(group), only_first, only_second, *mcnemar(only_first, only_second)))
    return results


def _scorer_of(name: str, run: Path) -> Scorer:
    """The scorer of a run's task: as its config names it, else that of the installed task of that name."""
    config, scorer = run / "config.yaml", None
    if config.is_file():
        task = TaskConfig.read_run(config).get(name)
        scorer = None if task is None else task.task.scorer
    else:
        scorer = installed_scorer(name)
    if scorer is None:
        raise UniRSError(f"The metric of task '{name}' in {run} is unknown. Add --as ({', '.join(METRICS)}).")
    return scorer


def _prediction(row: SavedRow) -> Prediction:
    references = row.scored_against()
    return Prediction(row.id, row.task, row.media, row.category, row.prompt, row.answered(), references, row.clue)


def _file(rows: Mapping[str, SavedRow]) -> str:
    return next(iter(rows.values())).where.rpartition(", ")[0]
