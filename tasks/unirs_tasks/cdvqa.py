"""CDVQA: questions about what changed between two aerial pictures.

Source: "Change Detection Meets Visual Question Answering", IEEE TGRS 60, 2022. Its files follow RSVQA's schema.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from unirs import Pair, Task
from unirs.tasks import field, pick
from unirs_tasks.rsvqa_schema import vqa_task

Protocol = Literal["vlm", "cdvqa"]

_YES_NO = ("yes", "no")
_COVERS = ("NVG_surface", "buildings", "low_vegetation", "playgrounds", "trees", "water")
_RATIOS = ("0", *(f"{low}_to_{low + 10}" for low in range(0, 100, 10)))
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "change_or_not": _YES_NO,
    "increase_or_not": _YES_NO,
    "decrease_or_not": _YES_NO,
    "change_to_what": _COVERS,
    "largest_change": _COVERS,
    "smallest_change": _COVERS,
    "change_ratio": _RATIOS,
    "change_ratio_types": _RATIOS,
}


def build(root: Path, protocol: Protocol = "vlm", test_split: Literal["test", "test2"] = "test") -> Task:
    """CDVQA: aerial pairs of 512x512 pixels, and questions of eight types made from their land cover maps.

    Both protocols keep all question types, whose answers are closed: yes or no, a land cover, or a range of percent.

    Args:
        root: folder with `{Train,Val,Test,Test2}_{questions,answers,images}.json`, `im1/` (before) and `im2/` (after).
        protocol: `vlm`, as vision-language models are usually asked, asks for a single word or phrase, and writes
            answers in plain words (`low vegetation`, `10 to 20`); `cdvqa` asks the bare question, and keeps answers as
            they are written (`low_vegetation`, `10_to_20`).
        test_split: which of the two published test sets is `test`.

    Returns:
        The task.

    Raises:
        PluginError: the protocol or the test split is unknown.
    """
    spellings: Mapping[Protocol, Callable[[str], str]] = {"vlm": _in_words, "cdvqa": str}
    rule = pick("protocol", protocol, spellings)
    test = pick("test_split", test_split, {"test": "Test", "test2": "Test2"})
    return vqa_task(
        root=root,
        kind="pair",
        prefixes={"train": "Train", "val": "Val", "test": test},
        media=partial(_pair, root),
        needs=(root / "im1", root / "im2"),
        rules=dict.fromkeys(_CHOICES, rule),
        bare=protocol == "cdvqa",
        source="CDVQA, https://github.com/YZHJessica/CDVQA",
        choices={kind: tuple(map(rule, choices)) for kind, choices in _CHOICES.items()},
    )


def _in_words(answer: str) -> str:
    """`NVG_surface`, short for non-vegetated ground as the questions call it, is `non-vegetated ground surface`."""
    return answer.replace("NVG", "non-vegetated ground").replace("_", " ")


def _pair(root: Path, row: Mapping[str, Any], where: str) -> Pair:
    name = field(row, "file_name", str, where)
    return Pair(root / "im1" / name, root / "im2" / name)
