"""GeoChat-Instruct, for training only: its rows stay in the file, and are read again on access."""

import re
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from unirs import Image, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import VqaAccuracy
from unirs.tasks import LazySamples, check_split, parse_row, read_json_list, read_row

TAG = r"^\[(\w+)\]"
Utterance = TypedDict("Utterance", {"from": str, "value": str})
Row = TypedDict("Row", {"image": str, "conversations": list[Utterance]})


def build(root: Path, images: str = "share/softwares/kartik/GeoChat_finetuning/final_images_llava") -> Task:
    def samples(split: str) -> TaskSplit:
        check_split(split, ("train",))
        rows, turns = Rows(root / "GeoChat_Instruct.json", root / images, array("q")), array("q")
        for index, (row, start, end) in enumerate(read_json_list(rows.file)):
            rows.bounds.extend((start, end))
            turns.append(len(rows.sample(row, index).turns))
        return TaskSplit(LazySamples(rows, turns))

    return Task(
        modality="image",
        load_split=samples,
        prompt=PromptTemplate("", "{question}"),
        metric=VqaAccuracy(),
        required_paths=(root / "GeoChat_Instruct.json", root / images),
        download_hint="https://huggingface.co/datasets/MBZUAI/GeoChat_Instruct",
        splits=("train",),
    )


@dataclass(frozen=True)
class Rows:
    file: Path
    images: Path
    bounds: "array[int]"

    def __call__(self, index: int) -> Sample:
        return self.sample(read_row(self.file, *self.bounds[2 * index : 2 * index + 2]), index)

    def sample(self, value: object, index: int) -> Sample:
        where = f"{self.file}, row {index}"
        row = parse_row(value, Row, where)
        utterances = row["conversations"]
        if not utterances or [each["from"] for each in utterances] != ["human", "gpt"] * (len(utterances) // 2):
            raise DataError(f"{where}: 'conversations' holds no questions and answers in turn. Correct the row.")
        values = [each["value"].replace("<image>", "").strip() for each in utterances]
        turns = [
            Turn(f"{index}-{number}", (answer,), {"question": question}, category="".join(re.findall(TAG, question)))
            for number, (question, answer) in enumerate(zip(values[::2], values[1::2], strict=True))
        ]
        return Sample(str(index), Image(self.images / row["image"]), tuple(turns))
