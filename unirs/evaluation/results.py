"""What an evaluation leaves behind: `metrics.json`, a file of predictions per task, and the table that people read."""

from __future__ import annotations

import json
import math
import textwrap
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import msgspec

from unirs.errors import DataError
from unirs.metrics.base import Evaluation, Prediction
from unirs.metrics.bootstrap import intervals, point_estimate
from unirs.utils.io import check_regular, convert, is_file_name, replacing_folder, writing
from unirs.utils.tables import decimal, to_text

if TYPE_CHECKING:
    from unirs.data.batch import SkippedSample

_WIDTH = 100


@dataclass(frozen=True)
class TaskResult:
    """One task's answers and their scores.

    Attributes:
        task: the task's name; also the stem of its file of predictions.
        rows: the scored predictions; their counts by category are reported as `evaluated`.
        evaluation: scores of `rows`, in the same order.
        excluded: turns that the protocol excludes, by category.
    """

    task: str
    rows: Sequence[Prediction]
    evaluation: Evaluation
    excluded: Mapping[str, int]


class _Numbers(TypedDict):
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int


_Metrics = dict[str, dict[str, _Numbers]]


class _Document(TypedDict):
    stage: str
    step: int | None
    tasks: _Metrics
    baselines: dict[str, _Metrics]
    excluded: dict[str, dict[str, int]]
    evaluated: dict[str, dict[str, int]]
    skipped: NotRequired[dict[str, int]]
    notes: NotRequired[dict[str, list[str]]]
    primary: NotRequired[dict[str, str]]


def summary(result: TaskResult) -> dict[str, dict[str, float]]:
    """Computes every statistic of a task with its 95 % bootstrap interval.

    Rows about the same media are resampled together, since their answers are not independent.

    Returns:
        `{metric: {"value", "ci_low", "ci_high", "n"}}` in the order of the evaluation; the same for the same rows. A
        statistic that is undefined on these rows is NaN.
    """
    statistics = result.evaluation.statistics
    numbers: dict[tuple[str, ...], int] = {}
    groups = array("I", (numbers.setdefault(row.media, len(numbers)) for row in result.rows))
    ends = intervals(list(statistics.values()), groups)
    return {
        name: {"value": point_estimate(statistic), "ci_low": low, "ci_high": high, "n": int(statistic.n)}
        for (name, statistic), (low, high) in zip(statistics.items(), ends, strict=True)
    }


def to_document(
    stage: str,
    step: int | None,
    results: Sequence[TaskResult],
    baselines: Mapping[str, Sequence[TaskResult]],
    skipped: Sequence[SkippedSample] = (),
) -> dict[str, Any]:
    """The document of `metrics.json`, with None for undefined numbers.

    Args:
        stage: `validate`, `test`, `bench` or `score`.
        step: the optimizer step of the weights; None if unknown.
        results: one per task.
        baselines: results of baselines by name, such as a constant answer.
        skipped: samples that could not be read.

    Returns:
        `{"stage", "step", "tasks", "primary", "baselines", "excluded", "evaluated"}`; `primary` is the metric that
        represents a task. If samples were skipped, also `"skipped"`, their number by task; if metrics have remarks,
        also `"notes"`, lists by task.
    """
    evaluated = {result.task: Counter(row.category for row in result.rows) for result in results}
    skipped_counts = {"skipped": dict(sorted(Counter(one.task for one in skipped).items()))} if skipped else {}
    notes = {result.task: list(result.evaluation.notes) for result in results if result.evaluation.notes}
    return {
        "stage": stage,
        "step": step,
        "tasks": _numbers(results),
        "primary": {result.task: result.evaluation.primary_metric for result in results},
        "baselines": {name: _numbers(of_baseline) for name, of_baseline in sorted(baselines.items())},
        "excluded": {result.task: dict(sorted(result.excluded.items())) for result in results},
        "evaluated": {task: dict(sorted(counts.items())) for task, counts in evaluated.items()},
        **skipped_counts,
        **({"notes": notes} if notes else {}),
    }


def skipped_lines(skipped: Sequence[SkippedSample]) -> bytes:
    """The content of `skipped.jsonl`: task, id, media and error of each skipped sample."""
    return "".join(json.dumps(asdict(one)) + "\n" for one in skipped).encode()


