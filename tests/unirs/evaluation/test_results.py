import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from unirs.errors import DataError, UniRSError
from unirs.evaluation.results import TaskResult, format_table, read_metrics, summary, write_results
from unirs.metrics.base import Evaluation, Prediction, Statistic


def ratio(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        value: np.ndarray = sums[..., 0] / sums[..., 1]
    return value


def accuracy(hits: Sequence[float], counted: Sequence[float] | None = None) -> Statistic:
    ones = np.ones(len(hits)) if counted is None else np.asarray(counted, dtype=float)
    return Statistic(np.stack([np.asarray(hits, dtype=float) * ones, ones], axis=1), ratio, int(ones.sum()))


def result(
    hits: Sequence[float] = (1, 0, 1, 1),
    task: str = "rsvqa_lr",
    categories: Sequence[str] = ("comp", "presence"),
    **row: object,
) -> TaskResult:
    names = [categories[i % len(categories)] for i in range(len(hits))]
    fields: dict[str, Any] = {
        "prompt": "<image>\nA road?",
        "text": "Yes.",
        "references": ("yes", "yep"),
        "clue": "a road",
    } | row
    rows = [Prediction(id=str(i), task=task, media=(f"{i}.tif",), category=k, **fields) for i, k in enumerate(names)]
    statistics = {"accuracy": accuracy(hits)}
    statistics |= {
        f"accuracy/{category}": accuracy(hits, [name == category for name in names]) for category in categories
    }
    return TaskResult(task, rows, Evaluation(["yes"] * len(hits), list(hits), statistics), {"count": 3, "area": 2})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_summary_gives_value_interval_and_n_as_plain_numbers() -> None:
    numbers = summary(result([1, 0] * 50))
    assert list(numbers) == ["accuracy", "accuracy/comp", "accuracy/presence"]
    assert numbers["accuracy"]["value"] == 0.5
    assert 0.35 < numbers["accuracy"]["ci_low"] < 0.5 < numbers["accuracy"]["ci_high"] < 0.65
    assert numbers["accuracy/comp"] == {"value": 1.0, "ci_low": 1.0, "ci_high": 1.0, "n": 50}
    assert {type(number) for number in numbers["accuracy"].values()} == {float, int}
    assert summary(result([1, 0] * 50)) == numbers


def test_rows_about_the_same_media_are_resampled_together() -> None:
    alone = result([1, 0] * 50, categories=("presence",))
    rows = [Prediction(**{**vars_of(row), "media": (f"{i // 50}.tif",)}) for i, row in enumerate(alone.rows)]
    statistics = {"accuracy": accuracy([1] * 50 + [0] * 50)}
    together = TaskResult(alone.task, rows, Evaluation(["yes"] * 100, [1.0] * 100, statistics), {})
    assert summary(together)["accuracy"]["ci_low"] == 0.0
    assert summary(together)["accuracy"]["ci_high"] == 1.0


def vars_of(row: Prediction) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def test_the_folder_has_metrics_and_predictions_of_each_task(tmp_path: Path) -> None:
    mine, blind = result(), result([0, 0, 1, 1])
    document = write_results(tmp_path, "test", 120, [mine, result(task="era")], {"blind": [blind]})
    assert sorted(contents(tmp_path)) == [
        "test/metrics.json",
        "test/predictions/era.jsonl",
        "test/predictions/rsvqa_lr.blind.jsonl",
        "test/predictions/rsvqa_lr.jsonl",
        "test/table.txt",
    ]
    assert read_metrics(tmp_path / "test/metrics.json") == document
    assert document["stage"] == "test"
    assert document["step"] == 120
    assert document["tasks"]["rsvqa_lr"] == summary(mine)
    assert document["baselines"] == {"blind": {"rsvqa_lr": summary(blind)}}
    assert document["excluded"]["rsvqa_lr"] == {"area": 2, "count": 3}
    assert document["evaluated"]["rsvqa_lr"] == {"comp": 2, "presence": 2}
    rows = lines(tmp_path / "test/predictions/rsvqa_lr.jsonl")
    assert [row["score"] for row in rows] == [1.0, 0.0, 1.0, 1.0]
    assert rows[1] == {
        "id": "1",
        "task": "rsvqa_lr",
        "media": ["1.tif"],
        "category": "presence",
        "prompt": "<image>\nA road?",
        "clue": "a road",
        "text": "Yes.",
        "normalized": "yes",
        "references": ["yes", "yep"],
        "score": 0.0,
    }


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    first, second = result(), result()
    reordered = TaskResult(second.task, second.rows, second.evaluation, {"area": 2, "count": 3})
    write_results(tmp_path / "one", "test", 1, [first], {"a": [first], "b": [first]})
    write_results(tmp_path / "two", "test", 1, [reordered], {"b": [reordered], "a": [reordered]})
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_undefined_numbers_are_null(tmp_path: Path) -> None:
    evaluation = Evaluation(["", ""], [float("nan"), 1.0], {"accuracy/none": accuracy([1, 1], [0, 0])})
    undefined = TaskResult("era", result([1, 1]).rows, evaluation, {})
    document = write_results(tmp_path, "test", 0, [undefined], {})
    assert document["tasks"]["era"] == {"accuracy/none": {"value": None, "ci_low": None, "ci_high": None, "n": 0}}
    assert read_metrics(tmp_path / "test/metrics.json") == document
    assert [row["score"] for row in lines(tmp_path / "test/predictions/era.jsonl")] == [None, 1.0]
    assert "accuracy/none" in format_table(document)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters()))
