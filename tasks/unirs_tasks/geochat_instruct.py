"""GeoChat-Instruct: conversations about satellite and aerial pictures, a training mix.

Source: "GeoChat: Grounded Large Vision-Language Model for Remote Sensing", CVPR 2024, section 4.
"""

import re
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from unirs import Image, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import VqaAccuracy
from unirs.tasks import LazySamples, SplitName, check_split, field, read_json_list, read_row

_IMAGE = "<image>"
_TAG = re.compile(r"\[(\w+)\]")


def build(
    root: Path,
    images: str = "share/softwares/kartik/GeoChat_finetuning/final_images_llava",
    dialogue: bool = False,
    skip_bad_rows: bool = False,
) -> Task:
    """GeoChat-Instruct: 318,000 conversations of one or several questions and answers. It is only trained on.

    GeoChat's task tags (`[refer]`, `[identify]`, `[grounding]`) stand in the questions, and are the turns' kinds.

    The file is read row by row, and a row again when its sample is asked for.

    Args:
        root: folder with `GeoChat_Instruct.json`.
        images: folder of the pictures in it; as the published archive unpacks where left out.
        dialogue: a question comes with all that was said before it; else it stands alone.
        skip_bad_rows: leave out rows that are no conversation about a picture, and count them; else they are errors.

    Returns:
        The task.
    """
    return Task(
        modality="image",
        load_split=partial(_samples, root / "GeoChat_Instruct.json", root / images, dialogue, skip_bad_rows),
        prompt=PromptTemplate(task_tag="", instruction="{question}"),
        metric=VqaAccuracy(),
        required_paths=(root / "GeoChat_Instruct.json", root / images),
        download_hint="GeoChat-Instruct, https://huggingface.co/datasets/MBZUAI/GeoChat_Instruct",
        splits=("train",),
    )


def _samples(path: Path, images: Path, dialogue: bool, skip_bad_rows: bool, split: SplitName) -> TaskSplit:
    check_split(split, ("train",))
    found = _Rows(path, images, dialogue, array("q"), array("q"), array("q"))
    turns = array("q")
    dropped: Counter[str] = Counter()
    for index, row in enumerate(read_json_list(path)):
        try:
            turns.append(len(found.sample(row.value, index).turns))
        except DataError:
            if not skip_bad_rows:
                raise
            dropped["bad rows"] += 1
            continue
        found.indices.append(index)
        found.starts.append(row.start)
        found.ends.append(row.end)
    if not turns:
        raise DataError(f"{path} holds no conversations. Download it again.")
    return TaskSplit(LazySamples(found, turns), dropped)


@dataclass(frozen=True)
class _Rows:
    """Where the kept rows of the file stand; makes the sample of a number."""

    path: Path
    images: Path
    dialogue: bool
    indices: "array[int]"
    starts: "array[int]"
    ends: "array[int]"

    def __call__(self, number: int) -> Sample:
        row = read_row(self.path, self.starts[number], self.ends[number])
        return self.sample(row, self.indices[number])

    def sample(self, row: object, index: int) -> Sample:
        """The sample of a row."""
        where = f"{self.path}, row {index}"
        if not isinstance(row, dict):
            raise DataError(f"{where} is not an object. Download the file again.")
        where = f"{where} ({row.get('id', 'no id')})"
        utterances: list[object] = field(row, "conversations", list, where)
        if not utterances or len(utterances) % 2:
            count = len(utterances)
            raise DataError(f"{where}: 'conversations' has {count} texts, which are no questions and answers in turn.")
        texts = [
            _text(entry, ("human", "gpt")[place % 2], f"{where}, text {place}")
            for place, entry in enumerate(utterances)
        ]
        # Ids are not unique: a picture has several rows.
        turns = tuple(
            _turn(f"{index}-{place // 2}", texts[:place] if self.dialogue else [], texts[place], texts[place + 1])
            for place in range(0, len(texts), 2)
        )
        return Sample(id=str(index), media=Image(self.images / field(row, "image", str, where)), turns=turns)


def _text(entry: object, speaker: str, where: str) -> str:
    if not isinstance(entry, Mapping):
        raise DataError(f"{where} is not an object with 'from' and 'value'. Correct the row.")
    if entry.get("from") != speaker:
        raise DataError(f"{where} is from {entry.get('from')!r}, not from '{speaker}'. Correct the row.")
    row: Mapping[str, Any] = entry
    text = field(row, "value", str, where).replace(_IMAGE, "").strip()
    if not text:
        raise DataError(f"{where} is empty. Correct the row.")
    return text


def _turn(key: str, before: list[str], question: str, answer: str) -> Turn:
    tag = _TAG.match(question)
    return Turn(
        id=key,
        prompt_fields={"question": "\n".join([*before, question])},
        references=(answer,),
        category=tag[1] if tag else "",
    )
