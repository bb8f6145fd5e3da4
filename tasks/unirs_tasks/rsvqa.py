"""RSVQA: questions about satellite (low resolution) and aerial (high resolution) pictures.

Source: "RSVQA: Visual Question Answering for Remote Sensing Data", IEEE TGRS 58(12), 2020.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from unirs import Image, Task
from unirs.tasks import pick
from unirs_tasks.rsvqa_schema import AnswerRule, vqa_task

Protocol = Literal["vlm", "rsvqa"]

_YES_NO = ("yes", "no")
_RANGES = ((0, 10), (10, 100), (100, 1000))


def build_lr(root: Path, protocol: Protocol = "vlm") -> Task:
    """RSVQA, low resolution: Sentinel-2 pictures of 256x256 pixels at 10 m.

    Args:
        root: folder with `LR_split_{train,val,test}_{questions,answers,images}.json` and `Images_LR/<image id>.tif`.
        protocol: `vlm`, as vision-language models are usually scored, keeps the question types presence, comp and
            rural_urban, and asks for a single word or phrase; `rsvqa` keeps count as well, its numbers as ranges, and
            asks the bare question.

    Returns:
        The task.

    Raises:
        PluginError: the protocol is unknown.
    """
    rules: Mapping[Protocol, Mapping[str, AnswerRule]] = {
        "vlm": {"presence": str, "comp": str, "rural_urban": str, "count": None},
        "rsvqa": {"presence": str, "comp": str, "rural_urban": str, "count": quantize_count},
    }
    return vqa_task(
        root=root,
        kind="image",
        prefixes={split: f"LR_split_{split}" for split in ("train", "val", "test")},
        media=partial(_picture, root / "Images_LR"),
        needs=(root / "Images_LR",),
        rules=pick("protocol", protocol, rules),
        bare=protocol == "rsvqa",
        source="RSVQA low resolution, https://zenodo.org/records/6344334",
        choices={"presence": _YES_NO, "comp": _YES_NO, "rural_urban": ("rural", "urban"), "count": _ranges()},
        synthesize=partial(_synthesize, root),
    )


def build_hr(root: Path, protocol: Protocol = "vlm", test_split: Literal["test", "test_phili"] = "test") -> Task:
    """RSVQA, high resolution: aerial pictures of 512x512 pixels at 15 cm.

    Args:
        root: folder with `USGS_split_{train,val,test,test_phili}_{questions,answers,images}.json` and
            `Data/<image id>.tif`.
        protocol: `vlm`, as vision-language models are usually scored, keeps the question types presence and comp, and
            asks for a single word or phrase; `rsvqa` keeps count and area as well, its areas as ranges, and asks the
            bare question.
        test_split: which of the two published test sets is `test`; `test_phili` shows a city that training does not.

    Returns:
        The task.

    Raises:
        PluginError: the protocol or the test split is unknown.
    """
    rules: Mapping[Protocol, Mapping[str, AnswerRule]] = {
        "vlm": {"presence": str, "comp": str, "count": None, "area": None},
        "rsvqa": {"presence": str, "comp": str, "count": str, "area": quantize_area},
    }
    tests = {"test": "USGS_split_test", "test_phili": "USGS_split_test_phili"}
    return vqa_task(
        root=root,
        kind="image",
        prefixes={"train": "USGS_split_train", "val": "USGS_split_val", "test": pick("test_split", test_split, tests)},
        media=partial(_picture, root / "Data"),
        needs=(root / "Data",),
        rules=pick("protocol", protocol, rules),
        bare=protocol == "rsvqa",
        source="RSVQA high resolution, https://zenodo.org/records/6344367",
        choices={"presence": _YES_NO, "comp": _YES_NO, "area": _ranges("m2")},
    )


def quantize_count(answer: str) -> str:
    """Writes a count as RSVQA's range; an answer that is no whole number stays as it is.

    The ranges, their names and their bounds (0 < n <= 10 is "between 0 and 10") are those of `VocabEncoder.py` in
    RSVQA's public code, which applies them to the low resolution set only.
    """
    return _range(int(answer), "") if re.fullmatch(r"[0-9]+", answer) else answer


def quantize_area(answer: str) -> str:
    """Writes an area such as `57m2` as RSVQA's range; an answer that is no area stays as it is.

    The ranges are those of `VocabEncoder.py` in RSVQA's public code, as for `quantize_count`.
    """
    return _range(int(answer[:-2]), "m2") if re.fullmatch(r"[0-9]+m2", answer) else answer


def _range(number: int, unit: str) -> str:
    bounds = (0, *(high for _, high in _RANGES))
    index = next((index for index, bound in enumerate(bounds) if number <= bound), len(bounds))
    return _ranges(unit)[index]


def _ranges(unit: str = "") -> tuple[str, ...]:
    between = (f"between {low}{unit} and {high}{unit}" for low, high in _RANGES)
    return (f"0{unit}", *between, f"more than 1000{unit}")


def _picture(folder: Path, row: Mapping[str, Any], _: str) -> Image:
    return Image(folder / f"{row['id']}.tif")


def _synthesize(root: Path, size: int, seed: int) -> None:
    from unirs_tasks.synth.rsvqa import write

    write(root, size, seed)
