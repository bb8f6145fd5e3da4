"""LEVIR-CC: what changed between two aerial pictures, in one sentence.

Source: "Remote Sensing Image Change Captioning With Dual-Branch Transformers: A New Method and a Large Scale Dataset",
IEEE TGRS 60, 2022.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from unirs import Pair, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import CaptionMetrics, tokenize
from unirs.tasks import SplitName, check_split, field, read_json_list

_KINDS = ("unchanged", "changed")


def build(root: Path, meteor: bool = True) -> Task:
    """LEVIR-CC: pairs of 256x256 pixels at 0.5 m, five sentences each.

    A pair is one turn: all five sentences are learned, and an answer is scored against all five.

    Args:
        root: folder with `LevirCCcaptions.json` and `images/{train,val,test}/{A,B}/<file name>`.
        meteor: whether tests compute METEOR, which takes Java and seconds.

    Returns:
        The task.
    """
    return Task(
        modality="pair",
        load_split=partial(_samples, root),
        prompt=PromptTemplate(
            task_tag="change",
            instruction="Please briefly describe the main changes between the above two remote sensing images.",
        ),
        metric=CaptionMetrics(meteor),
        required_paths=(root / "LevirCCcaptions.json", root / "images"),
        download_hint="LEVIR-CC, https://github.com/Chen-Yang-Liu/LEVIR-CC-Dataset",
        synthesize=partial(_synthesize, root),
    )


def _samples(root: Path, split: SplitName) -> TaskSplit:
    check_split(split)
    path = root / "LevirCCcaptions.json"
    samples: dict[str, Sample] = {}
    for where, row in _rows(path):
        if _text(row, "split", where) != split:
            continue
        sample = _sample(root / "images", row, where)
        if sample.id in samples:
            raise DataError(f"{where}: the pair {sample.id} is listed twice. Keep one of its rows.")
        samples[sample.id] = sample
    if not samples:
        raise DataError(f"{path} has no pair with the split '{split}'. Download the file again.")
    return TaskSplit(list(samples.values()))


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for index, (row, _, _) in enumerate(read_json_list(path, "images")):
        where = f"{path}, row {index}"
        if not isinstance(row, dict):
            raise DataError(f"{where} is not an object. Download the file again.")
        yield f"{where} ({row.get('filename', 'no filename')})", row


def _sample(images: Path, row: Mapping[str, Any], where: str) -> Sample:
    folder, filename = _text(row, "filepath", where), _text(row, "filename", where)
    flag = field(row, "changeflag", int, where)
    if flag not in (0, 1):
        raise DataError(f"{where}: 'changeflag' is {flag!r}, it must be 0 or 1. Correct the row.")
    rows: list[object] = field(row, "sentences", list, where)
    if not rows:
        raise DataError(f"{where} has no sentences. Add them, or remove the row.")
    sentences = tuple(_sentence(entry, f"{where}, sentence {index}") for index, entry in enumerate(rows))
    key = f"{folder}/{filename}"
    return Sample(
        id=key,
        media=Pair(before=images / folder / "A" / filename, after=images / folder / "B" / filename),
        turns=(Turn(id=key, references=sentences, train_answers=sentences, category=_KINDS[flag]),),
    )


def _sentence(row: object, where: str) -> str:
    """The words as the literature scores them: lower case, no punctuation."""
    if not isinstance(row, dict):
        raise DataError(f"{where} is not an object with 'tokens' or 'raw'. Correct it.")
    tokens, raw = row.get("tokens"), row.get("raw")
    if isinstance(tokens, list) and tokens and all(isinstance(token, str) for token in tokens):
        text = " ".join(tokens)
    elif isinstance(raw, str):
        text = tokenize(raw)
    else:
        raise DataError(f"{where} has neither a list of words 'tokens' nor a text 'raw'. Correct it.")
    if not text.strip():
        raise DataError(f"{where} is empty. Correct it.")
    return text


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = field(row, name, str, where)
    if not value:
        raise DataError(f"{where}: '{name}' is empty. Correct the row.")
    return value


def _synthesize(root: Path, size: int, seed: int) -> None:
    from unirs_tasks.synth.levir import write

    write(root, size, seed)
