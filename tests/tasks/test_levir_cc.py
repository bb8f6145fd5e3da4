import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from unirs_tasks.levir_cc import build

from unirs.errors import DataError
from unirs.tasks.media import Pair

Row = dict[str, Any]


def sentence(text: str) -> Row:
    return {"tokens": text.split(), "raw": f" {text} .", "imgid": 0, "sentid": 0}


def row(split: str, number: int, changeflag: int, **values: object) -> Row:
    texts = [f"{word} house is built" for word in ("a", "one", "some", "another", "the")]
    return {
        "filepath": split,
        "filename": f"{split}_{number:06}.png",
        "imgid": number,
        "split": split,
        "changeflag": changeflag,
        "sentids": [0, 1, 2, 3, 4],
        "sentences": [sentence(text) for text in texts],
        **values,
    }


def write(root: Path, rows: list[Row]) -> Path:
    (root / "LevirCCcaptions.json").write_text(json.dumps({"images": rows, "dataset": "LEVIR-CC"}))
    return root


def test_one_turn_per_pair_with_all_sentences(tmp_path: Path) -> None:
    write(tmp_path, [row("train", 2, 1), row("val", 1, 0), row("train", 1, 0), row("test", 1, 1)])
    split = build(tmp_path).load_split("train")
    assert [sample.id for sample in split] == ["train/train_000002.png", "train/train_000001.png"]
    assert [sample.turns[0].category for sample in split] == ["changed", "unchanged"]
    (turn,) = split[0].turns
    assert turn.references == turn.train_answers == turn.targets
    assert turn.references[:2] == ("a house is built", "one house is built")
    assert len(turn.references) == 5
    assert [len(build(tmp_path).load_split(name)) for name in ("train", "val", "test")] == [2, 1, 1]


def test_images_are_in_the_folder_of_filepath(tmp_path: Path) -> None:
    write(tmp_path, [row("train", 1, 1) | {"split": "test"}])
    (sample,) = build(tmp_path).load_split("test")
    folder = tmp_path / "images" / "train"
    assert sample.media == Pair(folder / "A" / "train_000001.png", folder / "B" / "train_000001.png")
    levels = {"A": 10, "B": 200}
    for name, level in levels.items():
        (folder / name).mkdir(parents=True)
        Pillow.fromarray(np.full((256, 256, 3), level, dtype=np.uint8)).save(folder / name / "train_000001.png")
    assert sample.media.load_frames((256, 256)).float().mean((1, 2, 3)).tolist() == [10, 200]


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"tokens": ["a", "new", "road"], "raw": "ignored"}, "a new road"),
        ({"raw": " A road, and two Houses, appear . "}, "a road and two houses appear"),
        ({"tokens": [], "raw": "The same."}, "the same"),
    ],
)
def test_sentence_is_its_tokens_or_else_its_raw_text(tmp_path: Path, entry: Row, text: str) -> None:
    write(tmp_path, [row("train", 1, 1, sentences=[entry])])
    assert build(tmp_path).load_split("train")[0].turns[0].references == (text,)


def without(key: str) -> Callable[[Row], None]:
    return lambda entry: entry.__delitem__(key)


def change(**values: object) -> Callable[[Row], None]:
    return lambda entry: entry.update(values)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(sentences=[]), r"row 1: Expected `array` of length >= 1 - at `\$\.sentences`"),
        (change(sentences=None), r"row 1: Expected `array`, got `null` - at `\$\.sentences`"),
        (change(sentences=["a road"]), r"row 1: Expected `object`, got `str` - at `\$\.sentences\[0\]`"),
        (change(sentences=[sentence("a road"), {}]), r"\(train_000002.png\), sentence 1 is empty"),
        (
            change(sentences=[{"tokens": [1], "raw": None}]),
            r"row 1: Expected `str`, got `int` - at `\$\.sentences\[0\]\.tokens\[0\]`",
        ),
        (change(sentences=[{"raw": " . "}]), r"\(train_000002.png\), sentence 0 is empty"),
        (change(changeflag=2), r"row 1: Invalid enum value 2 - at `\$\.changeflag`"),
        (change(changeflag="1"), r"row 1: Expected `int`, got `str` - at `\$\.changeflag`"),
        (change(changeflag=None), r"row 1: Expected `int`, got `null` - at `\$\.changeflag`"),
        (change(filename=""), r"row 1: Expected `str` of length >= 1 - at `\$\.filename`"),
        (change(filepath=3), r"row 1: Expected `str`, got `int` - at `\$\.filepath`"),
        (without("filename"), r"LevirCCcaptions\.json, row 1: Object missing required field `filename`"),
        (without("filepath"), "row 1: Object missing required field `filepath`"),
        (without("split"), "row 1: Object missing required field `split`"),
        (without("changeflag"), "row 1: Object missing required field `changeflag`"),
        (without("sentences"), "row 1: Object missing required field `sentences`"),
        (change(split="trian"), r"row 1: Unknown split 'trian'\. Did you mean 'train'\?"),
        (change(filename="train_000001.png"), "the pair train/train_000001.png is listed twice"),
    ],
)
def test_a_bad_row_is_an_error_that_names_file_and_row(
    tmp_path: Path, damage: Callable[[Row], None], message: str
) -> None:
    bad = row("train", 2, 1)
    damage(bad)
    write(tmp_path, [row("train", 1, 0), bad])
    with pytest.raises(DataError, match=message):
        build(tmp_path).load_split("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "has no list 'images'"),
        ('{"images": {}}', "has no list 'images'"),
        ('{"images": [4]}', "row 0: Expected `object`, got `int`"),
        ('{"images": []}', "has no pair with the split 'train'"),
        ('{"images": [', "is cut short"),
    ],
)
def test_a_bad_file_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "LevirCCcaptions.json").write_text(text)
    with pytest.raises(DataError, match=rf"LevirCCcaptions\.json.* {message}"):
        build(tmp_path).load_split("train")


def test_unknown_split_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Unknown split 'tset'\. Did you mean 'test'"):
        build(tmp_path).load_split("tset")  # type: ignore[arg-type]


def test_required_paths_and_download_hint(tmp_path: Path) -> None:
    task = build(tmp_path)
    assert task.modality == "pair"
    assert task.required_paths == (tmp_path / "LevirCCcaptions.json", tmp_path / "images")
    assert "github.com/Chen-Yang-Liu/LEVIR-CC-Dataset" in task.download_hint
    assert task.prompt.task_tag == "change"
    assert task.prompt.instruction.startswith("Please briefly describe the main changes between the above two")
