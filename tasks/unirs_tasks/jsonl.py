"""Any task from JSON lines, without code: pictures, pairs or videos, scored by any of the metrics."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any, get_args

from unirs import Image, Media, Modality, Pair, PromptTemplate, Sample, Task, TaskSplit, Turn, Video
from unirs.errors import DataError, PluginError, did_you_mean
from unirs.metrics import named_metric
from unirs.tasks import LazySamples, SplitName, check_split, field, read_row, scan_json_lines

_OWN = {"id", "image", "images", "video", "answer", "references", "category"}


def build(
    root: Path,
    modality: Modality = "image",
    instruction: str = "{question}",
    tag: str = "vqa",
    metric: str = "vqa",
    choices: Sequence[str] = (),
    num_frames: int = 8,
    splits: Sequence[SplitName] = ("train", "val", "test"),
) -> Task:
    """A task from `<split>.jsonl`, a question a line.

    A line is a JSON object with
    `image`, `images` (two: before, after) or `video`, according to `modality`: paths relative to `root`;
    `answer` (a text), or `references` (several texts), or both: `answer` is then trained on, and `references` are for
    scores;
    `category`, to split scores by question type or class (for `top1` by default the answer), or by `changed` and
    `unchanged`;
    `id`, by default the number of the line;
    `question`, or any other texts that the instruction names.

    Files are read line by line, and a line again when its sample is accessed, so they may be of any size.

    Args:
        root: folder with the files.
        modality: of the media.
        instruction: what is asked, with the names of the lines' texts in braces.
        tag: the task tag before the instruction; none where empty.
        metric: how answers are scored: `vqa` (exact match), `caption` (BLEU, METEOR, ROUGE-L, CIDEr-D), `top1` (the
            class that the answer names), a text metric of torchmetrics (`chrf`, `rouge`, `sacrebleu`, `bertscore` ...)
            or the dotted path or file of a metric (`my_metrics.py:WordRatio`).
        choices: the texts among which the answers are; for `top1` the classes, and required.
        num_frames: frames of a video.
        splits: those that there are files of. Without `val` and `test` the task is only trained on.

    Returns:
        The task.

    Raises:
        PluginError: an option is unknown or makes no sense.
    """
    if modality not in get_args(Modality):
        raise PluginError(f"Unknown modality '{modality}'. {did_you_mean(str(modality), get_args(Modality))}")
    if unknown := sorted(set(splits) - set(get_args(SplitName))):
        raise PluginError(f"Unknown split '{unknown[0]}'. {did_you_mean(unknown[0], get_args(SplitName))}")
    if isinstance(choices, str) or not all(isinstance(choice, str) for choice in choices):
        raise PluginError(f"'choices' must be a list of texts, got {choices!r}. YAML needs quotes around yes and no.")
    if metric == "top1" and not choices:
        raise PluginError("The metric 'top1' needs 'choices': the classes to tell apart.")
    if num_frames < 1:
        raise PluginError(f"'num_frames' is {num_frames}, it must be 1 or more.")
    names = tuple(name for _, name, _, _ in Formatter().parse(instruction) if name is not None)
    classes = tuple(choices) if metric == "top1" else None
    return Task(
        modality=modality,
        load_split=_Lines(root, modality, names, classes, num_frames, tuple(splits)),
        prompt=PromptTemplate(task_tag=tag, instruction=instruction),
        metric=named_metric(metric, classes or ()),
        required_paths=tuple(root / f"{split}.jsonl" for split in splits),
        download_hint="your own; docs/tasks.md says what a line holds.",
        choices=tuple(choices),
        splits=tuple(splits),
    )


@dataclass(frozen=True)
class _Lines:
    """Reads a split.

    Attributes:
        root: folder with the files.
        modality: of the media.
        names: texts that a line must have.
        classes: the categories that a line may have; None for any.
        num_frames: of a video.
        splits: that there are.
    """

    root: Path
    modality: Modality
    names: tuple[str, ...]
    classes: tuple[str, ...] | None
    num_frames: int
    splits: tuple[SplitName, ...]

    def __call__(self, split: SplitName) -> TaskSplit:
        check_split(split, self.splits)
        path = self.root / f"{split}.jsonl"
        found = _Found(self, path, array("q"), array("q"), array("q"))
        visited: set[str] = set()
        for number, row in scan_json_lines(path):
            key = self.sample(row.value, path, number).id
            if key in visited:
                raise DataError(
                    f"{path}, line {number}: the id '{key}' was given before. Give each line its own, or none."
                )
            visited.add(key)
            found.starts.append(row.start)
            found.ends.append(row.end)
            found.numbers.append(number)
        if not found.numbers:
            raise DataError(f"{path} has no lines. Write one JSON object a line.")
        return TaskSplit(LazySamples(found, array("B", bytes([1]) * len(found.numbers))))

    def sample(self, row: Mapping[str, Any], path: Path, number: int) -> Sample:
        """The sample of a line."""
        where = f"{path}, line {number}"
        references = _references(row, where)
        answers = (field(row, "answer", str, where),) if "answer" in row else ()
        key = row.get("id", number)
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise DataError(f"{where}: 'id' must be a text or a whole number, it is {key!r}. Correct the row.")
        name = field(row, "category", str, where) if "category" in row else references[0] if self.classes else ""
        if self.classes is not None and name not in self.classes:
            raise DataError(f"{where}: '{name}' is none of the 'choices'. {did_you_mean(name, self.classes)}")
        texts = {name: text for name, text in row.items() if isinstance(text, str) and name not in _OWN}
        for wanted in self.names:
            if wanted not in texts:
                raise DataError(f"{where} has no text '{wanted}', which the instruction names. Add it.")
        turn = Turn(id=str(key), references=references, prompt_fields=texts, train_answers=answers, category=name)
        return Sample(id=str(key), media=self._media(row, where), turns=(turn,))

    def _media(self, row: Mapping[str, Any], where: str) -> Media:
        if self.modality == "image":
            return Image(self.root / field(row, "image", str, where))
        if self.modality == "video":
            return Video(self.root / field(row, "video", str, where), self.num_frames)
        paths: list[object] = field(row, "images", list, where)
        if len(paths) != 2 or not all(isinstance(path, str) for path in paths):
            raise DataError(
                f"{where}: 'images' must hold two paths, before and after; it is {paths!r}. Correct the row."
            )
        return Pair(*(self.root / str(path) for path in paths))


def _references(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    if "references" not in row:
        return (field(row, "answer", str, where),)
    references: list[str] = field(row, "references", list, where)
    if not references or not all(isinstance(text, str) for text in references):
        raise DataError(f"{where}: 'references' must hold texts, it is {references!r}. Correct the row.")
    return tuple(references)


@dataclass(frozen=True)
class _Found:
    """Where the lines of a file stand; makes the sample of an index."""

    lines: _Lines
    path: Path
    starts: "array[int]"
    ends: "array[int]"
    numbers: "array[int]"

    def __call__(self, index: int) -> Sample:
        row = read_row(self.path, self.starts[index], self.ends[index])
        return self.lines.sample(row, self.path, self.numbers[index])
