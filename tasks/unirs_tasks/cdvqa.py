"""CDVQA: questions about what changed between two aerial images.

Source: "Change Detection Meets Visual Question Answering", IEEE TGRS 60, 2022. Its files follow RSVQA's schema.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from unirs import Pair, Task
from unirs.metrics import VqaAccuracy
from unirs.tasks import pick
from unirs_tasks.rsvqa_schema import BARE, SINGLE_WORD, ImageRow, SplitReader

Protocol = Literal["vlm", "cdvqa"]

_YES_NO = ("yes", "no")
_COVERS = ("NVG_surface", "buildings", "low_vegetation", "playgrounds", "trees", "water")
_RATIOS = ("0", *(f"{low}_to_{low + 10}" for low in range(0, 100, 10)))
_CHOICES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("change_or_not", "increase_or_not", "decrease_or_not"), _YES_NO),
    **dict.fromkeys(("change_to_what", "largest_change", "smallest_change"), _COVERS),
    **dict.fromkeys(("change_ratio", "change_ratio_types"), _RATIOS),
}


class _PairRow(ImageRow):
    file_name: str

    def media(self, root: Path) -> Pair:
        return Pair(root / "im1" / self.file_name, root / "im2" / self.file_name)


def build(root: Path, protocol: Protocol = "vlm", test_split: Literal["test", "test2"] = "test") -> Task:
    """CDVQA: aerial pairs of 512x512 pixels, and questions of eight types made from their land cover maps.

    Both protocols evaluate all question types. Their answers are closed: yes or no, a land cover, or a percent range.

    Args:
        root: folder with `{Train,Val,Test,Test2}_{questions,answers,images}.json`, `im1/` (before) and `im2/` (after).
        protocol: `vlm`, usual for vision-language models, requests a single word or phrase, and writes answers in plain
            words (`low vegetation`, `10 to 20`); `cdvqa` prompts with the bare question, and writes answers as the
            files do (`low_vegetation`, `10_to_20`).
        test_split: which of the two published test sets is `test`.

    Raises:
        PluginError: the protocol or the test split is unknown.
    """
    rules: Mapping[Protocol, Callable[[str], str]] = {"vlm": _in_words, "cdvqa": str}
    rule = pick("protocol", protocol, rules)
    test = pick("test_split", test_split, {"test": "Test", "test2": "Test2"})
    return Task(
        modality="pair",
        load_split=SplitReader(
            root, {"train": "Train", "val": "Val", "test": test}, _PairRow, dict.fromkeys(_CHOICES, rule)
        ),
        prompt=SINGLE_WORD if protocol == "vlm" else BARE,
        metric=VqaAccuracy(),
        required_paths=(root / "im1", root / "im2"),
        download_hint="CDVQA, https://github.com/YZHJessica/CDVQA",
        choices={category: tuple(map(rule, choices)) for category, choices in _CHOICES.items()},
    )


def _in_words(answer: str) -> str:
    # The questions call NVG non-vegetated ground.
    return answer.replace("NVG", "non-vegetated ground").replace("_", " ")
