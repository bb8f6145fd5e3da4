"""Scores saved answers again, without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unirs import plugins
from unirs.errors import DataError, PluginError, UniRSError, did_you_mean
from unirs.evaluation.prediction_files import SavedRow, read_rows
from unirs.evaluation.results import TaskResult
from unirs.metrics.base import Prediction
from unirs.metrics.registry import METRICS, PROTOCOLS, metric_options, named_metric
from unirs.metrics.scorer import Scorer
from unirs.metrics.text_metric import as_scorer
from unirs.tasks.task import SplitName, Task
from unirs.utils.progress import track

ALL = "all"
"""Name under which every protocol that fits the rows is applied."""


@dataclass(frozen=True)
class Scored:
    """Scores of a file of answers.

    Attributes:
        results: one by name of its protocol, with the rows in the order of the references.
        not_applied: for `all`, why each of the other protocols does not fit the rows.
        notes: remarks on the rows, one sentence each.
    """

    results: Mapping[str, TaskResult]
    not_applied: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def result(self) -> TaskResult:
        """The only result."""
        (result,) = self.results.values()
        return result


def score(
    path: Path,
    *,
    task: Mapping[str, Any] | None = None,
    split: SplitName = "test",
    protocol: str | None = None,
    options: Mapping[str, Any] | None = None,
    answer_format: str | None = None,
    references: Path | None = None,
    exclude: Sequence[str] = (),
    allow_missing: bool = False,
    allow_unknown: bool = False,
) -> Scored:
    """Scores a file of answers, joined with references by id.

    The references are those of `task`, of the file `references`, or of the answers' own rows, in this order. The metric
    is that of `task`, the named `protocol`, or that of the installed task which all rows name; classes of `top1` are
    the categories, or else the first references. If allowed, missing answers and `null` are wrong, and unknown ones are
    excluded.

    Args:
        path: the answers, JSON lines.
        task: a task and its options, as `plugins.create` takes them.
        split: of the task.
        protocol: a key of `METRICS`, a dotted path, or `all`.
        options: of the protocol; of `all`, each goes to the protocols that have it.
        answer_format: a key of `FORMATS`; by default that of the rows' fields.
        references: a file of references.
        exclude: categories of questions that do not count.
        allow_missing: whether questions without an answer are wrong instead of an error.
        allow_unknown: whether answers to other questions are excluded instead of an error.

    Raises:
        DataError: a file or row is wrong; questions lack answers, or answers questions. Names file, line and id.
        UniRSError: metric or references are undefined, or defined twice.
    """
    if task is not None and (protocol is not None or references is not None):
        raise UniRSError("A task brings its metric and its references: name no --as and no --references with it.")
    saved = read_rows(path, format_name=answer_format)
    answers = {key: row for key, row in saved.items() if row.is_answered or not allow_missing}
    excluded: Counter[str] = Counter()
    scorer: Scorer | None = None
    name = "" if task is not None else _task_name(saved, path)
    if task is not None:
        name = plugins.short_name(str(task["name"]))
        source = f"split '{split}' of task '{name}'"
        created: Task = plugins.create("unirs.tasks", task)
        samples, scorer = created.load_split(split), created.scorer
        excluded.update(samples.num_excluded)
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
        if protocol is None:
            scorer = _scorer_of_task(saved, path)
    dropped = _excluded(questions, exclude)
    excluded.update(questions[key].category for key in dropped)
    questions = {key: row for key, row in questions.items() if key not in dropped}
    answers = {key: row for key, row in answers.items() if key not in dropped}
    notes = _check(answers, questions, path, source, allow_missing=allow_missing, allow_unknown=allow_unknown)
    rows = [_answered(row, name or path.stem, answers.get(key)) for key, row in questions.items()]
    alone = sum(row.media == () for row in rows)
    if alone:
        notes.append(f"{alone} rows name no media: each is resampled on its own, as if no two had the same media.")
    rows = [replace(row, media=row.media or (row.id,)) for row in rows]
    scorers, not_applied = _scorers(protocol, scorer, options or {}, rows, source)
    results = {}
    for label, one in track(scorers.items(), "scores", len(scorers), unit="protocols"):
        task_name = f"{rows[0].task}.{label}" if protocol == ALL else rows[0].task
        of_protocol = [replace(row, task=task_name) for row in _with_classes(rows, label)]
        try:
            evaluation = one.evaluate(of_protocol)
        except DataError as error:
            raise DataError(f"{source}: {error}") from error
        results[label] = TaskResult(task_name, of_protocol, evaluation, excluded)
    title = "Protocols" if protocol == ALL else "Metric"
    return Scored(results, not_applied, (f"{title} {', '.join(results)}; references: {source}.", *notes))


def installed_scorer(name: str) -> Scorer | None:
    """The scorer of the installed task of a name, with its default options; None if there is no such task."""
    if name not in plugins.list_plugins("unirs.tasks"):
        return None
    task: Task = plugins.create("unirs.tasks", {"name": name, "root": Path("data") / name})
    return task.scorer


def _task_name(answers: Mapping[str, SavedRow], path: Path) -> str:
    """The task that all answers name; empty if they name none."""
    names = sorted({row.task for row in answers.values()})
    if len(names) > 1:
        raise DataError(f"{path} holds answers of several tasks: {', '.join(names)}. Score one at a time.")
    return names[0]


def _scorer_of_task(answers: Mapping[str, SavedRow], path: Path) -> Scorer:
    name = _task_name(answers, path)
    scorer = installed_scorer(name)
    if scorer is None:
        raise UniRSError(
            f"{path} does not determine its metric: its rows name "
            f"{f'{name!r}, which is no installed task' if name else 'no task'}. "
            f"Add --as ({ALL}, {', '.join(METRICS)}) or --task NAME --root DIR."
        )
    return scorer


def _scorers(
    protocol: str | None, scorer: Scorer | None, options: Mapping[str, Any], rows: Sequence[Prediction], source: str
) -> tuple[dict[str, Scorer], dict[str, str]]:
    """The scorers to apply by name, and why others are not applied."""
    if scorer is not None:
        return {scorer.name: scorer}, {}
    if protocol != ALL:
        named = as_scorer(named_metric(str(protocol), _classes(rows), options))
        return {named.name if ":" in str(protocol) else str(protocol): named}, {}
    known = {name: metric_options(name) for name in PROTOCOLS}
    for option in options:
        names = {each for of_protocol in known.values() for each in of_protocol}
        if option not in names:
            raise PluginError(f"No protocol has an option '{option}'. {did_you_mean(option, names)}")
    applied: dict[str, Scorer] = {}
    not_applied: dict[str, str] = {}
    unnamed = sum(not row.category for row in rows)
    for name in PROTOCOLS:
        if "classes" in known[name] and "classes" not in options and unnamed:
            not_applied[name] = f"{unnamed} of {len(rows)} rows have no category, which is the class"
            continue
        own = {option: value for option, value in options.items() if option in known[name]}
        try:
            one = as_scorer(named_metric(name, [row.category for row in rows], own))
        except DataError as error:  # categories that are no classes
            not_applied[name] = str(error)
            continue
        reason = one.mismatch(rows)
        if reason:
            not_applied[name] = reason
        else:
            applied[name] = one
    if not applied:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in not_applied.items())
        raise DataError(f"No protocol fits the references of {source}. {reasons}. Name one with --as.")
    return applied, not_applied


def _classes(rows: Sequence[Prediction]) -> list[str]:
    return [row.category or row.references[0] for row in rows]


def _with_classes(rows: Sequence[Prediction], protocol: str) -> Sequence[Prediction]:
    """The rows; for `top1` those without a category are of the class that their first reference is."""
    if protocol != "top1":
        return rows
    return [replace(row, category=row.category or row.references[0]) for row in rows]


def _excluded(questions: Mapping[str, Prediction], categories: Sequence[str]) -> Collection[str]:
    """Ids of the questions of some categories."""
    known = {row.category for row in questions.values()}
    for category in categories:
        if category not in known:
            raise UniRSError(f"No row has the category '{category}'. {did_you_mean(category, known - {''})}")
    if known and known <= set(categories):
        raise UniRSError("All categories are excluded. Keep one.")
    return {key for key, row in questions.items() if row.category in categories}


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
