"""What an evaluation leaves behind: `metrics.json`, a file of predictions per task, and the table that people read."""

from __future__ import annotations

import json
import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unirs.errors import DataError
from unirs.metrics.base import Evaluation, Prediction
from unirs.metrics.bootstrap import intervals, point_estimate
from unirs.utils.io import replacing_folder
from unirs.utils.tables import decimal, to_text

_WIDTH = 100


@dataclass(frozen=True)
class TaskResult:
    """One task's answers and their scores.

    Attributes:
        task: the task's name; also the stem of its file of predictions.
        rows: the scored predictions; their counts by kind are reported as `evaluated`.
        evaluation: the metric's view of `rows`, in the same order.
        excluded: how many turns the protocol left out, by kind.
        decoding: `generate` for free text, `loglikelihood` for the likeliest of the task's choices.
    """

    task: str
    rows: Sequence[Prediction]
    evaluation: Evaluation
    excluded: Mapping[str, int]
    decoding: str = "generate"


def summary(result: TaskResult) -> dict[str, dict[str, float]]:
    """Computes every statistic of a task with its 95 % bootstrap interval.

    Rows that show the same media are resampled together, since their answers are not independent.

    Returns:
        `{metric: {"value", "ci_low", "ci_high", "n"}}` in the order of the evaluation; the same for the same rows. A
        statistic that is undefined on these rows is NaN.
    """
    statistics = result.evaluation.statistics
    ends = intervals(list(statistics.values()), [row.media for row in result.rows])
    return {
        name: {"value": point_estimate(statistic), "ci_low": low, "ci_high": high, "n": int(statistic.n)}
        for (name, statistic), (low, high) in zip(statistics.items(), ends, strict=True)
    }


def to_document(
    stage: str,
    step: int | None,
    results: Sequence[TaskResult],
    baselines: Mapping[str, Sequence[TaskResult]],
) -> dict[str, Any]:
    """The document of `metrics.json`: `{"stage", "step", "tasks", "baselines", "excluded", "evaluated"}`.

    Args:
        stage: as in `write_results`.
        step: as in `write_results`.
        results: as in `write_results`.
        baselines: as in `write_results`.

    Returns:
        Numbers by task and metric; undefined ones are None.
    """
    return {
        "stage": stage,
        "step": step,
        "tasks": _numbers(results),
        "baselines": {name: _numbers(of_baseline) for name, of_baseline in sorted(baselines.items())},
        "excluded": {result.task: dict(sorted(result.excluded.items())) for result in results},
        "evaluated": {
            result.task: dict(sorted(Counter(row.category for row in result.rows).items())) for result in results
        },
    }


