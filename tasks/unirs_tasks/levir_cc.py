"""LEVIR-CC: what changed between two aerial images, in one sentence.

Source: "Remote Sensing Image Change Captioning With Dual-Branch Transformers: A New Method and a Large Scale Dataset",
IEEE TGRS 60, 2022.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from unirs import Pair, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import CaptionMetrics
from unirs.tasks import SplitName, check_split, parse_row, read_json_list
from unirs_tasks._shared import Sentence, sentence_texts, synthesize

_CATEGORIES = ("unchanged", "changed")
_Text = Annotated[str, Meta(min_length=1)]


class _Row(Struct):
    split: _Text
    filepath: _Text
    filename: _Text
    changeflag: Literal[0, 1]
    sentences: Annotated[list[Sentence], Meta(min_length=1)]


def build(root: Path, meteor: bool = True) -> Task:
    """LEVIR-CC: pairs of 256x256 pixels at 0.5 m, five sentences each.

    A pair is one turn: all five sentences are learned, and an answer is scored against all five.

    Args:
        root: folder with `LevirCCcaptions.json` and `images/{train,val,test}/{A,B}/<file name>`.
        meteor: whether tests compute METEOR, which takes Java and seconds.
    """
    return Task(
        modality="pair",
        load_split=partial(_read_split, root),
        prompt=PromptTemplate(
            task_tag="change",
            instruction="Please briefly describe the main changes between the above two remote sensing images.",
        ),
        metric=CaptionMetrics(meteor),
        required_paths=(root / "LevirCCcaptions.json", root / "images"),
        download_hint="LEVIR-CC, https://github.com/Chen-Yang-Liu/LEVIR-CC-Dataset",
        synthesize=partial(synthesize, "levir", root),
    )


def _read_split(root: Path, split: SplitName) -> TaskSplit:
    check_split(split)
    path = root / "LevirCCcaptions.json"
    samples: dict[str, Sample] = {}
    for index, (value, _, _) in enumerate(read_json_list(path, "images")):
        row = parse_row(value, _Row, f"{path}, row {index}")
        check_split(row.split, where=f"{path}, row {index}")
        if row.split != split:
            continue
        where = f"{path}, row {index} ({row.filename})"
        sample = _sample(root / "images", row, where)
        if sample.id in samples:
            raise DataError(f"{where}: the pair {sample.id} is listed twice. Keep one of its rows.")
        samples[sample.id] = sample
    if not samples:
        raise DataError(f"{path} has no pair with the split '{split}'. Download the file again.")
    return TaskSplit(list(samples.values()))


def _sample(images: Path, row: _Row, where: str) -> Sample:
    sentences = sentence_texts(row.sentences, where)
    key, folder = f"{row.filepath}/{row.filename}", images / row.filepath
    turn = Turn(id=key, references=sentences, train_answers=sentences, category=_CATEGORIES[row.changeflag])
    return Sample(id=key, media=Pair(folder / "A" / row.filename, folder / "B" / row.filename), turns=(turn,))
