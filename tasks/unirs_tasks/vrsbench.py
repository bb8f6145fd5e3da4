"""VRSBench: detailed captions, questions, and boxes of described objects.

Source: "VRSBench: A Versatile Vision-Language Benchmark Dataset for Remote Sensing Image Understanding", NeurIPS 2024.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from msgspec import Struct

from unirs import Image, PromptTemplate, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import Boxes, CaptionMetrics, Scorer, VrsBenchVqa
from unirs.ranges import UnitInterval
from unirs.tasks import FileSplits, SplitName, check_split, parse_row, pick, read_json_list
from unirs_tasks._shared import check_not_empty, group_turns, read_conversation
from unirs_tasks.rsvqa_schema import SINGLE_WORD

Subtask = Literal["caption", "vqa", "referring"]

_BOX = re.compile(r"\{<(\d{1,3})><(\d{1,3})><(\d{1,3})><(\d{1,3})>\}")
_REQUEST = re.compile(r"\[(\w+)\](?:.*<p>)?(.*?)(?:</p>.*)?", re.DOTALL)
_CAPTION = PromptTemplate("caption", "Describe the image in detail.")
_REFER = PromptTemplate("refer", "Which box contains {question}? Answer with {box_format}.", boxes="percent")


class _EvalRow(Struct):
    image_id: str
    question: str
    ground_truth: str
    question_id: int | str
    type: str
    unique: bool | int | None = None


def build(
    root: Path, subtask: Subtask = "referring", val_share: UnitInterval = 0.05, skip_bad_rows: bool = False
) -> Task:
    """VRSBench: 29,614 images of 512x512 pixels. Its evaluation files are `test`.

    Boxes are `{<x1><y1><x2><y2>}` in percent of the image. Referring expressions are of the category `unique` or
    `not_unique`: whether the image has one object of the class. Categories of questions are their types. Answers that
    the public code gives to a language model to judge are wrong here, see the metric `vrsbench`.

    Args:
        root: folder with `VRSBench_train.json`, `VRSBench_EVAL_{Cap,vqa,referring}.json`, `Images_{train,val}/`.
        subtask: `caption`, `vqa`, or `referring`.
        val_share: share of the training images that is `val`, 0..1, since VRSBench has no other validation set.
        skip_bad_rows: whether training rows without a valid box or text are skipped and counted; else they are errors.

    Raises:
        PluginError: the subtask is unknown, or the share is not from 0 to 1.
    """
    known: dict[str, tuple[str, str, PromptTemplate, Scorer]] = {
        "caption": ("caption", "Cap", _CAPTION, CaptionMetrics()),
        "vqa": ("vqa", "vqa", SINGLE_WORD, VrsBenchVqa()),
        "referring": ("refer", "referring", _REFER, Boxes("vrsbench")),
    }
    tag, file, prompt, metric = pick("subtask", subtask, known)
    train, test = root / "VRSBench_train.json", root / f"VRSBench_EVAL_{file}.json"
    return Task(
        modality="image",
        load_split=partial(_read_split, train, test, tag, FileSplits(None, 0.0, val_share, 0), skip_bad_rows),
        prompt=prompt,
        metric=metric,
        required_paths=(train, test, root / "Images_train", root / "Images_val"),
        download_hint="VRSBench, https://huggingface.co/datasets/xiang709/VRSBench",
    )


def _read_split(train: Path, test: Path, tag: str, splits: FileSplits, skip: bool, split: SplitName) -> TaskSplit:
    check_split(split)
    is_test = split == "test"
    path, images, read = (test, "Images_val", _test_turns) if is_test else (train, "Images_train", _train_turns)
    rows, excluded = list[tuple[str, Turn]](), Counter[str]()
    for index, (value, _, _) in enumerate(read_json_list(path)):
        try:
            rows += list(read(value, tag, f"{path}, row {index}", index))
        except DataError:
            if is_test or not skip:
                raise
            excluded["bad rows"] += 1
    if not is_test:
        names = set(splits.select(split, [dict.fromkeys(name for name, _ in rows)]))
        rows = [row for row in rows if row[0] in names]
    samples = group_turns(rows, lambda name: Image(path.parent / images / name))
    check_not_empty(samples, path, split)
    return TaskSplit(samples, excluded)


def _test_turns(value: object, tag: str, where: str, _: int) -> Iterator[tuple[str, Turn]]:
    row = parse_row(value, _EvalRow, where)
    category = "" if tag == "caption" else row.type.strip().lower()
    if tag == "refer":
        if row.unique is None:
            raise DataError(f"{where} lacks 'unique', whether its object is the only one of its class. Add it.")
        category = "unique" if row.unique else "not_unique"
    yield row.image_id, _turn(str(row.question_id), row.question, row.ground_truth, category, tag, where)


def _train_turns(value: object, tag: str, where: str, index: int) -> Iterator[tuple[str, Turn]]:
    image, texts = read_conversation(value, where)
    for start in range(0, len(texts), 2):
        request = _REQUEST.fullmatch(texts[start])
        if request and request[1] == tag:
            yield image, _turn(f"{index}-{start // 2}", request[2], texts[start + 1], "", tag, where)


def _turn(key: str, question: str, answer: str, category: str, tag: str, where: str) -> Turn:
    question, answer = question.strip(), answer.strip()
    if not question or not answer:
        raise DataError(f"{where} has no {'answer' if question else 'question'}. Correct the row.")
    box = _BOX.fullmatch(answer)
    if tag == "refer" and (box is None or max(map(int, box.groups())) > 100):
        raise DataError(f"{where}: {answer[:80]!r} is no box {{<x1><y1><x2><y2>}} in percent. Correct the row.")
    return Turn(key, (answer,), {"question": question.rstrip(".") if tag == "refer" else question}, category=category)
