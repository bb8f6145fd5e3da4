"""Results of an ablation: scores of each variant over several training runs, and differences from the first variant.

Numbers are times 100, as papers print them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unirs.errors import DataError, did_you_mean
from unirs.evaluation.ablation_suite import AblationGroup, AblationSuite, Plan, Variant
from unirs.evaluation.comparison import pair_rows
from unirs.evaluation.prediction_files import SavedRow, read_rows
from unirs.metrics.base import Prediction, Statistic
from unirs.metrics.bootstrap import Difference, difference, interval, point_estimate
from unirs.metrics.scorer import Scorer
from unirs.tasks.config import TaskConfig
from unirs.utils import tables
from unirs.utils.tables import Table, to_csv, to_markdown

if TYPE_CHECKING:
    import numpy as np


_NONE = "-"

_SIGNIFICANT = "*"


@dataclass(frozen=True)
class Score:
    """One statistic of a variant.

    Attributes:
        trainings: its value in each training run, in the order of the seeds.
        value: their mean.
        ci_low: lower end of the 95 % interval of the mean.
        ci_high: upper end.
        n: number of rows that the statistic is computed on, per run.
        difference: difference from the group's first variant; None for the first variant itself, and if that was not
            tested on the task.
    """

    trainings: tuple[float, ...]
    value: float
    ci_low: float
    ci_high: float
    n: int
    difference: Difference | None

    @property
    def excludes_0(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        return self.difference is not None and (self.difference.ci_low > 0 or self.difference.ci_high < 0)


@dataclass(frozen=True)
class GroupResult:
    """The results of one group.

    Attributes:
        title: heading of its tables.
        scores: by variant, then by task and statistic; only tasks that a variant was tested on.
    """

    title: str
    scores: Mapping[str, Mapping[tuple[str, str], Score]]


def over_trainings(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of one statistic over several trainings, tested on the same rows.

    A resample of rows, the same for all trainings, also draws trainings with replacement; so what is uncertain by the
    choice of test samples and by the seeds both widens the interval. A mean of S trainings drawn from S varies by
    (S - 1) / S too little, for which its deviation from the mean over all is scaled (Davison and Hinkley, 1997, section
    3.8, on hierarchical data). The draw depends on the number of trainings and resamples alone: two variants with the
    same seeds draw the same ones. With one training the interval is of the test samples alone.

    Args:
        statistics: one a training, all over the same rows in the same order.
    """
    import numpy as np

    count = len(statistics)
    ends = np.cumsum([statistic.row_sums.shape[1] for statistic in statistics])

    def value(sums: np.ndarray) -> np.ndarray:
        parts = zip(statistics, np.split(sums, ends[:-1], axis=-1), strict=True)
        values = np.stack([statistic.from_sums(part) for statistic, part in parts], axis=-1)
        mean: np.ndarray = values.mean(axis=-1)
        if values.ndim == 1 or count == 1:
            return mean
        drawn = np.random.default_rng(0).integers(count, size=values.shape)
        deviation = np.take_along_axis(values, drawn, axis=-1).mean(axis=-1) - mean
        resampled: np.ndarray = mean + np.sqrt(count / (count - 1)) * deviation
        return resampled

    return Statistic(np.concatenate([statistic.row_sums for statistic in statistics], axis=1), value, statistics[0].n)


def evaluate_groups(suite: AblationSuite, plan: Plan, runs: Path, *, resamples: int = 2000) -> list[GroupResult]:
    """Scores all variants of a plan whose training runs are finished.

    Args:
        suite: the statistics to show.
        plan: the run folder of each variant, seed and task.
        runs: the folder of the training runs.
        resamples: of the bootstrap.

    Raises:
        DataError: predictions are missing or damaged, two runs answered different questions, or a column is not a
            statistic of its task.
    """
    return [_evaluate_group(suite, plan, group, runs, resamples) for group in plan.groups.values()]


def to_text(results: Sequence[GroupResult], suite: AblationSuite, seeds: Sequence[int]) -> str:
    """For a terminal."""
    lines = []
    for result in results:
        lines += [result.title, *(f"{tables.to_text(table)}\n" for table in _tables(result, suite))]
    return "\n".join([*lines, *_notes(seeds)])


def markdown_report(results: Sequence[GroupResult], suite: AblationSuite, seeds: Sequence[int]) -> str:
    """A page with a heading per group, and below it a table of scores and one of differences."""
    parts = [f"# {suite.title}", "\n".join(f"- {note}" for note in _notes(seeds))]
    for result in results:
        parts += [f"## {result.title}", *map(to_markdown, _tables(result, suite))]
    return "\n\n".join(parts) + "\n"


def csv_report(results: Sequence[GroupResult]) -> str:
    """One line per variant, task and statistic."""
    head = ["group", "variant", "task", "metric", "value", "ci_low", "ci_high", "n", "trainings"]
    lines = [[*head, "difference", "difference_low", "difference_high", "p", "excludes_0"]]
    for result in results:
        for variant, scores in result.scores.items():
            for (task, metric), score in scores.items():
                apart = score.difference
                lines.append(
                    [
                        *(result.title, variant, task, metric),
                        *map(_decimal, (score.value, score.ci_low, score.ci_high)),
                        str(score.n),
                        " ".join(map(_decimal, score.trainings)),
                        *([""] * 5 if apart is None else map(_decimal, (apart.value, apart.ci_low, apart.ci_high))),
                        *([] if apart is None else [f"{apart.p:.4f}", "yes" if score.excludes_0 else "no"]),
                    ]
                )
    return to_csv(lines)


