"""RSVQA: questions about satellite (low resolution) and aerial (high resolution) images.

Source: "RSVQA: Visual Question Answering for Remote Sensing Data", IEEE TGRS 58(12), 2020.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from unirs import Image, Task
from unirs.metrics import VqaAccuracy
from unirs.tasks import pick
from unirs_tasks._shared import synthesize
from unirs_tasks.rsvqa_schema import BARE, SINGLE_WORD, AnswerRule, ImageRow, Prefixes, SplitReader

Protocol = Literal["vlm", "rsvqa"]

_YES_NO = ("yes", "no")
_RANGES = ((0, 10), (10, 100), (100, 1000))


class _LowResolution(ImageRow):
    def media(self, root: Path) -> Image:
        return Image(root / "Images_LR" / f"{self.id}.tif")


class _HighResolution(ImageRow):
    def media(self, root: Path) -> Image:
        return Image(root / "Data" / f"{self.id}.tif")


def build_lr(root: Path, protocol: Protocol = "vlm") -> Task:
    """RSVQA, low resolution: Sentinel-2 images of 256x256 pixels at 10 m.

    Args:
        root: folder with `LR_split_{train,val,test}_{questions,answers,images}.json` and `Images_LR/<image id>.tif`.
        protocol: `vlm`, usual for vision-language models, evaluates the question types presence, comp and rural_urban,
            and requests a single word or phrase; `rsvqa` also evaluates count, with numbers as ranges, and prompts with
            the bare question.

    Raises:
        PluginError: the protocol is unknown.
    """
    rules: Mapping[Protocol, Mapping[str, AnswerRule]] = {
        "vlm": {"presence": str, "comp": str, "rural_urban": str, "count": None},
        "rsvqa": {"presence": str, "comp": str, "rural_urban": str, "count": quantize_count},
    }
    prefixes: Prefixes = {split: f"LR_split_{split}" for split in ("train", "val", "test")}
    reader = SplitReader(root, prefixes, _LowResolution, pick("protocol", protocol, rules))
    choices = {"presence": _YES_NO, "comp": _YES_NO, "rural_urban": ("rural", "urban"), "count": _ranges()}
    return Task(
        modality="image",
        load_split=reader,
        prompt=SINGLE_WORD if protocol == "vlm" else BARE,
        metric=VqaAccuracy(),
        required_paths=(root / "Images_LR",),
        download_hint="RSVQA low resolution, https://zenodo.org/records/6344334",
        synthesize=partial(synthesize, "rsvqa", root),
        choices=reader.choices(choices),
    )


def build_hr(root: Path, protocol: Protocol = "vlm", test_split: Literal["test", "test_phili"] = "test") -> Task:
    """RSVQA, high resolution: aerial images of 512x512 pixels at 15 cm.

    Args:
        root: folder with `USGS_split_{train,val,test,test_phili}_{questions,answers,images}.json` and
            `Data/<image id>.tif`.
        protocol: `vlm`, usual for vision-language models, evaluates the question types presence and comp, and requests
            a single word or phrase; `rsvqa` also evaluates count and area, with areas as ranges, and prompts with the
            bare question.
        test_split: which of the two published test sets is `test`; `test_phili` shows a city that training does not.

    Raises:
        PluginError: the protocol or the test split is unknown.
    """
    rules: Mapping[Protocol, Mapping[str, AnswerRule]] = {
        "vlm": {"presence": str, "comp": str, "count": None, "area": None},
        "rsvqa": {"presence": str, "comp": str, "count": str, "area": quantize_area},
    }
    tests = {"test": "USGS_split_test", "test_phili": "USGS_split_test_phili"}
    prefixes: Prefixes = {
        "train": "USGS_split_train",
        "val": "USGS_split_val",
        "test": pick("test_split", test_split, tests),
    }
    reader = SplitReader(root, prefixes, _HighResolution, pick("protocol", protocol, rules))
    return Task(
        modality="image",
        load_split=reader,
        prompt=SINGLE_WORD if protocol == "vlm" else BARE,
        metric=VqaAccuracy(),
        required_paths=(root / "Data",),
        download_hint="RSVQA high resolution, https://zenodo.org/records/6344367",
        choices=reader.choices({"presence": _YES_NO, "comp": _YES_NO, "area": _ranges("m2")}),
    )


def quantize_count(answer: str) -> str:
    """Writes a count as RSVQA's range; other answers are returned unchanged.

    The ranges, their names and their bounds (0 < n <= 10 is "between 0 and 10") are those of `VocabEncoder.py` in
    RSVQA's public code, which applies them to the low resolution set only.
    """
    return _range(int(answer), "") if re.fullmatch(r"[0-9]{1,4000}", answer) else answer


def quantize_area(answer: str) -> str:
    """Writes an area such as `57m2` as RSVQA's range, as `quantize_count` does; other answers are unchanged."""
    return _range(int(answer[:-2]), "m2") if re.fullmatch(r"[0-9]{1,4000}m2", answer) else answer


def _range(number: int, unit: str) -> str:
    bounds = (0, *(high for _, high in _RANGES))
    index = next((index for index, bound in enumerate(bounds) if number <= bound), len(bounds))
    return _ranges(unit)[index]


def _ranges(unit: str = "") -> tuple[str, ...]:
    between = (f"between {low}{unit} and {high}{unit}" for low, high in _RANGES)
    return (f"0{unit}", *between, f"more than 1000{unit}")