@example("\ud800")
def test_any_text_is_written_as_one_row_per_line(tmp_path: Path, text: str) -> None:
    wild = result([1, 0], prompt=text, text=text, references=(text,), clue=text, categories=(text,))
    write_results(tmp_path, "test", 0, [wild], {})
    rows = lines(tmp_path / "test/predictions/rsvqa_lr.jsonl")
    assert [(row["prompt"], row["text"], row["references"], row["category"]) for row in rows] == [
        (text, text, [text], text)
    ] * 2
    assert read_metrics(tmp_path / "test/metrics.json")["evaluated"] == {"rsvqa_lr": {text: 2}}


def test_a_file_name_that_is_not_utf8_survives(tmp_path: Path) -> None:
    row = Prediction("1", "era", ("caf\udce9.mp4",), "fire", "", "", ("fire",))
    odd = TaskResult("era", [row], Evaluation([""], [0.0], {"top1": accuracy([0])}), {})
    write_results(tmp_path, "test", 0, [odd], {})
    assert lines(tmp_path / "test/predictions/era.jsonl")[0]["media"] == ["caf\udce9.mp4"]


def test_writing_again_replaces_the_stage_and_nothing_else(tmp_path: Path) -> None:
    write_results(tmp_path, "validate", 1, [result()], {})
    write_results(tmp_path, "test", 1, [result(), result(task="era")], {})
    write_results(tmp_path, "test", 2, [result([0, 0])], {})
    assert read_metrics(tmp_path / "test/metrics.json")["step"] == 2
    assert read_metrics(tmp_path / "validate/metrics.json")["step"] == 1
    assert [path.name for path in (tmp_path / "test/predictions").iterdir()] == ["rsvqa_lr.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test", "validate"]


def failing_at(call: int, error: type[BaseException]) -> Callable[..., None]:
    """`os.replace` that fails at one call, as with a full disk or Ctrl-C."""
    real, calls = os.replace, 0

    def replace(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        real(source, target)

    return replace


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("call", [1, 2])
def test_an_interrupted_swap_keeps_the_former_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, error: type[BaseException]
) -> None:
    write_results(tmp_path, "test", 1, [result()], {})
    former = contents(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing_at(call, error))
        with pytest.raises(UniRSError if error is OSError else error):
            write_results(tmp_path, "test", 2, [result([0, 0])], {})
    assert contents(tmp_path) == former


def test_a_failure_while_rows_are_written_keeps_the_former_results(tmp_path: Path) -> None:
    write_results(tmp_path, "test", 1, [result()], {})
    former = contents(tmp_path)
    with pytest.raises(TypeError):
        write_results(tmp_path, "test", 2, [result(), result(task="era", text=object())], {})
    assert contents(tmp_path) == former


