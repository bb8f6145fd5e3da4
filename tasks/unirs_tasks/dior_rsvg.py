"""DIOR-RSVG: the object that a sentence describes, as a box in pixels.

Source: "RSVG: Exploring Data and Models for Visual Grounding on Remote Sensing Data", IEEE TGRS 61, 2023; files as in
its public code.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

from unirs import Image, PromptTemplate, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import Boxes
from unirs.tasks import SplitName, check_split, files_of, read_text
from unirs_tasks._shared import check_not_empty, group_turns

_NUMBER = re.compile(r"\d{1,9}")


def build(root: Path) -> Task:
    """DIOR-RSVG: 38,320 descriptions of objects in 17,402 images of 800x800 pixels.

    The splits are of objects, not of images: an image may have objects in several splits, which `unirs tasks check`
    reports. An object's category is its class.

    Args:
        root: folder with `Annotations/*.xml`, `JPEGImages/`, and `{train,val,test}.txt`, which hold numbers of objects,
            counted from 0 over all annotations in the order of their names.
    """
    return Task(
        modality="image",
        load_split=partial(_read_split, root),
        prompt=PromptTemplate("refer", "Which box contains {question}? Answer with {box_format}.", boxes="pixels"),
        metric=Boxes("dior_rsvg"),
        required_paths=(
            root / "Annotations",
            root / "JPEGImages",
            *(root / f"{split}.txt" for split in ("train", "val", "test")),
        ),
        download_hint="DIOR-RSVG, https://github.com/ZhanYang-nwpu/RSVG-pytorch",
    )


def _read_split(root: Path, split: SplitName) -> TaskSplit:
    check_split(split)
    path = root / f"{split}.txt"
    wanted = read_numbers(path)
    rows = [row for number, row in enumerate(_turns(root / "Annotations")) if wanted.pop(number, None)]
    for number, line in wanted.items():
        raise DataError(f"{path}, line {line}: there is no object {number} in Annotations/. Download both again.")
    samples = group_turns(rows, lambda name: Image(root / "JPEGImages" / name))
    check_not_empty(samples, path, split)
    return TaskSplit(samples)


def read_numbers(path: Path) -> dict[int, int]:
    """The numbers of a split's objects, with the line of each.

    Raises:
        DataError: a line is no number, or repeats one.
    """
    numbers: dict[int, int] = {}
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        # `int` does not strip all that `str.strip` does.
        digits = text.strip()
        if not _NUMBER.fullmatch(digits):
            raise DataError(f"{path}, line {line} is no number of an object: {text[:50]!r}. Correct the line.")
        if numbers.setdefault(int(digits), line) != line:
            raise DataError(f"{path}, line {line} repeats the number {int(digits)}. Remove the line.")
    return numbers


def _turns(folder: Path) -> Iterator[tuple[str, Turn]]:
    """The image and the turn of each object."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. It must hold <name>.xml: download DIOR-RSVG, or correct its root.")
    number = 0
    for path in files_of(folder, {".xml"}, "an .xml file"):
        text = read_text(path)
        if "<!DOCTYPE" in text:
            raise DataError(f"{path} defines a document type, which may expand to any size. Remove it.")
        try:
            annotation = ET.fromstring(text)  # noqa: S314 - entities need a document type
        except (ET.ParseError, ValueError) as error:
            raise DataError(f"{path} is not XML ({error}). Download it again.") from error
        name, width, height = (_text(annotation, key, str(path)) for key in ("filename", "size/width", "size/height"))
        for index, entry in enumerate(annotation.iterfind("object")):
            where = f"{path}, object {index}"
            corners = [_text(entry, f"bndbox/{key}", where) for key in ("xmin", "ymin", "xmax", "ymax")]
            if not all(map(_NUMBER.fullmatch, (width, height, *corners))):
                raise DataError(f"{where}: its box {corners}, or the size {width}x{height}, is not in whole pixels.")
            x1, y1, x2, y2 = map(int, corners)
            if x2 < x1 or y2 < y1:
                raise DataError(f"{where}: the corners of its box {corners} are in the wrong order. Correct them.")
            fields = {"question": _text(entry, "description", where).rstrip("."), "width": width, "height": height}
            yield name, Turn(str(number), (f"[{x1}, {y1}, {x2}, {y2}]",), fields, category=_text(entry, "name", where))
            number += 1


def _text(element: ET.Element, key: str, where: str) -> str:
    text = (element.findtext(key) or "").strip()
    if not text:
        raise DataError(f"{where} lacks '{key}'. Add it, or download the file again.")
    return text
