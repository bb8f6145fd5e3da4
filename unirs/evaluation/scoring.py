"""Scores saved answers again, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unirs import plugins
from unirs.errors import DataError, UniRSError
from unirs.evaluation.prediction_files import SavedRow, read_rows
from unirs.evaluation.results import TaskResult
from unirs.metrics.base import Prediction
from unirs.metrics.registry import METRICS, named_metric
from unirs.metrics.scorer import Scorer
from unirs.metrics.text_metric import as_scorer
from unirs.tasks.task import SplitName, Task


@dataclass(frozen=True)
class Scored:
    """The scored rows, in the order of the references, and remarks on the numbers, one sentence each."""

    result: TaskResult
    notes: tuple[str, ...]


def score(
    path: Path,
    *,
    task: Mapping[str, Any] | None = None,
    split: SplitName = "test",
    metric: str | None = None,
    references: Path | None = None,
    allow_missing: bool = False,
    allow_unknown: bool = False,
) -> Scored:
    """Scores a file of answers, joined with references by id.

    The references are those of `task`, of the file `references`, or of the answers' own rows, in this order. The metric
    is that of `task`, the named one, or that of the installed task which all rows name; classes of `top1` are the
    categories, or else the first references. If allowed, missing answers and `null` are wrong, and unknown ones are
    excluded.

    Raises:
        DataError: a file or row is wrong; questions lack answers, or answers questions. Names file, line and id.
        UniRSError: metric or references are undefined, or defined twice.
    """
    if task is not None and (metric is not None or references is not None):
        raise UniRSError("A task brings its metric and its references: name no --metric and no --references with it.")
    saved = read_rows(path)
    answers = {key: row for key, row in saved.items() if row.is_answered or not allow_missing}
    excluded: Mapping[str, int] = {}
    if task is not None:
        name = plugins.short_name(str(task["name"]))
        source = f"split '{split}' of task '{name}'"
        created: Task = plugins.create("unirs.tasks", task)
        samples, scorer = created.load_split(split), created.scorer
        excluded = samples.num_excluded
        questions = {
            turn.id: Prediction(turn.id, "", sample.media.sources, turn.category, "", "", turn.references)
            for sample in samples
            for turn in sample.turns
        }
    else:
        source = str(references or path)
        listed = saved if references is None else read_rows(references, answers=False)
        questions = {
            key: Prediction(key, "", row.media, row.category, row.prompt, "", row.scored_against())
            for key, row in listed.items()
        }
        if metric == "top1":
            questions = {
                key: replace(row, category=row.category or row.references[0]) for key, row in questions.items()
            }
        name, scorer = _name_and_scorer(saved, path, metric, [row.category for row in questions.values()])
    notes = [f"Metric {scorer.name}; references: {source}."]
    notes += _check(answers, questions, path, source, allow_missing=allow_missing, allow_unknown=allow_unknown)
    rows = [_answered(row, name, answers.get(key)) for key, row in questions.items()]
    alone = sum(row.media == () for row in rows)
    if alone:
        notes.append(f"{alone} rows name no media: each is resampled on its own, as if no two had the same media.")
    rows = [replace(row, media=row.media or (row.id,)) for row in rows]
    return Scored(TaskResult(name, rows, scorer.evaluate(rows), excluded), tuple(notes))


def installed_scorer(name: str) -> Scorer | None:
    """The scorer of the installed task of a name, with its default options; None if there is no such task."""
    if name not in plugins.list_plugins("unirs.tasks"):
        return None
    task: Task = plugins.create("unirs.tasks", {"name": name, "root": Path("data") / name})
    return task.scorer


def _name_and_scorer(
    answers: Mapping[str, SavedRow], path: Path, metric: str | None, categories: Sequence[str]
) -> tuple[str, Scorer]:
    """The task that all answers name, or else the name of the file; and the named metric, or else that task's."""
    names = sorted({row.task for row in answers.values()})
    if len(names) > 1:
        raise DataError(f"{path} holds answers of several tasks: {', '.join(names)}. Score one at a time.")
    if metric is not None:
        scorer: Scorer | None = as_scorer(named_metric(metric, categories))
    else:
        scorer = installed_scorer(names[0])
    if scorer is None:
        raise UniRSError(
            f"{path} does not determine its metric: its rows name "
            f"{f'{names[0]!r}, which is no installed task' if names[0] else 'no task'}. "
            f"Add --metric ({', '.join(METRICS)}) or --task NAME --root DIR."
        )
    return names[0] or path.stem, scorer


def _check(
    answers: Mapping[str, SavedRow],
    questions: Mapping[str, Prediction],
    path: Path,
    source: str,
    *,
    allow_missing: bool,
    allow_unknown: bool,
) -> list[str]:
    notes = []
    unknown = [row for key, row in answers.items() if key not in questions]
    if unknown and not allow_unknown:
        raise DataError(
            f"{unknown[0].where}: no question has the id '{unknown[0].id}' in {source} ({len(unknown)} of "
            f"{len(answers)} answers are to unknown questions; ids there look like '{next(iter(questions), '')}'). "
            "Name the references that were answered, or exclude such answers with --allow-unknown."
        )
    if len(unknown) == len(answers):
        raise DataError(f"{path}: none of its {len(answers)} answers is to a question in {source}.")
    if unknown:
        notes.append(f"{len(unknown)} of {len(answers)} answers are to unknown questions and excluded.")
    missing = [key for key in questions if key not in answers]
    some = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
    if missing and not allow_missing:
        raise DataError(
            f"{path} has no answer to {len(missing)} of {len(questions)} questions in {source}: {some}. "
            "Answer them, or count them as wrong with --allow-missing."
        )
    if missing:
        notes.append(f"{len(missing)} of {len(questions)} answers are missing and count as wrong: {some}.")
    return notes


def _answered(question: Prediction, task: str, row: SavedRow | None) -> Prediction:
    if row is None:
        return replace(question, task=task)
    media, prompt = question.media or row.media, row.prompt or question.prompt
    return replace(question, task=task, media=media, prompt=prompt, text=row.answered(), clue=row.clue)
