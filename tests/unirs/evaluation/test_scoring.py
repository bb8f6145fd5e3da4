import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from unirs import plugins
from unirs.cli.main import main
from unirs.errors import DataError, UniRSError
from unirs.evaluation.results import TaskResult, read_metrics, write_results
from unirs.evaluation.scoring import Scored, score
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import point_estimate
from unirs.metrics.caption import CaptionMetrics
from unirs.metrics.classification import Top1

PLUGIN = """\
from pathlib import Path

from unirs import Image, PromptTemplate, Sample, TaskSplit, Task, Turn
from unirs.metrics.vqa import VqaAccuracy


def build(root: Path, categories: str = "all") -> Task:
    def load_split(split):
        def turns(image):
            for number in range(2):
                category = ("presence", "comp")[number]
                if categories in ("all", category):
                    yield Turn(f"{split}{2 * image + number}", ("yes",), {"question": "?"}, category=category)
        samples = [Sample(str(n), Image(root / f"{n}.tif"), tuple(turns(n))) for n in range(3)]
        return TaskSplit(samples, {} if categories == "all" else {"other": 3})

    prompt = PromptTemplate("vqa", "{question}")
    fields = {"required_paths": (), "download_hint": ""}
    return Task(modality="image", load_split=load_split, prompt=prompt, metric=VqaAccuracy(), **fields)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / f"questions_{tmp_path.name}.py"
    path.write_text(PLUGIN)
    return path


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def values(scored: Scored) -> dict[str, float]:
    return {name: point_estimate(statistic) for name, statistic in scored.result.evaluation.statistics.items()}


# A run's own rows.


def test_rows_of_a_run_have_the_scores_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no Java: METEOR has tests of its own
    texts = ["a road is built", "no change", "", "trees \U0001f332 appear"]
    rows = [
        Prediction(
            str(n),
            "levir_cc",
            (f"{n}.png", "b.png"),
            ("changed", "unchanged")[n % 2],
            "p",
            text,
            ("a road is built", "x"),
        )
        for n, text in enumerate(texts)
    ]
    result = TaskResult("levir_cc", rows, CaptionMetrics().evaluate(rows, slow=False), {})
    write_results(tmp_path, "test", 5, [result], {})
    scored = score(tmp_path / "test/predictions/levir_cc.jsonl", protocol="caption")
    assert scored.result.task == "levir_cc"
    assert list(scored.result.rows) == rows
    assert list(scored.result.evaluation.scores) == list(result.evaluation.scores)
    expected = {name: point_estimate(statistic) for name, statistic in result.evaluation.statistics.items()}
    assert values(scored) == expected


def test_rows_of_an_installed_task_need_no_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Prediction(str(n), "era", (f"{n}.mp4",), "fire", "", text, ("fire",))
        for n, text in enumerate(["fire", "flood"])
    ]
    result = TaskResult("era", rows, Top1(("fire", "flood")).evaluate(rows), {})
    write_results(tmp_path, "test", 5, [result], {})
    path = tmp_path / "test/predictions/era.jsonl"
    assert main(["score", str(path), "--out", str(tmp_path / "again")]) == 0
    out = capsys.readouterr().out
    assert "era (score)\n" in out
    assert "top1  " in out
    assert "[0.0000, 1.0000]" in out
    assert "Metric top1" in out
    again = read_metrics(tmp_path / "again/score/metrics.json")
    assert (again["stage"], again["step"]) == ("score", None)
    assert again["tasks"] == read_metrics(tmp_path / "test/metrics.json")["tasks"]
    assert (tmp_path / "again/score/predictions/era.jsonl").read_bytes() == path.read_bytes()


# Files of other scripts.


def geochat_rows(count: int = 6) -> list[dict[str, Any]]:
    return [
        {"question_id": f"test{n}", "image_id": f"{n // 2}.tif", "answer": "Yes." if n % 3 else "no"}
        for n in range(count)
    ]


def test_geochat_answers_are_joined_with_questions_of_a_task(tmp_path: Path, plugin: Path) -> None:
    path = write(tmp_path / "answers.jsonl", geochat_rows()[::-1])
    scored = score(path, task={"name": str(plugin), "root": tmp_path})
    assert [row.id for row in scored.result.rows] == [f"test{n}" for n in range(6)]
    assert values(scored) == pytest.approx(
        {"accuracy": 4 / 6, "accuracy_macro": 4 / 6, "accuracy/presence": 2 / 3, "accuracy/comp": 2 / 3}
    )
    assert scored.result.rows[2].media == (str(tmp_path / "1.tif"),)
    assert scored.result.task == plugin.stem
    assert f"split 'test' of task '{plugin.stem}'" in scored.notes[0]


def test_split_and_options_of_the_task(tmp_path: Path, plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "answers.jsonl", [{"question_id": f"val{2 * n}", "text": "yes"} for n in range(3)])
    command = ["score", path, "--task", plugin, "--root", tmp_path, "--split", "val", "--option", "categories=presence"]
    assert main([str(word) for word in command]) == 0
    assert "evaluated 3 (presence 3); excluded 3 (other 3)" in capsys.readouterr().out


def test_llava_answers_are_joined_with_a_file_of_references(tmp_path: Path) -> None:
    answers = [
        {"question_id": n, "prompt": "A road?", "text": text, "model_id": "m"} for n, text in enumerate(["yes", "Two"])
    ]
    references = [
        {"question_id": 1, "answer": 2, "category": "count"},
        {"question_id": 0, "references": ["yes", "yep"], "category": "presence", "image": "0.tif"},
    ]
    references[0]["answer"] = "two"
    scored = score(
        write(tmp_path / "llava.jsonl", answers), protocol="exact", references=write(tmp_path / "r.jsonl", references)
    )
    assert [(row.id, row.text, row.references, row.category) for row in scored.result.rows] == [
        ("1", "Two", ("two",), "count"),
        ("0", "yes", ("yes", "yep"), "presence"),
    ]
    assert scored.result.rows[0].prompt == "A road?"
    assert scored.result.task == "llava"
    assert values(scored)["accuracy"] == 1.0
    assert any("1 rows name no media" in note for note in scored.notes)


def test_classes_come_from_ground_truth_in_the_answers(tmp_path: Path) -> None:
    rows = [
        {"question_id": f"{n}.png", "image_id": f"{n}.png", "answer": text, "ground_truth": truth}
        for n, (text, truth) in enumerate([("Forest.", "forest"), ("field", "forest"), ("river, lake", "lake")])
    ]
    scored = score(write(tmp_path / "scenes.jsonl", rows), protocol="top1")
    assert values(scored) == pytest.approx({"top1": 2 / 3, "top1_macro": 0.75, "top1/forest": 0.5, "top1/lake": 1.0})
    assert [row.media for row in scored.result.rows] == [("0.png",), ("1.png",), ("2.png",)]


# Missing and unknown answers.


def test_missing_answers_are_an_error_or_count_as_wrong(tmp_path: Path, plugin: Path) -> None:
    path = write(tmp_path / "answers.jsonl", geochat_rows()[1:3])
    task = {"name": str(plugin), "root": tmp_path}
    with pytest.raises(
        DataError, match=r"answers\.jsonl has no answer to 4 of 6 questions .* test0, test3, test4, test5\."
    ):
        score(path, task=task)
    scored = score(path, task=task, allow_missing=True)
    assert len(scored.result.rows) == 6
    assert values(scored)["accuracy"] == pytest.approx(2 / 6)
    assert any("4 of 6 answers are missing and count as wrong: test0" in note for note in scored.notes)


def test_null_answers_are_missing(tmp_path: Path) -> None:
    rows = [{"id": str(number), "text": text, "references": ["yes"]} for number, text in enumerate(["yes", None, ""])]
    path = write(tmp_path / "answers.jsonl", rows)
    with pytest.raises(DataError, match=r"line 2 has no answer.*--allow-missing"):
        score(path, protocol="exact")
    scored = score(path, protocol="exact", allow_missing=True)
    assert values(scored)["accuracy"] == pytest.approx(1 / 3)
    assert any("1 of 3 answers are missing and count as wrong: 1." in note for note in scored.notes)


def test_unknown_answers_are_an_error_or_excluded(tmp_path: Path, plugin: Path) -> None:
    path = write(tmp_path / "answers.jsonl", [*geochat_rows(), {"question_id": "tset7", "answer": "no"}])
    task = {"name": str(plugin), "root": tmp_path}
    with pytest.raises(DataError, match=r"answers\.jsonl, line 7: no question has the id 'tset7' .*1 of 7 .*'test0'"):
        score(path, task=task)
    scored = score(path, task=task, allow_unknown=True)
    assert len(scored.result.rows) == 6
    assert any("1 of 7 answers are to unknown questions and excluded" in note for note in scored.notes)


def test_only_unknown_answers_are_always_an_error(tmp_path: Path, plugin: Path) -> None:
    path = write(tmp_path / "answers.jsonl", [{"question_id": "x", "answer": "no"}])
    with pytest.raises(DataError, match="none of its 1 answers"):
        score(path, task={"name": str(plugin), "root": tmp_path}, allow_unknown=True, allow_missing=True)


GOOD = {"id": "1", "prediction": "yes", "references": ["yes"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.jsonl has no rows"),
        ("\n\n", "a.jsonl has no rows"),
        (json.dumps([GOOD]), "a.jsonl, line 1 is not a JSON object"),
        (json.dumps(GOOD) + "\n\n{'id': 2}", "a.jsonl, line 3 is not JSON"),
        (
            json.dumps({"answer": "yes"}),
            "a.jsonl, line 1 has the fields of no format (answer). Formats need: unirs: id;",
        ),
        (json.dumps(GOOD) + "\n" + json.dumps(GOOD | {"id": 1}), "line 2: the id '1' is also that of {}, line 1"),
        (json.dumps({"id": 1, "references": "yes"}), "a.jsonl, line 1 has no answer"),
        (json.dumps({"id": 1, "answer": "yes"}), "a.jsonl, line 1 has nothing to score against"),
        (json.dumps({"id": 1, "answer": "yes", "references": []}), "a.jsonl, line 1 has nothing to score against"),
        (json.dumps(GOOD | {"prediction": ["yes"]}), "line 1: 'prediction' must be a text, it is ['yes']"),
        (json.dumps(GOOD | {"id": True}), "line 1: 'id' must be a text, it is True"),
        (json.dumps(GOOD | {"references": [{}]}), "line 1: 'references' must be a text"),
        (json.dumps(GOOD | {"task": "a"}) + "\n" + json.dumps(GOOD | {"id": 2, "task": "b"}), "several tasks: a, b"),
    ],
)
def test_error_names_the_row(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        score(path, protocol="exact")
    assert message.format(path) in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl does not exist"):
        score(tmp_path / "nowhere.jsonl", protocol="exact")


def test_undetermined_metric_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD])
    with pytest.raises(UniRSError, match=r"no task\. Add --as"):
        score(path)
    assert "mine" not in plugins.list_plugins("unirs.tasks")
    with pytest.raises(UniRSError, match="'mine', which is no installed task"):
        score(write(path, [GOOD | {"task": "mine"}]))


def test_task_excludes_metric_and_references(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD])
    with pytest.raises(UniRSError, match="brings its metric"):
        score(path, task={"name": "era", "root": tmp_path}, references=path)
    with pytest.raises(SystemExit):
        main(["score", str(path), "--task", "era", "--as", "exact"])
    capsys.readouterr()
    for arguments, message in (
        (["--root", "x"], "add --task"),
        (["--task", "era", "--option", "frames"], "KEY=VALUE"),
    ):
        assert main(["score", str(path), *arguments]) == 1
        assert message in capsys.readouterr().err
