import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from unirs_tasks.jsonl import build

from unirs.errors import DataError, PluginError, UniRSError
from unirs.tasks.media import Image, Pair, Video
from unirs.tasks.sample import Turn
from unirs.tasks.series import Series

Row = dict[str, Any]


def write(root: Path, *rows: Row | str, split: str = "train") -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    (root / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


ROW = {"image": "a.png", "question": "Is there a {road}?", "answer": "yes"}


def test_one_question_per_line(tmp_path: Path) -> None:
    write(tmp_path, ROW, "", ROW | {"id": "b", "category": "presence"}, ROW | {"id": 7})
    task = build(tmp_path)
    split = task.load_split("train")
    assert [sample.id for sample in split] == ["1", "b", "7"]
    assert split[1].media == Image(tmp_path / "a.png")
    assert split[1].turns == (Turn("b", ("yes",), {"question": "Is there a {road}?"}, ("yes",), "presence"),)
    assert task.prompt(split[0].turns[0].prompt_fields) == "[vqa] Is there a {road}?"
    assert split[:2] == list(split)[:2]
    assert split[-1].id == "7"


def test_pairs_videos_and_series(tmp_path: Path) -> None:
    write(tmp_path, ROW | {"images": ["a.png", "sub/b.png"]})
    (sample,) = build(tmp_path, modality="pair").load_split("train")
    assert sample.media == Pair(tmp_path / "a.png", tmp_path / "sub" / "b.png")
    write(tmp_path, {"video": "a.mp4", "answer": "fire"})
    (sample,) = build(tmp_path, modality="video", instruction="What?", num_frames=3).load_split("train")
    assert sample.media == Video(tmp_path / "a.mp4", 3)
    write(tmp_path, ROW | {"images": ["a.png", "b.png", "c.png"], "dates": ["1", "2", "3"]})
    (sample,) = build(tmp_path, modality="series").load_split("train")
    assert sample.media == Series([tmp_path / f"{name}.png" for name in "abc"], ["1", "2", "3"])
    write(tmp_path, ROW | {"images": ["a.png"]})
    with pytest.raises(DataError, match=r"train\.jsonl, line 1: A series has two or more images"):
        build(tmp_path, modality="series").load_split("train")


def test_references_are_scored_and_the_answer_is_for_training(tmp_path: Path) -> None:
    write(tmp_path, ROW | {"references": ["yes", "a road"]}, {**ROW, "references": ["no"], "answer": "It is not."})
    first, second = (sample.turns[0] for sample in build(tmp_path).load_split("train"))
    assert (first.references, first.targets) == (("yes", "a road"), ("yes",))
    assert (second.references, second.targets) == (("no",), ("It is not.",))
    write(tmp_path, {"image": "a.png", "references": ["one", "two"]})
    (sample,) = build(tmp_path, instruction="Describe.", metric="caption").load_split("train")
    assert sample.turns[0].targets == ("one", "two")


def test_instruction_may_name_any_text(tmp_path: Path) -> None:
    write(tmp_path, ROW | {"place": "Paris", "year": 2020})
    task = build(tmp_path, instruction="In {place}: {question}", tag="")
    assert task.prompt(task.load_split("train")[0].turns[0].prompt_fields) == "In Paris: Is there a {road}?"
    with pytest.raises(DataError, match=r"train\.jsonl, line 1 has no text 'year', which the instruction names"):
        build(tmp_path, instruction="{year}").load_split("train")


def test_classes_are_the_categories(tmp_path: Path) -> None:
    write(tmp_path, ROW | {"answer": "pond"}, ROW | {"answer": "It is a forest.", "category": "forest"})
    task = build(tmp_path, metric="top1", choices=["pond", "forest"])
    assert [sample.turns[0].category for sample in task.load_split("train")] == ["pond", "forest"]
    assert task.choices == ("pond", "forest")
    write(tmp_path, ROW | {"answer": "ponds"})
    with pytest.raises(DataError, match=r"line 1: 'ponds' is none of the 'choices'\. Did you mean 'pond'"):
        task.load_split("train")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[]", "line 2 is not a JSON object"),
        ({"question": "?", "answer": "a"}, "line 2: Object missing required field `image`"),
        (ROW | {"image": ["a.png"]}, r"line 2: Expected `str`, got `array` - at `\$\.image`"),
        ({"image": "a.png", "question": "?"}, "line 2 lacks 'answer' and 'references'"),
        (ROW | {"answer": 3}, r"line 2: Expected `str`, got `int` - at `\$\.answer`"),
        (ROW | {"references": []}, r"line 2: Expected `array` of length >= 1 - at `\$\.references`"),
        (ROW | {"references": ["a", 3]}, r"line 2: Expected `str`, got `int` - at `\$\.references\[1\]`"),
        (ROW | {"category": 3}, r"line 2: Expected `str`, got `int` - at `\$\.category`"),
        (ROW | {"id": None}, r"line 2: Expected `int | str`, got `null` - at `\$\.id`"),
        (ROW | {"id": True}, r"line 2: Expected `int | str`, got `bool` - at `\$\.id`"),
        (ROW | {"id": "1"}, "line 2: the id '1' is taken"),
        ({"image": "a.png", "answer": "a"}, "line 2 has no text 'question', which the instruction names"),
    ],
)
def test_a_bad_row_is_an_error_that_names_file_and_line(tmp_path: Path, row: Row | str, message: str) -> None:
    write(tmp_path, ROW, row)
    with pytest.raises(DataError, match=rf"train\.jsonl, {message}"):
        build(tmp_path).load_split("train")


