"""fMoW as series: the use of a place, from its images at several dates.

Source: "Functional Map of the World", CVPR 2018. The question is EarthDial's.
"""

from array import array
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

from msgspec import Struct

from unirs import PromptTemplate, Sample, Series, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import Top1
from unirs.ranges import Range, UnitInterval, check_ranges
from unirs.tasks import LazySamples, SplitName, check_split, class_folders, held_out, parse_row, read_json

_NAMES = """
airport airport_hangar airport_terminal amusement_park aquaculture archaeological_site barn border_checkpoint
burial_site car_dealership construction_site crop_field dam debris_or_rubble educational_institution
electric_substation factory_or_powerplant fire_station flooded_road fountain gas_station golf_course
ground_transportation_station helipad hospital impoverished_settlement interchange lake_or_pond lighthouse
military_facility multi-unit_residential nuclear_powerplant office_building oil_or_gas_facility park
parking_lot_or_garage place_of_worship police_station port prison race_track railway_bridge recreational_facility
road_bridge runway shipyard shopping_mall single-unit_residential smokestack solar_farm space_facility stadium
storage_tank surface_mine swimming_pool toll_booth tower tunnel_opening waste_disposal water_treatment_facility
wind_farm zoo
"""
CLASSES = tuple(_NAMES.split())


class _Metadata(Struct):
    timestamp: datetime


def build(root: Path, num_images: Annotated[int, Range(2, 100)] = 4, val_share: UnitInterval = 0.1) -> Task:
    """fMoW: a place by its images at several dates, in one of 62 classes.

    The published validation images are `test`, as in other work: its test images have no class folders. `val` is a
    share of the training places, selected by hash. Places with one image are excluded.

    Args:
        root: folder with `{train,val}/<class>/<place>/<place>_<number>_rgb.{jpg,json}`, as published.
        num_images: greatest number of images of a place: the first, the last, and others spread between them.
        val_share: share of each class's training places that is `val`, 0..1.

    Raises:
        PluginError: an option is out of its range.
    """
    check_ranges(build, {"num_images": num_images, "val_share": val_share})
    instruction = (
        f"Classify the given images in one of the following classes. Classes: {', '.join(CLASSES)}. "
        "Answer in one word or a short phrase."
    )
    return Task(
        modality="series",
        load_split=partial(_read_split, root, num_images, val_share),
        prompt=PromptTemplate(task_tag="scene", instruction=instruction),
        metric=Top1(CLASSES),
        required_paths=(root / "train", root / "val"),
        download_hint="fMoW-rgb, https://github.com/fMoW/dataset",
        choices=CLASSES,
    )


def _read_split(root: Path, num_images: int, val_share: float, split: SplitName) -> TaskSplit:
    check_split(split)
    folder = root / ("val" if split == "test" else "train")
    places, single = list[Path](), 0
    for named in class_folders(folder):
        if named.name not in CLASSES:
            raise DataError(f"{named} is not named as one of fMoW's classes. Rename it, or move it elsewhere.")
        found = {place.name: place for place in class_folders(named)}
        val = held_out(found, val_share)
        for name, place in found.items():
            if split == "test" or (name in val) == (split == "val"):
                several = len(_images(place)) > 1
                single += not several
                places += [place] * several
    if not places:
        raise DataError(f"{folder} has no place with two or more images, <class>/<place>/*_rgb.jpg. Unpack them there.")
    samples = LazySamples(partial(_sample, places, num_images), array("B", bytes([1]) * len(places)))
    return TaskSplit(samples, {"single images": single} if single else None)


def _images(place: Path) -> list[Path]:
    return sorted(place.glob("*_rgb.jpg"))


def _sample(places: Sequence[Path], num_images: int, index: int) -> Sample:
    place, dated = places[index], []
    for image in _images(place):
        path = image.with_suffix(".json")
        dated.append((parse_row(read_json(path), _Metadata, str(path)).timestamp.replace(tzinfo=None), image))
    dated.sort()
    count = min(num_images, len(dated))
    chosen = [dated[round(step * (len(dated) - 1) / (count - 1))] for step in range(count)]
    media = Series([image for _, image in chosen], [f"{date:%Y-%m}" for date, _ in chosen])
    name = place.parent.name
    return Sample(f"{name}/{place.name}", media, (Turn(f"{name}/{place.name}", (name,), category=name),))