def write_results(
    folder: Path,
    stage: str,
    step: int | None,
    results: Sequence[TaskResult],
    baselines: Mapping[str, Sequence[TaskResult]],
    skipped: Sequence[SkippedSample] = (),
) -> dict[str, Any]:
    """Writes `metrics.json`, `table.txt` and `predictions/<task>.jsonl` into `<folder>/<stage>`.

    A baseline's predictions go to `predictions/<task>.<baseline>.jsonl`. The stage's folder is replaced as a whole: an
    interrupted write leaves the former results unchanged. Equal results give equal bytes. Skipped samples, if any, are
    listed in `skipped.jsonl`. Arguments and result are those of `to_document`.

    Raises:
        DataError: names of tasks and baselines do not make distinct file names.
        UniRSError: the folder cannot be written.
    """
    files = _prediction_files(results, baselines)
    document = to_document(stage, step, results, baselines, skipped)
    with writing(folder / stage), replacing_folder(folder / stage) as partial:
        content = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
        # Names of files may hold lone surrogates: bytes that are not UTF-8. JSON escapes them as Python does here.
        (partial / "metrics.json").write_bytes(content.encode("utf-8", errors="backslashreplace"))
        (partial / "predictions").mkdir()
        if skipped:
            (partial / "skipped.jsonl").write_bytes(skipped_lines(skipped))
        for name, result in files.items():
            rows = zip(result.rows, result.evaluation.normalized, result.evaluation.scores, strict=True)
            with (partial / "predictions" / name).open("wb") as file:
                for row, normalized, score in rows:
                    file.write(row.to_json(normalized=normalized, score=_finite(float(score))) + b"\n")
        text = format_table(document) + "\n"
        (partial / "table.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
    return document


def read_metrics(path: Path) -> dict[str, Any]:
    """Reads a `metrics.json` that `write_results` wrote.

    Raises:
        DataError: the file is missing, is not JSON, or does not hold the tasks' numbers.
    """
    try:
        check_regular(path)
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist. Name the metrics.json of a finished validate, test or bench."
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Name the metrics.json of a run.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}). Run the evaluation again.") from error
    try:
        convert(document, _Document)
    except msgspec.ValidationError as error:
        raise DataError(f"{path} is not the metrics.json of a run ({error}). Run the evaluation again.") from error
    for name in document["tasks"]:
        if not is_file_name(name):
            raise DataError(f"{path} is not the metrics.json of a run: {name[:100]!r} is no name of a task.")
    return dict(document)


def format_table(document: Mapping[str, Any]) -> str:
    """Lays out the numbers of `write_results` or `read_metrics` as plain text for a terminal of 100 columns.

    For each task: a line per metric with its value, its 95 % interval, the value of each baseline and the number of
    rows it covers; then the numbers of evaluated and excluded rows by category, and the metric's remarks. A dash is an
    undefined number.
    """
    return "\n\n".join(_format_task(document, task) for task in document["tasks"])


def _numbers(results: Sequence[TaskResult]) -> dict[str, dict[str, dict[str, float | None]]]:
    return {
        result.task: {
            name: {key: _finite(number) for key, number in numbers.items()} for name, numbers in summary(result).items()
        }
        for result in results
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


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


def task_table(document: Mapping[str, Any], task: str) -> list[list[str]]:
    """A task's numbers as a table of text, its head first: a line for each metric."""
    metrics = document["tasks"][task]
    baselines = {name: tasks[task] for name, tasks in document["baselines"].items() if task in tasks}
    table = [["metric", "value", "95 % interval", *baselines, "n"]]
    for metric, numbers in metrics.items():
        others = [decimal(rows.get(metric, {}).get("value")) for rows in baselines.values()]
        low, high = numbers["ci_low"], numbers["ci_high"]
        bounds = decimal(None) if low is None or high is None else f"[{decimal(low)}, {decimal(high)}]"
        table.append([metric, decimal(numbers["value"]), bounds, *others, str(numbers["n"])])
    return table


def task_notes(document: Mapping[str, Any], task: str) -> list[str]:
    """Numbers of a task's rows, and the remarks of its metric, a text each."""
    return [format_coverage(document, task), *document.get("notes", {}).get(task, ())]


def _format_task(document: Mapping[str, Any], task: str) -> str:
    table = task_table(document, task)
    _shorten_heads(table)
    step = "" if document["step"] is None else f", step {document['step']}"
    return "\n".join(
        [
            f"{task} ({document['stage']}{step})",
            to_text(table),
            *(
                line
                for text in task_notes(document, task)
                for line in textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
            ),
        ]
    )


def _shorten_heads(table: list[list[str]]) -> None:
    """Shortens the names of baselines if the table is wider than the terminal."""
    head, *body = table
    if 2 * len(head) + sum(max(map(len, column)) for column in zip(*table, strict=True)) > _WIDTH:
        for column in range(3, len(head) - 1):
            width = max([8, *(len(row[column]) for row in body)])
            if len(head[column]) > width:
                head[column] = head[column][: width - 2] + ".."


def format_coverage(document: Mapping[str, Any], task: str) -> str:
    """Numbers of a task's rows by category, as text: `evaluated 7 (comp 4, presence 3); excluded 0`."""
    parts = []
    for name in ("evaluated", "excluded"):
        counts = document[name].get(task, {})
        by_category = ", ".join(f"{category or 'no category'} {count}" for category, count in counts.items())
        parts.append(f"{name} {sum(counts.values())}" + (f" ({by_category})" if any(counts) else ""))
    if skipped := document.get("skipped", {}).get(task):
        parts.append(f"skipped {skipped} that cannot be read")
    return "; ".join(parts)
