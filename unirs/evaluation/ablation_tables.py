"""What an ablation found: scores of each variant over several trainings, and how far they are from the first's.

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
from unirs.utils.tables import Table, align, to_csv, to_markdown

if TYPE_CHECKING:
    import numpy as np


_NONE = "-"

_SURE = "*"


@dataclass(frozen=True)
class Score:
    """One statistic of a variant.

    Attributes:
        trainings: its value in each training, in the order of the seeds.
        value: their mean.
        low: lower end of the 95 % interval of the mean.
        high: upper end.
        n: the rows that it speaks of, in each training.
        difference: how far the mean is above that of the question's first variant; None for the first itself, and where
            that one was not tested on the task.
    """

    trainings: tuple[float, ...]
    value: float
    ci_low: float
    ci_high: float
    n: int
    difference: Difference | None

    @property
    def sure(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        return self.difference is not None and (self.difference.ci_low > 0 or self.difference.ci_high < 0)


@dataclass(frozen=True)
class GroupResult:
    """The answer to one question.

    Attributes:
        question: what was asked.
        scores: by variant, then by task and statistic; only what a variant was tested on.
    """

    group: AblationGroup
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
    """Scores all variants of a plan whose trainings are finished.

    Args:
        suite: which statistics to show.
        plan: which trainings hold which answers.
        runs: folder of the trainings.
        resamples: of the bootstrap.

    Raises:
        DataError: answers are missing or damaged, two trainings answered different questions, or a column is no
            statistic of its task.
    """
    return [_answer(suite, plan, question, runs, resamples) for question in plan.groups]


def to_text(answers: Sequence[GroupResult], suite: AblationSuite, seeds: Sequence[int]) -> str:
    """For a terminal."""
    parts = []
    for answer in answers:
        lines = [answer.group.title]
        for table in _tables(answer, suite):
            lines += [*(line.rstrip() for line in align(table)), ""]
        parts.append("\n".join(lines))
    return "\n".join([*parts, *_notes(seeds)])


def markdown_report(answers: Sequence[GroupResult], suite: AblationSuite, seeds: Sequence[int]) -> str:
    """A page with a heading a question, and below it a table of scores and one of differences."""
    parts = [f"# {suite.title}", "\n".join(f"- {note}" for note in _notes(seeds))]
    for answer in answers:
        parts += [f"## {answer.group.title}", *map(to_markdown, _tables(answer, suite))]
    return "\n\n".join(parts) + "\n"


def csv_report(answers: Sequence[GroupResult]) -> str:
    """A line a number, for further work."""
    head = ["question", "variant", "task", "metric", "value", "ci_low", "ci_high", "n", "trainings"]
    head += ["difference", "difference_low", "difference_high", "p", "excludes_0"]
    lines = []
    for answer in answers:
        for variant, scores in answer.scores.items():
            for (task, metric), score in scores.items():
                apart = score.difference
                lines.append(
                    [
                        *(answer.group.title, variant, task, metric),
                        *map(_decimal, (score.value, score.ci_low, score.ci_high)),
                        str(score.n),
                        " ".join(map(_decimal, score.trainings)),
                        *([""] * 5 if apart is None else map(_decimal, (apart.value, apart.ci_low, apart.ci_high))),
                        *([] if apart is None else [f"{apart.p:.4f}", "yes" if score.sure else "no"]),
                    ]
                )
    return to_csv([head, *lines])


def json_report(answers: Sequence[GroupResult], suite: AblationSuite, plan: Plan) -> str:
    """Everything that the other forms show, and which trainings are behind it."""
    document = {
        "title": suite.title,
        "scale": 100,
        "seeds": list(plan.seeds),
        "columns": {task: dict(columns) for task, columns in suite.columns.items()},
        "questions": [
            {
                "title": answer.group.title,
                "variants": {
                    variant: {
                        "trainings": {str(seed): dict(plan.tested[variant, seed]) for seed in plan.seeds},
                        "scores": _nested({key: _numbers(score) for key, score in scores.items()}),
                    }
                    for variant, scores in answer.scores.items()
                },
            }
            for answer in answers
        ],
    }
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _answer(suite: AblationSuite, plan: Plan, question: AblationGroup, runs: Path, resamples: int) -> GroupResult:
    scores: dict[str, dict[tuple[str, str], Score]] = {variant.name: {} for variant in question.variants}
    for task, columns in suite.columns.items():
        asked: Mapping[str, SavedRow] = {}
        first: Mapping[str, Statistic] = {}
        for variant in question.variants:
            folders = [plan.tested[variant.name, seed].get(task) for seed in plan.seeds]
            files = [runs / folder / "test" / "predictions" / f"{task}.jsonl" for folder in folders if folder]
            if not files:
                continue
            asked = asked or read_rows(files[0])
            # In one order, and refused where the trainings answered different questions.
            rows = [[row for _, row in pair_rows(asked, read_rows(file))[0]] for file in files]
            statistics = _statistics(_scorer(variant, task), rows, columns)
            clusters = [row.media or (row.id,) for row in rows[0]]
            for name, trainings in statistics.items():
                mean = over_trainings(trainings)
                low, high = interval(mean, clusters, resamples)
                apart = difference(first[name], mean, clusters, resamples) if first else None
                each = tuple(map(point_estimate, trainings))
                scores[variant.name][task, name] = Score(each, point_estimate(mean), low, high, mean.n, apart)
            if variant is question.variants[0]:
                first = {name: over_trainings(trainings) for name, trainings in statistics.items()}
    return GroupResult(question, scores)


def _scorer(variant: Variant, task: str) -> Scorer:
    tasks = map(TaskConfig.from_config, variant.config["data"]["tasks"])
    return next(named.task.scorer for named in tasks if named.name == task)


def _statistics(
    scorer: Scorer, rows: Sequence[Sequence[Prediction]], columns: Mapping[str, str]
) -> dict[str, list[Statistic]]:
    """The statistics to show, one a training."""
    evaluated = [scorer.evaluate(of_training, slow=False).statistics for of_training in rows]
    for name in columns:
        if name not in evaluated[0]:
            raise DataError(f"Task '{rows[0][0].task}' has no statistic '{name}'. {did_you_mean(name, evaluated[0])}")
    return {name: [statistics[name] for statistics in evaluated] for name in columns}


def _tables(answer: GroupResult, suite: AblationSuite) -> list[Table]:
    """Scores, and differences where there is more than one variant."""
    keys = [(task, name) for task, columns in suite.columns.items() for name in columns]
    titles = [suite.columns[task][name] for task, name in keys]
    values = [["", *titles]]
    apart = [["", *titles]]
    first, *others = answer.scores
    for variant, scores in answer.scores.items():
        cells = [scores.get(key) for key in keys]
        values.append([variant, *(_NONE if cell is None else _value(cell) for cell in cells)])
        if variant in others:
            apart.append([f"{variant} less {first}", *(_NONE if cell is None else _difference(cell) for cell in cells)])
    return [values, apart] if others else [values]


def _value(score: Score) -> str:
    return f"{100 * score.value:.2f} [{100 * score.ci_low:.1f}, {100 * score.ci_high:.1f}]"


def _difference(score: Score) -> str:
    apart = score.difference
    if apart is None:
        return _NONE
    sure = f" {_SURE}" if score.sure else ""
    return f"{100 * apart.value:+.2f} [{100 * apart.ci_low:+.1f}, {100 * apart.ci_high:+.1f}]{sure}"


def _notes(seeds: Sequence[int]) -> list[str]:
    repeated = f"mean of {len(seeds)} trainings (seeds {', '.join(map(str, seeds))})"
    drawn = "trainings and test samples, drawn together" if len(seeds) > 1 else "test samples alone"
    return [
        f"Numbers are times 100; {repeated if len(seeds) > 1 else f'one training (seed {seeds[0]})'}.",
        f"[low, high]: 95 % bootstrap interval over {drawn}; media are drawn whole. Differences are paired.",
        f"{_SURE} the interval of the difference excludes 0. {_NONE} not tested.",
    ]


def _numbers(score: Score) -> dict[str, Any]:
    apart = score.difference
    return {
        "value": _percent(score.value),
        "ci_low": _percent(score.ci_low),
        "ci_high": _percent(score.ci_high),
        "n": score.n,
        "trainings": list(map(_percent, score.trainings)),
        "difference": apart
        and {
            "value": _percent(apart.value),
            "ci_low": _percent(apart.ci_low),
            "ci_high": _percent(apart.ci_high),
            "p": apart.p if math.isfinite(apart.p) else None,
            "excludes_0": score.sure,
        },
    }


def _nested(scores: Mapping[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for (task, name), numbers in scores.items():
        nested.setdefault(task, {})[name] = numbers
    return nested


def _percent(number: float) -> float | None:
    return 100 * number if math.isfinite(number) else None


def _decimal(number: float) -> str:
    return f"{100 * number:.2f}"
