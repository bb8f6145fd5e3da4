"""Scores saved answers again, without a model."""

from __future__ import annotations

from collections import Counter
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
    """What `score` found.

    Attributes:
        result: the scored rows, in the order of the references.
        notes: what a reader of the numbers must know, a sentence each.
    """

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
    is the one of `task`, or the one named by `metric`, or that of the installed task which all rows name.

    Args:
        path: answers as JSON lines; see `unirs.evaluation.prediction_files` for the fields that are understood.
        task: a task plugin's `name`, `root` and options.
        split: the split of `task` that was answered.
        metric: A name in `METRICS` or a dotted path. The classes of `top1` are then those that occur in the references:
            a row without a category is of the class that its first reference names.
        references: a file of references as JSON lines.
        allow_missing: a question without an answer counts as answered with nothing, which is wrong, and is no error.
        allow_unknown: answers to other questions are left out, and no error.

    Raises:
        DataError: a file or row is wrong; questions lack answers or answers questions. Names file, line and id.
        UniRSError: metric and references are not told, or told twice.
    """
    if task is not None and (metric is not None or references is not None):
        raise UniRSError("A task brings its metric and its references: name no --metric and no --references with it.")
    answers = read_rows(path)
    dropped: Mapping[str, int] = {}
    notes = []
    if task is not None:
        built: Task = plugins.create("unirs.tasks", task)
        name, scorer = plugins.short_name(str(task["name"])), built.scorer
        questions, dropped = _task_questions(built, split)
        source = f"split '{split}' of task '{name}'"
    else:
        name, source = _only_task(answers, path), str(references or path)
        questions = _listed_questions(answers if references is None else read_rows(references, answers=False))
        if metric == "top1":
            questions = {
                key: replace(row, category=row.category or row.references[0]) for key, row in questions.items()
            }
        scorer = (
            as_scorer(named_metric(metric, [row.category for row in questions.values()]))
            if metric
            else _scorer_of(name, path)
        )
        name = name or path.stem
    notes.append(f"Metric {scorer.name}; references: {source}.")
    notes += _check(answers, questions, path, source, allow_missing=allow_missing, allow_unknown=allow_unknown)
    rows = [_answered(row, name, answers.get(key)) for key, row in questions.items()]
    alone = sum(row.media == () for row in rows)
    if alone:
        notes.append(f"{alone} rows name no media: each is resampled on its own, as if no two showed the same.")
    rows = [replace(row, media=row.media or (row.id,)) for row in rows]
    return Scored(TaskResult(name, rows, scorer.evaluate(rows), dropped), tuple(notes))


def _task_questions(task: Task, split: SplitName) -> tuple[dict[str, Prediction], Mapping[str, int]]:
    samples = task.load_split(split)
    return {
        turn.id: Prediction(turn.id, "", sample.media.sources, turn.category, "", "", turn.references)
        for sample in samples
        for turn in sample.turns
    }, samples.num_excluded


def _listed_questions(rows: Mapping[str, SavedRow]) -> dict[str, Prediction]:
    return {
        key: Prediction(key, "", row.media, row.category, row.prompt, "", row.scored_against())
        for key, row in rows.items()
    }


def _only_task(answers: Mapping[str, SavedRow], path: Path) -> str:
    names = Counter(row.task for row in answers.values())
    if len(names) > 1:
        raise DataError(f"{path} holds answers of several tasks: {', '.join(sorted(names))}. Score one at a time.")
    return next(iter(names))


def _scorer_of(name: str, path: Path) -> Scorer:
    if name not in plugins.list_plugins("unirs.tasks"):
        raise UniRSError(
            f"{path} does not say how to score it: its rows name "
            f"{f'{name!r}, which is no installed task' if name else 'no task'}. "
            f"Add --metric ({', '.join(METRICS)}) or --task NAME --root DIR."
        )
    task: Task = plugins.create("unirs.tasks", {"name": name, "root": Path("data") / name})
    return task.scorer


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
            "Name the references that were answered, or leave such answers out with --allow-unknown."
        )
    if len(unknown) == len(answers):
        raise DataError(f"{path}: none of its {len(answers)} answers is to a question in {source}.")
    if unknown:
        notes.append(f"{len(unknown)} of {len(answers)} answers are to unknown questions and left out.")
    missing = [key for key in questions if key not in answers]
    if missing and not allow_missing:
        raise DataError(
            f"{path} has no answer to {len(missing)} of {len(questions)} questions in {source}: {_some(missing)}. "
            "Answer them, or count them as wrong with --allow-missing."
        )
    if missing:
        notes.append(f"{len(missing)} of {len(questions)} answers are missing and count as wrong: {_some(missing)}.")
    return notes


def _answered(question: Prediction, task: str, row: SavedRow | None) -> Prediction:
    if row is None:
        return replace(question, task=task)
    return replace(
        question,
        task=task,
        media=question.media or row.media,
        prompt=row.prompt or question.prompt,
        text=row.answered(),
        clue=row.clue,
    )


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
