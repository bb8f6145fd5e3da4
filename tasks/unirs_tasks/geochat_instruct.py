"""GeoChat-Instruct: conversations about satellite and aerial images, a training mix.

Source: "GeoChat: Grounded Large Vision-Language Model for Remote Sensing", CVPR 2024, section 4.
"""

import re
from array import array
from collections import Counter
from functools import partial
from pathlib import Path

from unirs import Image, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import VqaAccuracy
from unirs.tasks import LazySamples, SplitName, check_split, read_json_list
from unirs_tasks._shared import FileRows, read_conversation

_TAG = re.compile(r"\[(\w+)\]")


def build(
    root: Path,
    images: str = "share/softwares/kartik/GeoChat_finetuning/final_images_llava",
    dialogue: bool = False,
    skip_bad_rows: bool = False,
) -> Task:
    """GeoChat-Instruct: 318,000 conversations of one or several questions and answers, for training only.

    GeoChat's task tags (`[refer]`, `[identify]`, `[grounding]`) are in the questions, and are the turns' categories.
    The file is read row by row, and a row again when its sample is accessed.

    Args:
        root: folder with `GeoChat_Instruct.json`.
        images: folder of the images in it; by default as the published archive unpacks.
        dialogue: whether a question is preceded by the earlier questions and answers of its conversation.
        skip_bad_rows: whether rows that are no conversation about an image are skipped and counted; else they are
            errors.
    """
    return Task(
        modality="image",
        load_split=partial(_read_split, root / "GeoChat_Instruct.json", root / images, dialogue, skip_bad_rows),
        prompt=PromptTemplate(task_tag="", instruction="{question}"),
        metric=VqaAccuracy(),
        required_paths=(root / "GeoChat_Instruct.json", root / images),
        download_hint="GeoChat-Instruct, https://huggingface.co/datasets/MBZUAI/GeoChat_Instruct",
        splits=("train",),
    )


def _read_split(path: Path, images: Path, dialogue: bool, skip_bad_rows: bool, split: SplitName) -> TaskSplit:
    check_split(split, ("train",))
    rows, turns = FileRows(path, partial(_sample, path, images, dialogue)), array("q")
    excluded: Counter[str] = Counter()
    for index, row in enumerate(read_json_list(path)):
        try:
            turns.append(len(rows.add(index, *row).turns))
        except DataError:
            if not skip_bad_rows:
                raise
            excluded["bad rows"] += 1
    if not turns:
        raise DataError(f"{path} holds no conversations. Download it again.")
    return TaskSplit(LazySamples(rows, turns), excluded)


def _sample(path: Path, images: Path, dialogue: bool, value: object, index: int) -> Sample:
    image, texts = read_conversation(value, f"{path}, row {index}")
    # Ids in the file are not unique: an image has several rows.
    turns = tuple(
        _turn(f"{index}-{start // 2}", texts[:start] if dialogue else [], texts[start], texts[start + 1])
        for start in range(0, len(texts), 2)
    )
    return Sample(id=str(index), media=Image(images / image), turns=turns)


def _turn(key: str, before: list[str], question: str, answer: str) -> Turn:
    tag = _TAG.match(question)
    fields = {"question": "\n".join([*before, question])}
    return Turn(id=key, prompt_fields=fields, references=(answer,), category=tag[1] if tag else "")