@pytest.mark.parametrize("swapped", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_a_write_after_a_process_was_killed_in_the_swap(tmp_path: Path, swapped: bool, fails: bool) -> None:
    write_results(tmp_path, "test", 1, [result()], {})
    (tmp_path / "test").rename(tmp_path / ".test.former")
    if swapped:
        write_results(tmp_path / "other", "test", 2, [result()], {})
        (tmp_path / "other/test").rename(tmp_path / "test")
        (tmp_path / "other").rmdir()
    else:
        (tmp_path / ".test.partial").mkdir()
    if fails:
        with pytest.raises(TypeError):
            write_results(tmp_path, "test", 3, [result(text=object())], {})
    else:
        write_results(tmp_path, "test", 3, [result()], {})
    step = read_metrics(tmp_path / "test/metrics.json")["step"]
    assert step == (3 if not fails else 2 if swapped else 1)
    assert [path.name for path in tmp_path.iterdir()] == ["test"]


@pytest.mark.parametrize(
    ("tasks", "baselines"),
    [(["a", "a"], []), (["a.b", "a"], ["b"]), (["a/b"], []), ([""], []), (["a"], ["../b"])],
)
def test_names_that_make_no_distinct_files_are_errors(tmp_path: Path, tasks: list[str], baselines: list[str]) -> None:
    results = [result(task=task) for task in tasks]
    with pytest.raises(DataError, match=r"[Rr]ename|distinct"):
        write_results(tmp_path, "test", 1, results, dict.fromkeys(baselines, results))
    assert contents(tmp_path) == {}


GOOD = {"stage": "test", "step": 1, "tasks": {}, "baselines": {}, "excluded": {}, "evaluated": {}}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not JSON"),
        ("\xff", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "Expected `object`, got `array`"),
        (json.dumps(GOOD | {"tasks": {"era": {"top1": {"\udcff": 1}}}}), "lone surrogate"),
        (json.dumps({"stage": "test"}), "missing required field `step`"),
        (json.dumps(GOOD | {"tasks": []}), "at `$.tasks`"),
        (json.dumps(GOOD | {"tasks": {"era": 1}}), "at `$.tasks[...]`"),
        (json.dumps(GOOD | {"tasks": {"era": {"top1": {"value": 1, "ci_low": 0, "n": 2}}}}), "field `ci_high`"),
        (json.dumps(GOOD | {"tasks": {"era": {"top1": {"value": "1", "ci_low": 0, "ci_high": 1, "n": 2}}}}), ".value`"),
        (json.dumps(GOOD | {"baselines": {"blind": [1]}}), "at `$.baselines[...]`"),
        (json.dumps(GOOD | {"evaluated": {"era": {"fire": "many"}}}), "at `$.evaluated[...][...]`"),
    ],
)
def test_a_wrong_metrics_file_is_named_with_its_fault(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"metrics\.json") as caught:
        read_metrics(path)
    assert fault in str(caught.value)


def test_a_missing_metrics_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_metrics(tmp_path / "metrics.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_metrics(tmp_path)


def document(**parts: object) -> dict[str, Any]:
    metrics = {
        "accuracy": {"value": 0.9123, "ci_low": 0.9, "ci_high": 0.925, "n": 1200},
        "accuracy/comp": {"value": None, "ci_low": None, "ci_high": None, "n": 0},
    }
    blind = {"accuracy": {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n": 1200}}
    whole = {
        "stage": "test",
        "step": 40,
        "tasks": {"rsvqa_lr": metrics},
        "baselines": {"blind": {"rsvqa_lr": blind}, "elsewhere": {}},
        "excluded": {"rsvqa_lr": {"count": 300}},
        "evaluated": {"rsvqa_lr": {"comp": 400, "presence": 800}},
    }
    return whole | parts


def test_the_table_shows_values_intervals_baselines_and_counts() -> None:
    table = format_table(document())
    assert [line.split() for line in table.splitlines()] == [
        ["rsvqa_lr", "(test,", "step", "40)"],
        ["metric", "value", "95", "%", "interval", "blind", "n"],
        [table.splitlines()[2].strip()],
        ["accuracy", "0.9123", "[0.9000,", "0.9250]", "0.5000", "1200"],
        ["accuracy/comp", "-", "-", "-", "0"],
        ["evaluated", "1200", "(comp", "400,", "presence", "800);", "excluded", "300", "(count", "300)"],
    ]
    assert len({len(line) for line in table.splitlines()[1:5]}) == 1


def test_the_table_without_exclusions_and_categories() -> None:
    table = format_table(document(evaluated={"rsvqa_lr": {"": 5}}, excluded={"rsvqa_lr": {}}))
    assert table.endswith("evaluated 5; excluded 0")
    assert "evaluated 6 (no category 5, comp 1); excluded 0" in format_table(
        document(evaluated={"rsvqa_lr": {"": 5, "comp": 1}}, excluded={})
    )


def test_the_table_fits_a_terminal_with_many_categories_and_baselines() -> None:
    categories = [f"religious activity {i}" for i in range(25)]
    numbers = {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n": 1391}
    metrics = {"top1": numbers} | {f"top1/{category}": numbers for category in categories}
    names = ["most frequent answer", "blind language model", "random class"]
    parts = {"tasks": {"era": metrics}, "baselines": {name: {"era": metrics} for name in names}}
    table = format_table(document(**parts, evaluated={"era": dict.fromkeys(categories, 55)}, excluded={}))
    assert all(len(line) <= 100 for line in table.splitlines())
    assert all(f"top1/{category} " in table for category in categories)
    assert table.count("55") == 25
    assert table.count("0.5000") == 26 * 4
