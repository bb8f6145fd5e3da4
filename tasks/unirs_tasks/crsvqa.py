"""CRSVQA: questions that people wrote about scenes and the spatial relations of objects.

Source: "Multistep Question-Driven Visual Question Answering for Remote Sensing" (MQVQA), IEEE TGRS 61, 2023; files and
question types as in its public code.
"""

import re
from functools import partial
from pathlib import Path
from typing import Literal

from unirs import Image, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import VqaAccuracy
from unirs.ranges import UnitInterval
from unirs.tasks import FileSplits, SplitName, check_split, files_of, pick, read_text
from unirs_tasks.rsvqa_schema import BARE, SINGLE_WORD

Protocol = Literal["vlm", "crsvqa"]


def build(
    root: Path,
    protocol: Protocol = "vlm",
    split_file: Path | None = None,
    test_share: UnitInterval = 0.1,
    val_share: UnitInterval = 0.1,
    seed: int = 0,
) -> Task:
    """CRSVQA: 4,639 scene images with questions written by people.

    A text file holds the questions of an image, each on a line above that of its answer. Published numbers are of an
    unpublished test set of a tenth of the images. Here a hash of the image's name selects the test set, so that no
    image is in two splits, or a split file defines the splits.

    Questions have three categories by their words, as in the public code: `scene` (scene, theme), `object` (many,
    object, shape) and `relation` (all others).

    Args:
        root: folder with `image/<name>.png` and `text/<name>.txt`.
        protocol: `vlm`, usual for vision-language models, requests a single word or phrase; `crsvqa` prompts with the
            bare question. Both evaluate all questions, and write questions and answers in lower case.
        split_file: CSV with the columns `file` (the image's name without suffix) and `split` (`train`, `val` or
            `test`), relative to the current folder; images that it omits are excluded.
        test_share: share of the images that is `test` without a split file, 0..1.
        val_share: share of the training images that is `val` if no file defines it, 0..1.
        seed: changes the selection by hash.

    Raises:
        PluginError: the protocol is unknown, or a share is not from 0 to 1.
    """
    splits = FileSplits(split_file, test_share, val_share, seed)
    return Task(
        modality="image",
        load_split=partial(_read_split, root, splits),
        prompt=pick("protocol", protocol, {"vlm": SINGLE_WORD, "crsvqa": BARE}),
        metric=VqaAccuracy(),
        required_paths=(root / "image", root / "text", *filter(None, [split_file])),
        download_hint="CRSVQA, https://github.com/MeimeiZhang-data/MQVQA",
    )


def _read_split(root: Path, splits: FileSplits, split: SplitName) -> TaskSplit:
    check_split(split)
    folder = root / "text"
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. It must hold <name>.txt: download CRSVQA, or correct its root.")
    names = [path.stem for path in files_of(folder, {".txt"}, "a .txt file")]
    samples = [_sample(root, name) for name in splits.select(split, [names])]
    if not samples:
        raise DataError(f"{folder} has no file for the split '{split}'. Add some, or raise its share.")
    return TaskSplit(samples)


def _sample(root: Path, name: str) -> Sample:
    path = root / "text" / f"{name}.txt"
    lines = read_text(path).lower().rstrip().splitlines()
    if not lines or len(lines) % 2:
        raise DataError(f"{path} holds {len(lines)} lines. It must hold a question and an answer in turn.")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise DataError(f"{path}, line {number} is empty. It must hold a question and an answer in turn.")
    pairs = zip(lines[::2], lines[1::2], strict=True)
    turns = tuple(_turn(f"{name}-{index}", question, answer) for index, (question, answer) in enumerate(pairs))
    return Sample(id=name, media=Image(root / "image" / f"{name}.png"), turns=turns)


def _turn(key: str, question: str, answer: str) -> Turn:
    # Some questions end with a full-width question mark, some with none.
    question = re.split(r"[?\N{FULLWIDTH QUESTION MARK}]", question)[0].strip()
    words = set(question.split())
    category = "relation"
    if words & {"many", "object", "shape"}:
        category = "object"
    if words & {"scene", "theme"}:
        category = "scene"
    return Turn(id=key, prompt_fields={"question": f"{question}?"}, references=(answer.strip(),), category=category)
