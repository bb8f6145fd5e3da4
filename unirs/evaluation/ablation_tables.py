"""Results of an ablation: scores of each variant over several training runs, and differences from the first variant.

All layouts show the same document, which is also `table.json`; its numbers are times 100, as papers print them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unirs.errors import DataError, did_you_mean
from unirs.evaluation.ablation_suite import AblationGroup, AblationSuite, Plan
from unirs.evaluation.comparison import pair_rows
from unirs.evaluation.prediction_files import SavedRow, read_rows
from unirs.metrics.base import Statistic
from unirs.metrics.bootstrap import difference, interval, point_estimate
from unirs.tasks.config import TaskConfig
from unirs.utils import tables

if TYPE_CHECKING:
    import numpy as np

Document = Mapping[str, Any]
"""Groups of variants, each with the run folders and, by task and statistic, the scores.

A score has `value`, the mean over training runs, the ends `ci_low` and `ci_high` of its 95 % interval, the number `n`
of rows per run, the values of the single runs as `trainings`, and `difference` from the group's first variant or None.
"""

_NONE, _SIGNIFICANT = "-", "*"
_DIGITS = {"value": 2, "ci_low": 1, "ci_high": 1}


def over_trainings(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of one statistic over several training runs, tested on the same rows in the same order.

    A resample of rows, the same for all runs, also draws runs with replacement, so both the test samples and the seeds
    widen the interval. A mean of S runs drawn from S varies by (S - 1) / S too little, so its deviation from the mean
    over all is scaled (Davison and Hinkley, 1997, section 3.8, on hierarchical data). The draw depends on the number of
    runs and resamples alone: two variants with the same seeds draw the same ones.
    """
    import numpy as np

    count = len(statistics)
    ends = np.cumsum([statistic.row_sums.shape[1] for statistic in statistics])

    def value(sums: np.ndarray) -> np.ndarray:
        by_run = zip(statistics, np.split(sums, ends[:-1], axis=-1), strict=True)
        values = np.stack([statistic.from_sums(sums_of_run) for statistic, sums_of_run in by_run], axis=-1)
        mean: np.ndarray = values.mean(axis=-1)
        if values.ndim == 1 or count == 1:
            return mean
        drawn = np.random.default_rng(0).integers(count, size=values.shape)
        deviation = np.take_along_axis(values, drawn, axis=-1).mean(axis=-1) - mean
        resampled: np.ndarray = mean + np.sqrt(count / (count - 1)) * deviation
        return resampled

    return Statistic(np.concatenate([statistic.row_sums for statistic in statistics], axis=1), value, statistics[0].n)


def evaluate_groups(suite: AblationSuite, plan: Plan, runs: Path, *, resamples: int = 2000) -> Document:
    """Scores all variants of a finished plan; raises a `DataError` for wrong predictions or an unknown statistic."""
    groups = []
    for group in plan.groups.values():
        variants: dict[str, dict[str, Any]] = {
            name: {"trainings": {str(seed): plan.tested[name, seed] for seed in plan.seeds}, "scores": {}}
            for name in group.variants
        }
        for task in suite.columns:
            for name, scores in _evaluate_task(suite, plan, group, task, runs, resamples).items():
                variants[name]["scores"][task] = scores
        groups.append({"title": group.title, "variants": variants})
    return {"title": suite.title, "scale": 100, "seeds": plan.seeds, "columns": suite.columns, "groups": groups}


def to_text(document: Document) -> str:
    """For a terminal."""
    lines = []
    for group in document["groups"]:
        lines += [group["title"], *(f"{tables.to_text(table)}\n" for table in _tables(document, group))]
    return "\n".join([*lines, *_notes(document["seeds"])])


def to_markdown(document: Document) -> str:
    """A page with a heading per group, and below it a table of scores and one of differences."""
    blocks = [f"# {document['title']}", "\n".join(f"- {note}" for note in _notes(document["seeds"]))]
    for group in document["groups"]:
        blocks += [f"## {group['title']}", *map(tables.to_markdown, _tables(document, group))]
    return "\n\n".join(blocks) + "\n"


def to_csv(document: Document) -> str:
    """One line per variant, task and statistic."""
    head = ["group", "variant", "task", "metric", *_DIGITS, "n", "trainings"]
    lines = [[*head, "difference", "difference_low", "difference_high", "p", "excludes_0"]]
    for group in document["groups"]:
        for variant, results in group["variants"].items():
            for task, scores in results["scores"].items():
                for metric, score in scores.items():
                    line = [group["title"], variant, task, metric, *(_number(score[end], ".2f") for end in _DIGITS)]
                    line += [str(score["n"]), " ".join(_number(value, ".2f") for value in score["trainings"])]
                    change = score["difference"]
                    if change is not None:
                        line += [*(_number(change[end], ".2f") for end in _DIGITS), _number(change["p"], ".4f")]
                    lines.append(line + ([""] * 5 if change is None else ["yes" if change["excludes_0"] else "no"]))
    return tables.to_csv(lines)


