"""Any task from JSON lines, without code: images, pairs, videos or series, scored by any metric."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Formatter
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from unirs import Image, Media, Modality, Pair, PromptTemplate, Sample, Series, Task, TaskSplit, Turn, Video
from unirs.errors import DataError, MediaError, PluginError, did_you_mean
from unirs.metrics import named_metric
from unirs.ranges import PositiveInt
from unirs.tasks import LazySamples, SplitName, check_split, parse_row, pick, scan_json_lines
from unirs_tasks._shared import FileRows


class _Line(Struct, kw_only=True):
    id: str | int | UnsetType = UNSET
    answer: str | UnsetType = UNSET
    references: Annotated[list[str], Meta(min_length=1)] | UnsetType = UNSET
    category: str | UnsetType = UNSET


class _ImageLine(_Line):
    image: str


class _PairLine(_Line):
    images: tuple[str, str]


class _VideoLine(_Line):
    video: str


class _SeriesLine(_Line):
    images: list[str]
    dates: list[str] | None = None


_LINES: Mapping[Modality, type[_Line]] = {
    "image": _ImageLine,
    "pair": _PairLine,
    "video": _VideoLine,
    "series": _SeriesLine,
}
_OWN = {"id", "answer", "references", "category", "image", "images", "video", "dates"}


def build(
    root: Path,
    modality: Modality = "image",
    instruction: str = "{question}",
    tag: str = "vqa",
    metric: str = "exact",
    choices: Sequence[str] = (),
    num_frames: PositiveInt = 8,
    splits: Sequence[SplitName] = ("train", "val", "test"),
) -> Task:
    """A task from `<split>.jsonl`, one question per line.

    A line is a JSON object with
    `image`, `images` (two: before, after; or those of a series, with `dates` if they are known) or `video`, according
    to `modality`: paths relative to `root`;
    `answer` (a text), or `references` (several texts), or both: `answer` is then for training, and `references` are for
    scores;
    `category`, to split scores by question type or class (for `top1` by default the answer), or by `changed` and
    `unchanged`;
    `id`, by default the number of the line;
    `question`, or any other texts that the instruction names.

    Files are read line by line, and a line again when its sample is accessed, so they may be of any size.

    Args:
        root: folder with the files.
        modality: of the media.
        instruction: of the prompt, with the names of the lines' texts in braces.
        tag: the task tag before the instruction; none if empty.
        metric: how answers are scored: `exact` (exact match), `caption` (BLEU, METEOR, ROUGE-L, CIDEr-D), `top1` (the
            class that the answer names), a text metric of torchmetrics (`chrf`, `rouge`, `sacrebleu`, `bertscore` ...)
            or the dotted path or file of a metric (`my_metrics.py:WordRatio`).
        choices: the closed answers; for `top1` the classes, and required.
        num_frames: frames of a video.
        splits: those that have a file. Without `val` and `test` the task is for training only.

    Raises:
        PluginError: an option is unknown or does not fit the others.
    """
    line = pick("modality", modality, _LINES)
    for split in splits:
        check_split(split)
    if isinstance(choices, str) or not all(isinstance(choice, str) for choice in choices):
        raise PluginError(f"'choices' must be a list of texts, got {choices!r}. YAML needs quotes around yes and no.")
    if metric == "top1" and not choices:
        raise PluginError("The metric 'top1' needs 'choices': the classes.")
    names = tuple(name for _, name, _, _ in Formatter().parse(instruction) if name is not None)
    classes = tuple(choices) if metric == "top1" else ()
    return Task(
        modality=modality,
        load_split=_SplitReader(root, line, names, classes, num_frames, tuple(splits)),
        prompt=PromptTemplate(task_tag=tag, instruction=instruction),
        metric=named_metric(metric, classes),
        required_paths=tuple(root / f"{split}.jsonl" for split in splits),
        download_hint="your own; docs/tasks.md describes the lines.",
        choices=tuple(choices),
        splits=tuple(splits),
    )


@dataclass(frozen=True)
class _SplitReader:
    """The options of `build`. `names`: texts that a line must have. `classes`: empty if any category may occur."""

    root: Path
    line: type[_Line]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    num_frames: int
    splits: tuple[SplitName, ...]

    def __call__(self, split: SplitName) -> TaskSplit:
        check_split(split, self.splits)
        path = self.root / f"{split}.jsonl"
        rows, ids = FileRows(path, partial(self._sample, path)), set[str]()
        for number, row in scan_json_lines(path):
            key = rows.add(number, *row).id
            if key in ids:
                raise DataError(f"{path}, line {number}: the id '{key}' is taken. Give each line its own, or none.")
            ids.add(key)
        if not ids:
            raise DataError(f"{path} has no lines. Write one JSON object per line.")
        return TaskSplit(LazySamples(rows, array("B", bytes([1]) * len(ids))))

    def _sample(self, path: Path, value: Mapping[str, object], number: int) -> Sample:
        where = f"{path}, line {number}"
        line = parse_row(value, self.line, where)
        answers = () if isinstance(line.answer, UnsetType) else (line.answer,)
        references = answers if isinstance(line.references, UnsetType) else tuple(line.references)
        if not references:
            raise DataError(f"{where} lacks 'answer' and 'references'. Add one.")
        key = str(number if line.id is UNSET else line.id)
        category = (references[0] if self.classes else "") if isinstance(line.category, UnsetType) else line.category
        if self.classes and category not in self.classes:
            raise DataError(f"{where}: '{category}' is none of the 'choices'. {did_you_mean(category, self.classes)}")
        fields = {name: text for name, text in value.items() if isinstance(text, str) and name not in _OWN}
        for name in self.names:
            if name not in fields:
                raise DataError(f"{where} has no text '{name}', which the instruction names. Add it.")
        try:
            media = self._media(line)
        except MediaError as error:
            raise DataError(f"{where}: {error}") from error
        return Sample(key, media, (Turn(key, references, fields, answers, category),))

    def _media(self, line: _Line) -> Media:
        match line:
            case _ImageLine():
                return Image(self.root / line.image)
            case _PairLine():
                return Pair(*(self.root / path for path in line.images))
            case _SeriesLine():
                return Series([self.root / path for path in line.images], line.dates)
            case _VideoLine():
                return Video(self.root / line.video, self.num_frames)
        raise TypeError(line)
