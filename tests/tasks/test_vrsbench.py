import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from unirs_tasks.vrsbench import build

from unirs import UniRS
from unirs.errors import DataError, PluginError
from unirs.inference.completion import Completion
from unirs.metrics.base import Prediction
from unirs.tasks.media import Image
from unirs.tasks.task import Task

HYRE = Path(__file__).parents[3] / "shared" / "data" / "answers" / "rs_hyre_r1_train.jsonl"


def train_row(number: int, request: str, answer: str) -> dict[str, Any]:
    conversations = [{"from": "human", "value": f"<image>\n{request}"}, {"from": "gpt", "value": answer}]
    return {"id": str(number), "image": f"P{number:04}_0001.png", "conversations": conversations}


def eval_row(number: int, question: str, answer: str, **fields: object) -> dict[str, Any]:
    image = f"P{number // 2:04}_0002.png"
    return {"image_id": image, "question": question, "ground_truth": answer, "question_id": number, **fields}


def write(root: Path, height: int = 64) -> Path:
    """Writes six training and two evaluation images of 64 x `height` pixels."""
    rows = []
    for number in range(6):
        rows += [
            train_row(number, "[caption] Could you describe the contents of this image for me?", f"Image {number}."),
            train_row(number, "[vqa] How many ships are visible?", str(number)),
            train_row(
                number,
                f"[refer] give me the location of <p>The ship {number}.</p>",
                "{<10><40><" + f"{20 + number}><60>}}",
            ),
        ]
    (root / "VRSBench_train.json").write_text(json.dumps(rows))
    common = {"dataset": "VRSBench", "obj_ids": [0], "size_group": "small", "obj_cls": "ship"}
    boxes = ["{<25><40><33><60>}", "{<0><0><50><50>}", "{<92><0><96><0>}", "{<10><20><30><100>}"]
    files = {
        "Cap": [eval_row(2 * n, "Describe the image in detail", f"An image {n}.", type="caption") for n in range(2)],
        "vqa": [
            eval_row(n, f"Is there a ship {n}?", "Yes", type=("object existence", "Image")[n % 2]) for n in range(4)
        ],
        "referring": [
            eval_row(n, f"The ship {n}.", box, type="ref", unique=n % 2 == 0, **common) for n, box in enumerate(boxes)
        ],
    }
    for name, content in files.items():
        (root / f"VRSBench_EVAL_{name}.json").write_text(json.dumps(content))
    images = [
        *(f"Images_train/P{n:04}_0001.png" for n in range(6)),
        *(f"Images_val/P{n:04}_0002.png" for n in range(2)),
    ]
    for shade, image in enumerate(images):
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (64, height), (30 * shade, 90, 120)).save(root / image)
    return root


def texts(task: Task, split: str) -> list[tuple[str, ...]]:
    samples = task.load_split(split)  # type: ignore[arg-type]
    return [
        (sample.id, turn.prompt_fields["question"], *turn.references, turn.category)
        for sample in samples
        for turn in sample.turns
    ]


def test_referring(tmp_path: Path) -> None:
    task = build(write(tmp_path), val_share=0.2)
    assert texts(task, "test") == [
        ("P0000_0002.png", "The ship 0", "{<25><40><33><60>}", "unique"),
        ("P0000_0002.png", "The ship 1", "{<0><0><50><50>}", "not_unique"),
        ("P0001_0002.png", "The ship 2", "{<92><0><96><0>}", "unique"),
        ("P0001_0002.png", "The ship 3", "{<10><20><30><100>}", "not_unique"),
    ]
    train, val = texts(task, "train"), texts(task, "val")
    assert (len(train), len(val)) == (5, 1)
    assert sorted(train + val)[2] == ("P0002_0001.png", "The ship 2", "{<10><40><22><60>}", "")
    (sample, _) = task.load_split("test")
    assert sample.media == Image(tmp_path / "Images_val" / "P0000_0002.png")
    assert task.prompt(sample.turns[0].prompt_fields) == (
        "[refer] Which box contains The ship 0? "
        "Answer with {<x1><y1><x2><y2>} in percent of the image's width and height."
    )


def test_questions_and_captions(tmp_path: Path) -> None:
    questions = build(write(tmp_path), "vqa")
    assert texts(questions, "test")[1] == ("P0000_0002.png", "Is there a ship 1?", "Yes", "image")
    assert ("P0003_0001.png", "How many ships are visible?", "3", "") in texts(questions, "train")
    row = Prediction("a", "", ("a",), "image", "", "yes, there is", ("Yes",))
    assert "accuracy/scene type" in questions.scorer.evaluate([row]).statistics
    captions = build(tmp_path, "caption")
    (_, sample) = captions.load_split("test")
    assert (sample.turns[0].references, sample.turns[0].category) == (("An image 1.",), "")
    assert captions.prompt(sample.turns[0].prompt_fields) == "[caption] Describe the image in detail."
    with pytest.raises(PluginError, match=r"Unknown subtask 'refering'\. Did you mean 'referring'"):
        build(tmp_path, "refering")  # type: ignore[arg-type]