@pytest.mark.parametrize("images", [["a.png"], ["a", "b", "c"], ["a", 3], "a.png"])
def test_a_pair_has_two_paths(tmp_path: Path, images: object) -> None:
    write(tmp_path, ROW | {"images": images})
    with pytest.raises(DataError, match=r"line 1: Expected .* - at `\$\.images"):
        build(tmp_path, modality="pair").load_split("train")


def test_missing_or_empty_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test\.jsonl does not exist"):
        build(tmp_path).load_split("test")
    write(tmp_path, "", split="test")
    with pytest.raises(DataError, match=r"test\.jsonl has no lines"):
        build(tmp_path).load_split("test")
    assert build(tmp_path).required_paths == tuple(tmp_path / f"{split}.jsonl" for split in ("train", "val", "test"))


def test_splits_option(tmp_path: Path) -> None:
    task = build(write(tmp_path, ROW), splits=["train"])
    assert (task.splits, task.required_paths) == (("train",), (tmp_path / "train.jsonl",))
    with pytest.raises(DataError, match=r"Unknown split 'test'\. Known: train"):
        task.load_split("test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "images"}, r"Unknown modality 'images'\. Did you mean 'image'"),
        ({"metric": "capton"}, r"Unknown metric 'capton'\. Did you mean 'caption'"),
        ({"metric": "top1"}, "'top1' needs 'choices'"),
        ({"splits": ["trian"]}, r"Unknown split 'trian'\. Did you mean 'train'"),
        ({"choices": [True, False]}, "'choices' must be a list of texts.*quotes around yes and no"),
        ({"choices": "yes"}, "'choices' must be a list of texts"),
        ({"choices": ["a", "a"]}, "The choice 'a' is given twice"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UniRSError, match=message):
        build(tmp_path, **options)
    assert issubclass(PluginError, UniRSError)


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    split = build(write(tmp_path, ROW, ROW)).load_split("train")
    write(tmp_path, "{}")
    with pytest.raises(DataError, match=r"train\.jsonl was changed while it was in use"):
        split[1]


def test_split_is_picklable(tmp_path: Path) -> None:
    split = build(write(tmp_path, ROW, ROW | {"question": "Où?"}, ROW)).load_split("train")
    assert list(pickle.loads(pickle.dumps(split))) == list(split)  # noqa: S301 - our own


def test_text_metrics_of_torchmetrics_by_name_or_path(tmp_path: Path) -> None:
    for metric in ("chrf", "torchmetrics.text:CHRFScore"):
        assert build(tmp_path, metric=metric).scorer.name == "chrf_score"