def write_results(
    folder: Path,
    stage: str,
    step: int | None,
    results: Sequence[TaskResult],
    baselines: Mapping[str, Sequence[TaskResult]],
) -> dict[str, Any]:
    """Writes `metrics.json`, `table.txt` and `predictions/<task>.jsonl` into `<folder>/<stage>`.

    A baseline's predictions go to `predictions/<task>.<baseline>.jsonl`. The stage's folder is replaced as a whole: an
    interrupted write leaves the former results as they were. Equal results give equal bytes.

    Args:
        folder: the run's folder; made where it does not exist.
        stage: `validate`, `test`, `bench` or `score`.
        step: the optimizer step that the weights are from; None where it is not known.
        results: one per task.
        baselines: results of reference answers, such as a constant answer, by name.

    Returns:
        What `metrics.json` holds: see `to_document`.

    Raises:
        DataError: names of tasks and baselines do not make distinct file names.
    """
    files = _prediction_files(results, baselines)
    document = to_document(stage, step, results, baselines)
    with replacing_folder(folder / stage) as partial:
        (partial / "metrics.json").write_bytes(_encode(document, indent=2))
        (partial / "predictions").mkdir()
        for name, result in files.items():
            with (partial / "predictions" / name).open("wb") as file:
                file.writelines(_encode(row) for row in _rows(result))
        text = format_table(document) + "\n"
        (partial / "table.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
    return document


def read_metrics(path: Path) -> dict[str, Any]:
    """Reads a `metrics.json` that `write_results` wrote.

    Raises:
        DataError: the file is missing, is not JSON, or does not hold the tasks' numbers.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist. Name the metrics.json of a finished validate, test or bench."
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Name the metrics.json of a run.") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}). Run the evaluation again.") from error
    wrong = _wrong_part(document)
    if wrong:
        raise DataError(f"{path} is not the metrics.json of a run: {wrong}. Run the evaluation again.")
    return dict(document)


def format_table(document: Mapping[str, Any]) -> str:
    """Lays out the numbers of `write_results` or `read_metrics` as plain text for a terminal of 100 columns.

    For each task: a line per metric with its value, its 95 % interval, the value of each baseline and the number of
    rows it speaks of; then how many rows were evaluated and excluded, by category. A dash stands for an undefined
    number.
    """
    return "\n\n".join(_format_task(document, task) for task in document["tasks"])


def _numbers(results: Sequence[TaskResult]) -> dict[str, dict[str, dict[str, float | None]]]:
    return {
        result.task: {
            name: {key: number if math.isfinite(number) else None for key, number in numbers.items()}
            for name, numbers in summary(result).items()
        }
        for result in results
    }


def _rows(result: TaskResult) -> Iterator[dict[str, Any]]:
    evaluation = result.evaluation
    for row, normalized, score in zip(result.rows, evaluation.normalized, evaluation.scores, strict=True):
        yield {
            "id": row.id,
            "task": row.task,
            "media": list(row.media),
            "category": row.category,
            "prompt": row.prompt,
            "clue": row.clue,
            "text": row.text,
            "normalized": normalized,
            "references": list(row.references),
            "score": float(score) if math.isfinite(score) else None,
        }


def _encode(document: Mapping[str, Any], indent: int | None = None) -> bytes:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=indent)
    # Names of files may hold bytes that are not UTF-8, which Python keeps as lone surrogates. Their backslash form is
    # also how JSON spells them, so they survive being read back.
    return text.encode("utf-8", errors="backslashreplace") + b"\n"


def _prediction_files(
    results: Sequence[TaskResult], baselines: Mapping[str, Sequence[TaskResult]]
) -> dict[str, TaskResult]:
    named = [(result.task, result) for result in results]
    named += [(f"{result.task}.{name}", result) for name, of_baseline in baselines.items() for result in of_baseline]
    files: dict[str, TaskResult] = {}
    for stem, result in named:
        name = f"{stem}.jsonl"
        if "/" in stem or "\\" in stem or "\0" in stem or not result.task:
            raise DataError(
                f"'{stem}' cannot name a file of predictions. Rename the task or baseline, without slashes."
            )
        if name in files:
            raise DataError(f"Two results would be written to {name}. Give tasks and baselines distinct names.")
        files[name] = result
    return files


def _wrong_part(document: object) -> str:
    if not isinstance(document, dict):
        return "it holds no JSON object"
    for key in ("stage", "step", "tasks", "baselines", "excluded", "evaluated"):
        if key not in document:
            return f"'{key}' is missing"
        if key not in ("stage", "step") and not isinstance(document[key], dict):
            return f"'{key}' is not an object"
    for where in ("excluded", "evaluated"):
        for task, kinds in document[where].items():
            if not isinstance(kinds, dict) or not all(isinstance(count, int) for count in kinds.values()):
                return f"'{where}' of '{task}' does not count rows by kind"
    for where, tasks in [("tasks", document["tasks"]), *document["baselines"].items()]:
        if not isinstance(tasks, dict) or not all(isinstance(metrics, dict) for metrics in tasks.values()):
            return f"'{where}' does not hold metrics by task"
        for task, metrics in tasks.items():
            for metric, numbers in metrics.items():
                if not _are_numbers(numbers):
                    return f"'{metric}' of '{task}' in '{where}' lacks a number 'value', 'ci_low', 'ci_high' or 'n'"
    return ""


def _are_numbers(numbers: object) -> bool:
    if not isinstance(numbers, dict) or not isinstance(numbers.get("n"), int):
        return False
    return all(
        key in numbers and isinstance(numbers[key], float | int | None) for key in ("value", "ci_low", "ci_high")
    )


def _format_task(document: Mapping[str, Any], task: str) -> str:
    metrics = document["tasks"][task]
    baselines = {name: tasks[task] for name, tasks in document["baselines"].items() if task in tasks}
    table = [["metric", "value", "95 % interval", *baselines, "n"]]
    for metric, numbers in metrics.items():
        others = [decimal(rows.get(metric, {}).get("value")) for rows in baselines.values()]
        low, high = numbers["ci_low"], numbers["ci_high"]
        bounds = decimal(None) if low is None or high is None else f"[{decimal(low)}, {decimal(high)}]"
        table.append([metric, decimal(numbers["value"]), bounds, *others, str(numbers["n"])])
    _shorten_heads(table)
    evaluated, excluded = (format_counts(document[part].get(task, {})) for part in ("evaluated", "excluded"))
    step = "" if document["step"] is None else f", step {document['step']}"
    return "\n".join(
        [
            f"{task} ({document['stage']}{step})",
            to_text(table),
            *textwrap.wrap(
                f"evaluated {evaluated}; excluded {excluded}", _WIDTH, initial_indent="  ", subsequent_indent="    "
            ),
        ]
    )


def _shorten_heads(table: list[list[str]]) -> None:
    """Names of baselines give way where the table is wider than the terminal; numbers never do."""
    head, *body = table
    if 2 * len(head) + sum(max(map(len, column)) for column in zip(*table, strict=True)) > _WIDTH:
        for column in range(3, len(head) - 1):
            width = max([8, *(len(row[column]) for row in body)])
            if len(head[column]) > width:
                head[column] = head[column][: width - 2] + ".."


def format_counts(kinds: Mapping[str, int]) -> str:
    """Rows by kind as text: `7 (comp 4, presence 3)`."""
    total = str(sum(kinds.values()))
    if not any(kinds):
        return total
    by_kind = ", ".join(f"{kind or 'no category'} {count}" for kind, count in kinds.items())
    return f"{total} ({by_kind})"
