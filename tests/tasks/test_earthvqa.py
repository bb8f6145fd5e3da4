import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from unirs_tasks.earthvqa import CATEGORIES, build

from unirs.errors import DataError
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import point_estimate
from unirs.tasks.media import Image

ANSWERS = ("Yes", "No", 3, 0, "There are cement roads", "There are residential, and park areas")


def rows() -> list[dict[str, Any]]:
    return [
        {"Type": kind, "Question": f"Question {index}?", "Answer": answer}
        for index, (kind, answer) in enumerate(zip(CATEGORIES, ANSWERS, strict=True))
    ]


def write(root: Path) -> Path:
    for shade, name in enumerate(("Train", "Val", "Test")):
        document = {f"{shade}.png": rows(), f"{shade + 10}.png": rows()[:2]}
        folder = root / name / "images_png"
        folder.mkdir(parents=True)
        for image in document:
            PIL.Image.new("RGB", (64, 64), (50 * shade, 20 * len(image), 120)).save(folder / image)
        (root / f"{name}_QA.json").write_text(json.dumps(document))
    return root


def test_questions_of_an_image_are_one_sample(tmp_path: Path) -> None:
    task = build(write(tmp_path))
    split = task.load_split("val")
    assert [(sample.media, len(sample.turns)) for sample in split] == [
        (Image(tmp_path / "Val" / "images_png" / "1.png"), 6),
        (Image(tmp_path / "Val" / "images_png" / "11.png"), 2),
    ]
    turn = split[0].turns[2]
    assert (turn.id, turn.references, turn.category) == ("2", ("3",), "Basic Counting")
    assert task.prompt(turn.prompt_fields) == "[vqa] Question 2?"


def test_scores_by_type_and_errors_of_counts(tmp_path: Path) -> None:
    answers = ("yes", "Yes", "5", "0", "there are cement roads.", "no")
    predictions = [
        Prediction(str(index), "", (str(index),), kind, "", answer, (str(reference),))
        for index, (kind, answer, reference) in enumerate(zip(CATEGORIES, answers, ANSWERS, strict=True))
    ]
    evaluation = build(tmp_path).scorer.evaluate(predictions)
    values = {name: point_estimate(statistic) for name, statistic in evaluation.statistics.items()}
    assert list(values) == ["accuracy", "accuracy_macro", *(f"accuracy/{kind}" for kind in CATEGORIES), "mae", "rmse"]
    assert (values["accuracy"], values["accuracy/Basic Counting"]) == (0.5, 0)
    # Errors 2 and 0 of two questions.
    assert values["mae"] == 1
    assert values["rmse"] == pytest.approx(2**0.5)
    assert {statistic.row_sums.shape[0] for statistic in evaluation.statistics.values()} == {6}
    assert "rmse" not in build(tmp_path).scorer.evaluate(predictions[:2]).statistics


def test_check_and_training(tmp_path: Path, cli: Callable[..., int], write_config: Callable[..., Path]) -> None:
    root = write(tmp_path / "data")
    assert cli("tasks", "check", "earthvqa", "--root", root, "--sheet", tmp_path / "sheet.png") == 0
    config = write_config(tmp_path, [{"name": "earthvqa", "root": str(root)}])
    assert cli("fit", "--config", config) == 0
    assert cli("test", "--config", config) == 0
    document = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    assert document["tasks"]["earthvqa"]["accuracy"]["n"] == 8


def test_validation_set_instead_of_a_test_set_without_answers(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "Test_QA.json"
    path.write_text(json.dumps({"2.png": [{"type": "Basic Judging", "question": "Any?"}]}))
    with pytest.raises(DataError, match=r"Test_QA\.json, row 0 \(2\.png\) has no answer\. Set 'test_split: val'"):
        build(tmp_path).load_split("test")
    task = build(tmp_path, "val")
    assert task.splits == ("train", "test")
    assert path not in task.required_paths
    assert task.load_split("test")[0].media == Image(tmp_path / "Val" / "images_png" / "1.png")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"Type": "Basic Judgin"}, r"row 1 \(0\.png\): 'Basic Judgin' is no type of question\. Did you mean 'Basic"),
        ({"Question": None}, r"row 1 \(0\.png\): Expected `str`, got `null` - at `\$\.question`"),
        ({"Answer": [1]}, r"row 1 \(0\.png\): Expected `int \| str \| null`, got `array`"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    write(tmp_path)
    content = rows()
    content[1] |= row
    (tmp_path / "Train_QA.json").write_text(json.dumps({"0.png": content}))
    with pytest.raises(DataError, match=message):
        build(tmp_path).load_split("train")
    (tmp_path / "Train_QA.json").write_text('{"0.png": ["a"]}')
    with pytest.raises(DataError, match=r"row 0 \(0\.png\): Expected `object`, got `str`"):
        build(tmp_path).load_split("train")
