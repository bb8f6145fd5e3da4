import json
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
from unirs_tasks.dior_rsvg import build, read_numbers

from unirs import UniRS
from unirs.errors import DataError
from unirs.tasks.media import Image

ANSWERS = Path(__file__).parents[3] / "shared" / "data" / "answers"

OBJECT = """  <object>
    <name>{name}</name>
    <pose>Unspecified</pose>
    <bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
    <description>{text}</description>
  </object>
"""


def write(root: Path, size: tuple[int, int] = (80, 40)) -> Path:
    """Writes three images with two objects each; the first two are for training."""
    (root / "Annotations").mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    for image in range(3):
        name = f"{image:05}"
        objects = "".join(
            OBJECT.format(
                10, 5 * index, 30 + image, 20, name=("ship", "bridge")[index], text=f"The object {2 * image + index}."
            )
            for index in range(2)
        )
        (root / "Annotations" / f"{name}.xml").write_text(
            '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
            f"<annotation>\n  <filename>{name}.jpg</filename>\n"
            f"  <size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>\n{objects}</annotation>"
        )
        PIL.Image.new("RGB", size, (70 * image, 90, 120)).save(root / "JPEGImages" / f"{name}.jpg")
    for split, numbers in {"train": (0, 1), "val": (3, 2), "test": (4, 5)}.items():
        (root / f"{split}.txt").write_text("".join(f"{number}\n" for number in numbers))
    return root


def test_numbers_count_the_objects_of_all_annotations(tmp_path: Path) -> None:
    task = build(write(tmp_path))
    (sample,) = task.load_split("val")
    assert sample.media == Image(tmp_path / "JPEGImages" / "00001.jpg")
    assert [(turn.id, turn.references, turn.category) for turn in sample.turns] == [
        ("2", ("[10, 0, 31, 20]",), "ship"),
        ("3", ("[10, 5, 31, 20]",), "bridge"),
    ]
    assert task.prompt(sample.turns[1].prompt_fields) == (
        "[refer] Which box contains The object 3? Answer with [x1, y1, x2, y2] in pixels of the image, which has 80x40."
    )
    # The numbers do not depend on the order in which the file system lists the files.
    path = tmp_path / "Annotations" / "00000.xml"
    path.rename(tmp_path / "Annotations" / "00009.xml")
    (sample,) = task.load_split("val")
    assert sample.media == Image(tmp_path / "JPEGImages" / "00002.jpg")


def test_check_and_training_on_padded_images(
    tmp_path: Path, cli: Callable[..., int], write_config: Callable[..., Path]
) -> None:
    root = write(tmp_path / "data")
    assert cli("tasks", "check", "dior_rsvg", "--root", root, "--sheet", tmp_path / "sheet.png") == 0
    config = write_config(tmp_path, [{"name": "dior_rsvg", "root": str(root)}])
    config.write_text(config.read_text().replace("    image_size: 64\n", "    image_size: 64\n    resize_mode: pad\n"))
    assert cli("fit", "--config", config) == 0
    assert cli("test", "--config", config) == 0
    document = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    assert document["tasks"]["dior_rsvg"]["acc@0.9/ship"]["n"] == 1
    assert document["notes"]["dior_rsvg"][-1] == "boxes are in pixels of the image."
    (row, _) = map(json.loads, (tmp_path / "run" / "test" / "predictions" / "dior_rsvg.jsonl").read_text().splitlines())
    # Of the padded image, which the model gets.
    assert "in pixels of the image, which has 80x80." in row["prompt"]
    assert row["references"] == ["[10, 0, 32, 20]"]
    model = UniRS.from_pretrained(tmp_path / "run", device="cpu")
    (answer,) = model.predict([Image(root / "JPEGImages" / "00000.jpg")], "a ship", details=False)
    assert "in pixels of the image, which has 80x80." in answer.prompt


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<xmin>10</xmin>", "<xmin>ten</xmin>", r"00002\.xml, object 0: its box .* is not in whole pixels"),
        ("<xmin>10</xmin>", "", r"00002\.xml, object 0 lacks 'bndbox/xmin'"),
        ("<xmin>10</xmin>", "<xmin>33</xmin>", r"object 0: the corners of its box .* are in the wrong order"),
        ("<xmin>10</xmin>", f"<xmin>{'9' * 5000}</xmin>", "is not in whole pixels"),
        ("<description>The object 4.</description>", "<description/>", r"object 0 lacks 'description'"),
        ("<annotation>", '<!DOCTYPE x [<!ENTITY a "b">]><annotation>', r"00002\.xml defines a document type"),
        ("</annotation>", "", r"00002\.xml is not XML"),
    ],
)
def test_bad_annotations_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path) / "Annotations" / "00002.xml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        build(tmp_path).load_split("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4\nfive\n", r"test\.txt, line 2 is no number of an object: 'five'"),
        ("4\n4\n", r"test\.txt, line 2 repeats the number 4"),
        ("4\n6\n", r"test\.txt, line 2: there is no object 6"),
        ("", r"test\.txt has no rows of the split 'test'"),
        ("9" * 5000, r"test\.txt, line 1 is no number"),
    ],
)
def test_bad_split_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path)
    (tmp_path / "test.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        build(tmp_path).load_split("test")


def test_missing_annotations(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("0\n")
    with pytest.raises(DataError, match="Annotations is not a folder"):
        build(tmp_path).load_split("test")


def test_published_splits() -> None:
    files = {split: ANSWERS / f"dior_rsvg_{split}.txt" for split in ("val", "test")}
    if not all(path.exists() for path in files.values()):
        pytest.skip("shared data are not present")
    val, test = (read_numbers(path) for path in files.values())
    assert (len(val), len(test)) == (3829, 7500)
    assert not val.keys() & test.keys()
    assert max(val | test) < 38_320
