"""LRS-VQA: questions about large satellite images, for evaluation only.

Source: "When Large Vision-Language Model Meets Large Remote Sensing Imagery: Coarse-to-Fine Text-Guided Token Pruning",
ICCV 2025.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from msgspec import Struct

from unirs import Image, PromptTemplate, Task, TaskSplit, Turn
from unirs.metrics import LrsVqa, Scorer, VqaAccuracy
from unirs.tasks import SplitName, check_split, parse_row, pick, scan_json_lines
from unirs_tasks._shared import check_not_empty, group_turns

Protocol = Literal["lrsvqa", "exact"]


class _Row(Struct):
    question_id: str
    image: str
    category: str
    text: str
    ground_truth: str


def build(root: Path, protocol: Protocol = "lrsvqa") -> Task:
    """LRS-VQA: 7,333 questions of eight types about 1,228 images of 1,024 to 27,328 pixels in length.

    The prompts are the published ones, which request a single word or phrase. Larger images than the limit of pixels
    need the environment variable `UNIRS_MAX_PIXELS`.

    Args:
        root: folder with `LRS_VQA_merged.jsonl` and `LRS_VQA/image/`.
        protocol: `lrsvqa` accepts synonyms, and needs WordNet's database; `exact` is the normalized exact match.

    Raises:
        PluginError: the protocol is unknown.
    """
    metrics: dict[str, Scorer] = {"lrsvqa": LrsVqa(), "exact": VqaAccuracy()}
    path = root / "LRS_VQA_merged.jsonl"
    return Task(
        modality="image",
        load_split=partial(_read_split, path),
        prompt=PromptTemplate(task_tag="vqa", instruction="{question}"),
        metric=pick("protocol", protocol, metrics),
        required_paths=(path, root / "LRS_VQA" / "image"),
        download_hint="LRS-VQA, https://huggingface.co/datasets/ll-13/LRS-VQA",
        splits=("test",),
    )


def _read_split(path: Path, split: SplitName) -> TaskSplit:
    check_split(split, ("test",))
    samples = group_turns(_rows(path), lambda name: Image(path.parent / name))
    check_not_empty(samples, path, split)
    return TaskSplit(samples)


def _rows(path: Path) -> Iterator[tuple[str, Turn]]:
    for number, (value, _, _) in scan_json_lines(path):
        row = parse_row(value, _Row, f"{path}, line {number}")
        question = "\n".join(line.strip() for line in row.text.splitlines())
        yield row.image, Turn(row.question_id, (row.ground_truth,), {"question": question}, category=row.category)
