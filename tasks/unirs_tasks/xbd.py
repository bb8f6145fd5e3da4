"""xBD: damage of buildings after a disaster, from images before and after it.

Source: "xBD: A Dataset for Assessing Building Damage from Satellite Imagery", 2019. The question is EarthDial's.
"""

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from unirs import Pair, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import Top1
from unirs.tasks import SplitName, check_split, parse_row, read_json

DAMAGE = ("no-damage", "minor-damage", "major-damage", "destroyed")
_UNKNOWN = "un-classified"
_SPLITS: Mapping[str, tuple[str, ...]] = {"train": ("train",), "val": ("hold",), "test": ("test",)}
_POST, _PRE = "_post_disaster", "_pre_disaster"
_POINT = re.compile(r"(-?[\d.]+(?:e-?\d+)?) (-?[\d.]+(?:e-?\d+)?)")
_Pixels = Annotated[int, Meta(ge=1)]


class _Properties(Struct):
    uid: str
    subtype: str = _UNKNOWN


class _Building(Struct):
    properties: _Properties
    wkt: str


class _Features(Struct):
    xy: list[_Building]


class _Metadata(Struct):
    width: _Pixels
    height: _Pixels


class _Labels(Struct):
    features: _Features
    metadata: _Metadata


def build(root: Path, tier3: bool = False) -> Task:
    """xBD: pairs of 1024x1024 pixels, a question for each building: no, minor or major damage, or destroyed.

    A building is named by its box in the image after the disaster, `[[x1, y1, x2, y2, 0]]` in percent of width and
    height, rounded outwards, with the angle 0, as EarthDial's rows have it. Buildings that are `un-classified` are
    excluded.

    Args:
        root: folder with `{train,hold,test}/{images,labels}/<disaster>_<number>_{pre,post}_disaster.{png,json}`. The
            published holdout is `val`.
        tier3: whether `tier3/` is training data, too.
    """
    folders = {**_SPLITS, "train": ("train", "tier3")} if tier3 else _SPLITS
    return Task(
        modality="pair",
        load_split=partial(_read_split, root, folders),
        prompt=PromptTemplate(task_tag="identify", instruction="{question}"),
        metric=Top1(DAMAGE),
        required_paths=tuple(root / name / "labels" for names in folders.values() for name in names),
        download_hint="xBD, https://xview2.org/dataset",
        choices=DAMAGE,
    )


def _read_split(root: Path, folders: Mapping[str, tuple[str, ...]], split: SplitName) -> TaskSplit:
    check_split(split)
    samples, excluded = [], 0
    for folder in folders[split]:
        for path in sorted((root / folder / "labels").glob(f"*{_POST}.json")):
            labels = parse_row(read_json(path), _Labels, str(path))
            turns = []
            for index, building in enumerate(labels.features.xy):
                if building.properties.subtype == _UNKNOWN:
                    excluded += 1
                else:
                    turns.append(_turn(building, labels.metadata, f"{path}, building {index}", f"{path.stem}-{index}"))
            if turns:
                images = root / folder / "images"
                pair = Pair(images / f"{path.stem.replace(_POST, _PRE)}.png", images / f"{path.stem}.png")
                samples.append(Sample(path.stem, pair, tuple(turns)))
    if not samples:
        raise DataError(f"{root} has no buildings in {', '.join(folders[split])}. Unpack the images and labels there.")
    return TaskSplit(samples, {_UNKNOWN: excluded} if excluded else None)


def _turn(building: _Building, size: _Metadata, where: str, key: str) -> Turn:
    damage = building.properties.subtype
    points = [(float(x) / size.width, float(y) / size.height) for x, y in _POINT.findall(building.wkt)]
    if damage not in DAMAGE or not points or not building.wkt.startswith("POLYGON"):
        raise DataError(f"{where}: no polygon with one of {', '.join(DAMAGE)}, but {damage!r}, {building.wkt[:40]!r}.")
    low = [math.floor(100 * min(max(min(axis), 0), 1)) for axis in zip(*points, strict=True)]
    high = [math.ceil(100 * min(max(*axis, 0), 1)) for axis in zip(*points, strict=True)]
    question = (
        f"Compare the building at <box>[[{low[0]}, {low[1]}, {high[0]}, {high[1]}, 0]]</box> between the pre-disaster "
        "and post-disaster images. In the post-disaster image, classify the level of damage. Classes: "
        f"{', '.join(DAMAGE)}. Answer in single word."
    )
    return Turn(key, (damage,), {"question": question}, category=damage)
