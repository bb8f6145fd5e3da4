"""Captions of single images, five sentences each: RSICD, UCM-Captions, Sydney-Captions and NWPU-Captions.

Sources: "Exploring Models and Data for Remote Sensing Image Caption Generation" (RSICD), IEEE TGRS 56, 2018; "Deep
Semantic Understanding of High Resolution Remote Sensing Image" (UCM, Sydney), CITS 2016; "NWPU-Captions Dataset and
MLCA-Net for Remote Sensing Image Captioning", IEEE TGRS 60, 2022.
"""

from functools import partial
from pathlib import Path

from msgspec import Struct

from unirs import Image, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import CaptionMetrics, tokenize
from unirs.tasks import SplitName, check_split, parse_row, read_json_lists
from unirs_tasks._shared import Sentence, check_not_empty, sentence_texts

_RSICD = "https://github.com/201528014227051/RSICD_optimal"


class _Row(Struct):
    """A row in Karpathy's schema, or of NWPU-Captions, which has its sentences in fields of their own."""

    filename: str
    split: str
    sentences: list[Sentence] = []
    filepath: str = ""
    raw: str | None = None
    raw_1: str | None = None
    raw_2: str | None = None
    raw_3: str | None = None
    raw_4: str | None = None


def build_rsicd(
    root: Path, annotations: str = "dataset_rsicd.json", images: str = "RSICD_images", meteor: bool = True
) -> Task:
    """RSICD: 10,921 images of 224x224 pixels. An image is one turn, with all of its sentences.

    Other data in Karpathy's schema (`{"images": [{"filename", "split", "sentences": [{"tokens", "raw"}]}]}`) can be
    read too, with the options below and a `label`.

    Args:
        root: folder with the annotations and the images.
        annotations: file name of the annotations in it.
        images: folder of the images in it.
        meteor: whether tests compute METEOR, which takes Java and seconds.
    """
    return _task(root, annotations, images, meteor, f"RSICD, {_RSICD}")


def build_ucm(root: Path, annotations: str = "dataset.json", images: str = "imgs", meteor: bool = True) -> Task:
    """UCM-Captions: 2,100 images of 256x256 pixels; options as of `rsicd`."""
    return _task(root, annotations, images, meteor, f"UCM-Captions, {_RSICD}")


def build_sydney(root: Path, annotations: str = "dataset.json", images: str = "imgs", meteor: bool = True) -> Task:
    """Sydney-Captions: 613 images of 500x500 pixels; options as of `rsicd`."""
    return _task(root, annotations, images, meteor, f"Sydney-Captions, {_RSICD}")


def build_nwpu(
    root: Path, annotations: str = "dataset_nwpu.json", images: str = "NWPU_images", meteor: bool = True
) -> Task:
    """NWPU-Captions: 31,500 images of 256x256 pixels in folders of 45 classes; options as of `rsicd`.

    The published file has a list for each class, `{class: [{"filename", "split", "raw", "raw_1" ... "raw_4"}]}`.
    """
    return _task(root, annotations, images, meteor, "NWPU-Captions, https://github.com/HaiyanHuang98/NWPU-Captions")


def _task(root: Path, annotations: str, images: str, meteor: bool, hint: str) -> Task:
    return Task(
        modality="image",
        load_split=partial(_read_split, root / annotations, root / images),
        prompt=PromptTemplate(task_tag="caption", instruction="Describe the image in one sentence."),
        metric=CaptionMetrics(meteor),
        required_paths=(root / annotations, root / images),
        download_hint=hint,
    )


def _read_split(path: Path, images: Path, split: SplitName) -> TaskSplit:
    check_split(split)
    samples: dict[str, Sample] = {}
    for index, (key, (value, _, _)) in enumerate(read_json_lists(path)):
        row = parse_row(value, _Row, f"{path}, row {index}")
        where = f"{path}, row {index} ({row.filename})"
        check_split(row.split, where=where)
        if row.split != split:
            continue
        file = Path(row.filepath or ("" if key == "images" else key)) / row.filename
        raw = [Sentence(raw=text) for text in (row.raw, row.raw_1, row.raw_2, row.raw_3, row.raw_4) if text is not None]
        # Tokens of RSICD contain full stops.
        texts = tuple(map(tokenize, sentence_texts(row.sentences or raw, where)))
        if not texts or not all(texts):
            raise DataError(f"{where} has no sentences, or one without words. Add 'sentences', or remove the row.")
        name = file.as_posix()
        if name in samples:
            raise DataError(f"{where}: the image {name} is listed twice. Keep one of its rows.")
        samples[name] = Sample(name, Image(images / file), (Turn(name, texts),))
    check_not_empty(list(samples.values()), path, split)
    return TaskSplit(list(samples.values()))
