"""CRSVQA: questions that people wrote about scenes and how objects lie to each other.

Source: "Multistep Question-Driven Visual Question Answering for Remote Sensing" (MQVQA), IEEE TGRS 61, 2023; files and
question types as its public code reads them.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from unirs import Image, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import VqaAccuracy
from unirs.tasks import Shares, SplitName, check_split, choose_split, files_of, pick, read_split_file
from unirs_tasks.rsvqa_schema import SINGLE_WORD

Protocol = Literal["vlm", "crsvqa"]

_INSTRUCTIONS: Mapping[Protocol, str] = {"vlm": SINGLE_WORD, "crsvqa": "{question}"}


def build(
    root: Path,
    protocol: Protocol = "vlm",
    split_file: Path | None = None,
    test_share: float = 0.1,
    val_share: float = 0.1,
    seed: int = 0,
) -> Task:
    """CRSVQA: 4,639 scene pictures, their questions written by people.

    A text file holds the questions of a picture, a line each, and below each the line of its answer. Published numbers
    are of a test set of a tenth, which was not published: here a hash of the picture's name chooses it, so that no
    picture is in two splits, or a split file names it.

    Questions come in three types, told by words as the public code does: `scene` (the words scene, theme), `object`
    (many, object, shape) and `relation` (all others).

    Args:
        root: folder with `image/<name>.png` and `text/<name>.txt`.
        protocol: `vlm`, as vision-language models are usually asked, asks for a single word or phrase; `crsvqa` asks
            the bare question. Both keep all questions, and write questions and answers in lower case.
        split_file: CSV with the columns `file` (the picture's name without ending) and `split` (`train`, `val` or
            `test`); pictures that it does not name are left out. From the current folder.
        test_share: share of the pictures that is `test` where no file says so, 0..1.
        val_share: share of the training pictures that is `val` where no file says so, 0..1.
        seed: another one chooses other pictures.

    Returns:
        The task.

    Raises:
        PluginError: the protocol is unknown, or a share is not from 0 to 1.
    """
    named = None if split_file is None else Path(split_file)
    return Task(
        modality="image",
        load_split=partial(_samples, root, named, Shares(test_share, val_share, seed)),
        prompt=PromptTemplate(task_tag="vqa", instruction=pick("protocol", protocol, _INSTRUCTIONS)),
        metric=VqaAccuracy(),
        required_paths=tuple(path for path in (root / "image", root / "text", named) if path is not None),
        download_hint="CRSVQA, https://github.com/MeimeiZhang-data/MQVQA",
    )


def _samples(root: Path, split_file: Path | None, shares: Shares, split: SplitName) -> TaskSplit:
    check_split(split)
    folder = root / "text"
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. It must hold <name>.txt: download CRSVQA, or correct its root.")
    names = [path.stem for path in files_of(folder, {".txt"}, "a .txt file")]
    given = None if split_file is None else read_split_file(split_file, set(names))
    samples = [_sample(root, name) for name in choose_split(split, [names], given, shares)]
    if not samples:
        raise DataError(f"{folder} has no file for the split '{split}'. Add some, or raise the share chosen for it.")
    return TaskSplit(samples)


def _sample(root: Path, name: str) -> Sample:
    path = root / "text" / f"{name}.txt"
    try:
        lines = path.read_text(encoding="utf-8-sig").lower().rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    if not lines or len(lines) % 2:
        raise DataError(f"{path} holds {len(lines)} lines. It must hold a question and an answer in turn.")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise DataError(f"{path}, line {number} is empty. It must hold a question and an answer in turn.")
    pairs = zip(lines[::2], lines[1::2], strict=True)
    turns = tuple(_turn(f"{name}-{index}", question, answer) for index, (question, answer) in enumerate(pairs))
    return Sample(id=name, media=Image(root / "image" / f"{name}.png"), turns=turns)


def _turn(key: str, question: str, answer: str) -> Turn:
    # Some questions end with a full-width mark, some with none.
    question = re.split(r"[?\N{FULLWIDTH QUESTION MARK}]", question)[0].strip()
    return Turn(
        id=key,
        prompt_fields={"question": f"{question}?"},
        references=(answer.strip(),),
        category=_kind(question.split()),
    )


def _kind(words: list[str]) -> str:
    if {"scene", "theme"}.intersection(words):
        return "scene"
    return "object" if {"many", "object", "shape"}.intersection(words) else "relation"