def json_report(results: Sequence[GroupResult], suite: AblationSuite, plan: Plan) -> str:
    """All numbers of the other forms, and the run folders that they come from."""
    groups: list[dict[str, Any]] = []
    for result in results:
        variants: dict[str, Any] = {}
        for variant, scores in result.scores.items():
            by_task: dict[str, dict[str, Any]] = {}
            for (task, metric), score in scores.items():
                by_task.setdefault(task, {})[metric] = _numbers(score)
            trainings = {str(seed): dict(plan.tested[variant, seed]) for seed in plan.seeds}
            variants[variant] = {"trainings": trainings, "scores": by_task}
        groups.append({"title": result.title, "variants": variants})
    document = {"title": suite.title, "scale": 100, "seeds": plan.seeds, "columns": suite.columns, "groups": groups}
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _evaluate_group(suite: AblationSuite, plan: Plan, group: AblationGroup, runs: Path, resamples: int) -> GroupResult:
    scores: dict[str, dict[tuple[str, str], Score]] = {name: {} for name in group.variants}
    for task, columns in suite.columns.items():
        questions: Mapping[str, SavedRow] = {}
        first: Mapping[str, Statistic] = {}
        for index, (name, variant) in enumerate(group.variants.items()):
            folders = [plan.tested[name, seed].get(task) for seed in plan.seeds]
            files = [runs / folder / "test" / "predictions" / f"{task}.jsonl" for folder in folders if folder]
            if not files:
                continue
            questions = questions or read_rows(files[0])
            # Brings the rows into one order, and raises if the runs answered different questions.
            rows = [[row for _, row in pair_rows(questions, read_rows(file))[0]] for file in files]
            media = [row.media or (row.id,) for row in rows[0]]
            means: dict[str, Statistic] = {}
            for metric, trainings in _statistics(_scorer(suite, variant, task), rows, columns).items():
                mean = means[metric] = over_trainings(trainings)
                low, high = interval(mean, media, resamples)
                apart = difference(first[metric], mean, media, resamples) if first else None
                each = tuple(map(point_estimate, trainings))
                scores[name][task, metric] = Score(each, point_estimate(mean), low, high, mean.n, apart)
            if index == 0:
                first = means
    return GroupResult(group.title, scores)


def _scorer(suite: AblationSuite, variant: Variant, task: str) -> Scorer:
    configs = map(TaskConfig.from_config, suite.merged(variant.config)["data"]["tasks"])
    return next(config.task.scorer for config in configs if config.name == task)


def _statistics(
    scorer: Scorer, rows: Sequence[Sequence[Prediction]], columns: Mapping[str, str]
) -> dict[str, list[Statistic]]:
    """The statistics to show, one a training."""
    evaluated = [scorer.evaluate(of_training, slow=False).statistics for of_training in rows]
    for name in columns:
        if name not in evaluated[0]:
            raise DataError(f"Task '{rows[0][0].task}' has no statistic '{name}'. {did_you_mean(name, evaluated[0])}")
    return {name: [statistics[name] for statistics in evaluated] for name in columns}


def _tables(result: GroupResult, suite: AblationSuite) -> list[Table]:
    """Scores, and differences if there is more than one variant."""
    keys = [(task, name) for task, columns in suite.columns.items() for name in columns]
    head = ["", *(suite.columns[task][name] for task, name in keys)]
    values, differences = [head], [head]
    first, *others = result.scores
    for variant, scores in result.scores.items():
        values.append([variant, *(_value(scores.get(key)) for key in keys)])
        if variant in others:
            differences.append([f"{variant} - {first}", *(_difference(scores.get(key)) for key in keys)])
    return [values, differences] if others else [values]


def _value(score: Score | None) -> str:
    if score is None:
        return _NONE
    return f"{100 * score.value:.2f} [{100 * score.ci_low:.1f}, {100 * score.ci_high:.1f}]"


def _difference(score: Score | None) -> str:
    if score is None or score.difference is None:
        return _NONE
    apart, mark = score.difference, f" {_SIGNIFICANT}" if score.excludes_0 else ""
    return f"{100 * apart.value:+.2f} [{100 * apart.ci_low:+.1f}, {100 * apart.ci_high:+.1f}]{mark}"


def _notes(seeds: Sequence[int]) -> list[str]:
    repeated = f"mean of {len(seeds)} training runs (seeds {', '.join(map(str, seeds))})"
    drawn = "training runs and test samples" if len(seeds) > 1 else "test samples"
    return [
        f"Numbers are times 100; {repeated if len(seeds) > 1 else f'one training run (seed {seeds[0]})'}.",
        f"[low, high]: 95 % bootstrap interval over {drawn}, resampled by media. Differences are paired.",
        f"{_SIGNIFICANT}: the interval of the difference excludes 0. {_NONE}: not tested.",
    ]


def _numbers(score: Score) -> dict[str, Any]:
    apart = score.difference
    ends = {"value": score.value, "ci_low": score.ci_low, "ci_high": score.ci_high}
    numbers: dict[str, Any] = {name: _percent(number) for name, number in ends.items()}
    numbers |= {"n": score.n, "trainings": list(map(_percent, score.trainings)), "difference": None}
    if apart is not None:
        ends = {"value": apart.value, "ci_low": apart.ci_low, "ci_high": apart.ci_high}
        p = apart.p if math.isfinite(apart.p) else None
        percent = {name: _percent(number) for name, number in ends.items()}
        numbers["difference"] = percent | {"p": p, "excludes_0": score.excludes_0}
    return numbers


def _percent(number: float) -> float | None:
    return 100 * number if math.isfinite(number) else None


def _decimal(number: float) -> str:
    return f"{100 * number:.2f}"
