import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from unirs import Task, plugins
from unirs.errors import DataError
from unirs.metrics.base import Prediction
from unirs.tasks.media import Image

NAMES = {
    "rsicd": ("dataset_rsicd.json", "RSICD_images", "RSICD_optimal"),
    "ucm_captions": ("dataset.json", "imgs", "RSICD_optimal"),
    "sydney_captions": ("dataset.json", "imgs", "RSICD_optimal"),
    "nwpu_captions": ("dataset_nwpu.json", "NWPU_images", "HaiyanHuang98"),
}
WORDS = ("many", "some", "several", "two", "few")
ANSWERS = Path(__file__).parents[3] / "shared" / "data" / "answers" / "earthdial_rs_image_caption_RSICD_Captions.jsonl"


def karpathy(split: str, number: int) -> dict[str, Any]:
    sentences = [
        {"tokens": [word, "planes", "are", "parked", "."], "raw": f"{word} planes are parked .", "sentid": index}
        for index, word in enumerate(WORDS)
    ]
    return {"filename": f"{split}{number}.png", "imgid": number, "split": split, "sentences": sentences}


def nwpu(split: str, number: int) -> dict[str, Any]:
    raw = {f"raw_{index}" if index else "raw": f" {word} Planes, parked." for index, word in enumerate(WORDS)}
    return {"filename": f"{split}{number}.png", "imgid": number, "split": split, **raw}


def write(root: Path, name: str) -> Path:
    """Writes a data set with two images in each split, in the format of the published one."""
    file, images, _ = NAMES[name]
    numbers = [(split, number) for split in ("train", "val", "test") for number in range(2)]
    if name == "nwpu_captions":
        document: dict[str, Any] = {"airport": [nwpu(*one) for one in numbers[:4]]}
        document["bridge"] = [nwpu(*one) for one in numbers[4:]]
        folders = ["airport"] * 4 + ["bridge"] * 2
    else:
        document, folders = {"images": [karpathy(*one) for one in numbers], "dataset": name}, [""] * 6
    for index, ((split, number), folder) in enumerate(zip(numbers, folders, strict=True)):
        path = root / images / folder / f"{split}{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (64, 64), (40 * index, 90, 120)).save(path)
    (root / file).write_text(json.dumps(document), encoding="utf-8")
    return root


def build(name: str, root: Path, **options: object) -> Task:
    task: Task = plugins.create("unirs.tasks", {"name": name, "root": root, **options})
    return task


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_a_turn_with_five_sentences(name: str, tmp_path: Path) -> None:
    task = build(name, write(tmp_path, name))
    file, images, hint = NAMES[name]
    assert task.required_paths == (tmp_path / file, tmp_path / images)
    assert hint in task.download_hint
    splits = {split: task.load_split(split) for split in task.splits}
    assert [len(split) for split in splits.values()] == [2, 2, 2]
    sample = splits["test"][1]
    folder = "bridge/" if name == "nwpu_captions" else ""
    assert sample.media == Image(tmp_path / images / f"{folder}test1.png")
    (turn,) = sample.turns
    middle = "planes parked" if name == "nwpu_captions" else "planes are parked"
    assert turn.references == turn.targets == tuple(f"{word} {middle}" for word in WORDS)
    assert task.prompt(turn.prompt_fields) == "[caption] Describe the image in one sentence."
    row = Prediction("a", name, ("a",), "", "", f"Many {middle}.", turn.references)
    evaluation = task.scorer.evaluate([row, row], slow=False)
    assert list(evaluation.normalized) == [f"many {middle}"] * 2
    assert {"bleu_4", "rouge_l", "cider"} <= set(evaluation.statistics)


@pytest.mark.parametrize("name", NAMES)
def test_check_and_training(
    name: str, tmp_path: Path, cli: Callable[..., int], write_config: Callable[..., Path]
) -> None:
    root = write(tmp_path / "data", name)
    assert cli("tasks", "check", name, "--root", root, "--sheet", tmp_path / "sheet.png") == 0
    config = write_config(tmp_path, [{"name": name, "root": str(root), "meteor": False}])
    assert cli("fit", "--config", config) == 0
    assert cli("test", "--config", config) == 0
    document = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    assert document["evaluated"] == {name: {"": 2}}
    assert document["tasks"][name]["cider"]["n"] == 2


def test_other_data_in_this_schema(tmp_path: Path) -> None:
    write(tmp_path, "rsicd")
    (tmp_path / "dataset_rsicd.json").rename(tmp_path / "mine.json")
    (tmp_path / "RSICD_images").rename(tmp_path / "x")
    split = build("rsicd", tmp_path, annotations="mine.json", images="x").load_split("val")
    assert [sample.media for sample in split] == [Image(tmp_path / "x" / f"val{number}.png") for number in range(2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "restval"}, r"row 4 \(test0\.png\): Unknown split 'restval'"),
        ({"filename": "test1.png"}, r"row 5 \(test1\.png\): the image test1\.png is listed twice"),
        ({"filename": 3}, r"row 4: Expected `str`, got `int` - at `\$\.filename`"),
        ({"sentences": []}, r"row 4 \(test0\.png\) has no sentences"),
        ({"sentences": [{"tokens": ["."]}]}, r"row 4 \(test0\.png\) has no sentences, or one without words"),
        ({"sentences": [{"raw": " "}]}, r"row 4 \(test0\.png\), sentence 0 is empty"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write(tmp_path, "rsicd") / "dataset_rsicd.json"
    document = json.loads(path.read_text())
    document["images"][4] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=message):
        build("rsicd", tmp_path).load_split("test")


def test_missing_split_and_other_files(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"images": [karpathy("train", 0)]}))
    with pytest.raises(DataError, match=r"dataset\.json has no rows of the split 'test'"):
        build("ucm_captions", tmp_path).load_split("test")
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(DataError, match=r"dataset\.json holds no JSON object"):
        build("ucm_captions", tmp_path).load_split("test")


def test_published_references_are_words(tmp_path: Path) -> None:
    if not ANSWERS.exists():
        pytest.skip("shared data are not present")
    rows = [json.loads(line) for line in ANSWERS.read_text().splitlines()[:200]]
    images = [
        karpathy("test", number)
        | {
            "sentences": [
                {"tokens": row[f"caption{index}"].split(), "raw": row[f"caption{index}"]} for index in range(5)
            ]
        }
        for number, row in enumerate(rows)
    ]
    (tmp_path / "dataset_rsicd.json").write_text(json.dumps({"images": images}))
    split = build("rsicd", tmp_path).load_split("test")
    texts = [text for sample in split for text in sample.turns[0].references]
    assert len(texts) == 1000
    assert split[0].turns[0].references[0] == "there are many bare land near the airport"
    assert not any("." in text.split() for text in texts)