@pytest.mark.parametrize("subtask", ["caption", "vqa", "referring"])
def test_check(subtask: str, tmp_path: Path, cli: Callable[..., int]) -> None:
    sheet = tmp_path / "sheet.png"
    assert (
        cli("tasks", "check", "vrsbench", "--root", write(tmp_path), "--option", f"subtask={subtask}", "--sheet", sheet)
        == 0
    )
    assert sheet.exists()


def test_training_on_padded_images(
    tmp_path: Path, cli: Callable[..., int], write_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", height=32)
    task = {"name": "vrsbench", "root": str(tmp_path / "data"), "val_share": 0.2}
    config = write_config(tmp_path, [task])
    text = config.read_text().replace("    image_size: 64\n", "    image_size: 64\n    resize_mode: pad\n")
    assert "resize_mode" in text
    config.write_text(text)
    assert cli("fit", "--config", config) == 0
    assert cli("test", "--config", config) == 0
    document = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    assert document["tasks"]["vrsbench"]["acc@0.5/unique"]["n"] == 2
    assert "boxes are in percent of the image's width and height." in document["notes"]["vrsbench"]
    assert (
        "boxes='percent'" in json.loads((tmp_path / "run" / "manifest.json").read_text())["tasks"]["vrsbench"]["prompt"]
    )
    assert cli("fit", "--config", config, "--data.tasks", json.dumps([task | {"augment": True}])) != 0
    # The saved model knows the scale. Images are twice as wide as high.
    answered = Completion("In the frame it is {<20><35><40><55>}", ())
    monkeypatch.setattr("unirs.inference.api.complete", lambda *_, **__: [answered])
    model = UniRS.from_pretrained(tmp_path / "run", device="cpu")
    image = tmp_path / "data" / "Images_val" / "P0000_0002.png"
    assert model.answer(image, "a ship") == "In the frame it is {<20><20><40><60>}"


@pytest.mark.parametrize(
    ("file", "row", "change", "message"),
    [
        ("train", 2, {"conversations": []}, r"train\.json, row 2: Expected `array` of length >= 2"),
        ("train", 2, {"image": None}, r"train\.json, row 2: Expected `str`, got `null` - at `\$\.image`"),
        (
            "EVAL_referring",
            1,
            {"ground_truth": "{<10><20><30>}"},
            r"referring\.json, row 1: '{<10><20><30>}' is no box",
        ),
        ("EVAL_referring", 1, {"ground_truth": "{<1><2><3><101>}"}, r"row 1: .* is no box .* in percent"),
        ("EVAL_referring", 1, {"unique": None}, r"row 1 lacks 'unique'"),
        ("EVAL_referring", 1, {"question": " "}, r"row 1 has no question"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, file: str, row: int, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path) / f"VRSBench_{file}.json"
    rows = json.loads(path.read_text())
    rows[row] |= change
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=message):
        build(tmp_path).load_split("train" if file == "train" else "test")


def test_bad_training_rows_are_skipped_on_request(tmp_path: Path) -> None:
    path = write(tmp_path) / "VRSBench_train.json"
    rows = json.loads(path.read_text())
    rows[2]["conversations"][1]["value"] = "at the top"
    path.write_text(json.dumps(rows))
    split = build(tmp_path, val_share=0, skip_bad_rows=True).load_split("train")
    assert (len(split), split.num_excluded) == (5, {"bad rows": 1})


def test_published_expressions(tmp_path: Path) -> None:
    if not HYRE.exists():
        pytest.skip("shared data are not present")
    found = [json.loads(line) for line in HYRE.read_text().splitlines()]
    rows = [row for row in found if "is_unique" in row]
    assert len(rows) == 260
    content = []
    for number, row in enumerate(rows):
        sizes = [*row["img_size"], *row["img_size"]]
        box = [round(100 * value / size) for value, size in zip(row["answer"]["bbox"], sizes, strict=True)]
        text = "{" + "".join(f"<{value}>" for value in box) + "}"
        content.append(eval_row(number, row["problem"].partition(": ")[2], text, type="ref", unique=row["is_unique"]))
    write(tmp_path)
    (tmp_path / "VRSBench_EVAL_referring.json").write_text(json.dumps(content))
    turns = [turn for sample in build(tmp_path).load_split("test") for turn in sample.turns]
    assert len(turns) == 260
    assert turns[0].references == ("{<19><75><46><100>}",)
    assert {turn.category for turn in turns} == {"unique", "not_unique"}