def _evaluate_task(
    suite: AblationSuite, plan: Plan, group: AblationGroup, task: str, runs: Path, resamples: int
) -> dict[str, dict[str, Any]]:
    """Scores by variant and statistic; only of variants that were tested on the task."""
    results: dict[str, dict[str, Any]] = {}
    means: dict[str, dict[str, Statistic]] = {}
    questions: Mapping[str, SavedRow] = {}
    first = next(iter(group.variants))
    for name, variant in group.variants.items():
        folders = [plan.tested[name, seed].get(task) for seed in plan.seeds]
        files = [runs / folder / "test" / "predictions" / f"{task}.jsonl" for folder in folders if folder]
        if not files:
            continue
        questions = questions or read_rows(files[0])
        # Brings the rows into one order, and raises if the runs answered different questions.
        rows = [[row for _, row in pair_rows(questions, read_rows(file))[0]] for file in files]
        media = [row.media or (row.id,) for row in rows[0]]
        configs = map(TaskConfig.from_config, suite.merged(variant.config)["data"]["tasks"])
        scorer = next(config.task.scorer for config in configs if config.name == task)
        evaluated = [scorer.evaluate(rows_of_run, slow=False).statistics for rows_of_run in rows]
        results[name], means[name] = {}, {}
        for metric in suite.columns[task]:
            if metric not in evaluated[0]:
                raise DataError(f"Task '{task}' has no statistic '{metric}'. {did_you_mean(metric, evaluated[0])}")
            trainings = [statistics[metric] for statistics in evaluated]
            mean = means[name][metric] = over_trainings(trainings)
            change = None
            if name != first and first in means:
                gap = difference(means[first][metric], mean, media, resamples)
                change = _interval(gap.value, gap.ci_low, gap.ci_high)
                change["p"] = gap.p if math.isfinite(gap.p) else None
                change["excludes_0"] = gap.ci_low > 0 or gap.ci_high < 0
            results[name][metric] = {
                **_interval(point_estimate(mean), *interval(mean, media, resamples)),
                "n": mean.n,
                "trainings": [_percent(point_estimate(training)) for training in trainings],
                "difference": change,
            }
    return results


def _interval(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": _percent(value), "ci_low": _percent(low), "ci_high": _percent(high)}


def _percent(number: float) -> float | None:
    return 100 * number if math.isfinite(number) else None


def _tables(document: Document, group: Document) -> Iterator[tables.Table]:
    """Scores, and differences if there is more than one variant."""
    columns = [(task, name, title) for task, names in document["columns"].items() for name, title in names.items()]
    head = ["", *(title for _, _, title in columns)]
    first, *others = group["variants"]
    scores = {
        variant: [results["scores"].get(task, {}).get(name) for task, name, _ in columns]
        for variant, results in group["variants"].items()
    }
    yield [head, *([variant, *(_cell(score) for score in row)] for variant, row in scores.items())]
    if others:
        changes = {name: [score and score["difference"] for score in scores[name]] for name in others}
        yield [head, *([f"{name} - {first}", *(_cell(one, "+") for one in row)] for name, row in changes.items())]


def _cell(score: Document | None, sign: str = "") -> str:
    if score is None:
        return _NONE
    value, low, high = (_number(score[end], f"{sign}.{digits}f") for end, digits in _DIGITS.items())
    return f"{value} [{low}, {high}]" + (f" {_SIGNIFICANT}" if score.get("excludes_0") else "")


def _number(number: float | None, style: str) -> str:
    return f"{math.nan if number is None else number:{style}}"


def _notes(seeds: Sequence[int]) -> list[str]:
    repeated = f"mean of {len(seeds)} training runs (seeds {', '.join(map(str, seeds))})"
    drawn = "training runs and test samples" if len(seeds) > 1 else "test samples"
    return [
        f"Numbers are times 100; {repeated if len(seeds) > 1 else f'one training run (seed {seeds[0]})'}.",
        f"[low, high]: 95 % bootstrap interval over {drawn}, resampled by media. Differences are paired.",
        f"{_SIGNIFICANT}: the interval of the difference excludes 0. {_NONE}: not tested.",
    ]
