"""Reads all of a task's data, and reports contents and problems: `unirs tasks check`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from unirs.data.prompt_encoder import PromptEncoder
from unirs.data.token_tree import IGNORE
from unirs.errors import DataError, MediaError
from unirs.metrics.base import Prediction
from unirs.tasks.media import Media, frame_labels
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, TaskSplit, Turn
from unirs.tasks.task import SplitName, Task
from unirs.tasks.video_reader import DEFAULT_READER, RefusedVideoError, create_reader
from unirs.utils.progress import progress_bar

if TYPE_CHECKING:
    import torch
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from unirs.data.processor import Processor

_CARDS = 8  # samples of each split on the contact sheet
_MAX_LISTED = 8  # prompts, and problems of a type
_CHUNK = 10_000  # rows that are scored at once


@dataclass
class TaskCheck:
    """A check of a task: numbers of samples, turns, and prompts and target answers by length, and problems by type."""

    task: Task
    encoder: PromptEncoder | None  # lengths are counted in tokens, without visual tokens; without it in words
    processor: Processor | None = None  # of the model whose visual tokens are counted
    video_reader: str = DEFAULT_READER  # its frames are compared with those of the default
    videos: Counter[str] = field(default_factory=Counter)  # that were compared, differ, or are refused
    samples: dict[SplitName, int] = field(default_factory=dict)  # with those that the limit excludes
    turns: dict[SplitName, Counter[str]] = field(default_factory=dict)  # by category
    excluded: dict[SplitName, Mapping[str, int]] = field(default_factory=dict)  # turns, by the protocol
    prompts: dict[str, tuple[str, str]] = field(default_factory=dict)  # with target; by category if it is given
    prompt_lengths: Counter[int] = field(default_factory=Counter)
    answer_lengths: Counter[int] = field(default_factory=Counter)
    visual_tokens: Counter[int] = field(default_factory=Counter)  # of different media
    problems: dict[str, list[str]] = field(default_factory=dict)
    examples: list[tuple[str, PromptTemplate, Sample]] = field(default_factory=list)  # for `write_samples`
    _digests: dict[Media, bytes | None] = field(default_factory=dict)  # of the pixels
    _first: dict[bytes, tuple[SplitName, str]] = field(default_factory=dict)  # split and name of media, by digest

    def add(self, problem: str, description: str) -> None:
        """Adds a problem of a type."""
        self.problems.setdefault(problem, []).append(description)

    def lines(self) -> Iterator[str]:
        """The report as text."""
        unit = "words" if self.encoder is None else "tokens"
        for split, count in self.samples.items():
            yield f"{split}: {count} samples; {self.turns[split].total()} turns checked"
            yield from _counts("categories", self.turns[split])
            yield from _counts("excluded", self.excluded[split])
        for category, (prompt, answer) in islice(self.prompts.items(), _MAX_LISTED):
            yield f"prompt{f' of {category}' if category else ''}, and target answer:"
            yield from (f"  | {line}" for line in [*prompt.splitlines(), f"-> {answer}"])
        for name, lengths in (("a prompt", self.prompt_lengths), ("an answer", self.answer_lengths)):
            if lengths:
                mean = sum(length * count for length, count in lengths.items()) / lengths.total()
                yield f"{unit} of {name}: mean {mean:.1f}, max {max(lengths)}"
        if self.visual_tokens:
            mean = sum(count * media for count, media in self.visual_tokens.items()) / self.visual_tokens.total()
            yield f"visual tokens of an input: mean {mean:.1f}, max {max(self.visual_tokens)}"
        if self.videos:
            counts = ", ".join(f"{self.videos[name]} {name}" for name in ("compared", "differ", "refused"))
            yield f"videos of the reader {self.video_reader}: {counts}"
        for problem, found in self.problems.items():
            yield f"{problem}: {len(found)}"
            yield from (f"  {description}" for description in found[:_MAX_LISTED])
            if len(found) > _MAX_LISTED:
                yield f"  and {len(found) - _MAX_LISTED} more"

    def check_split(self, split: SplitName, samples: TaskSplit, indices: range) -> Iterator[None]:
        """Checks samples of a split; yields after each."""
        self.samples[split], self.turns[split] = len(samples), Counter()
        self.excluded[split] = samples.num_excluded
        if not samples:
            self.add("not readable", f"split '{split}' has no samples")
        ids: set[str] = set()
        rows: list[Prediction] = []
        examples = set(indices[:: -(-len(indices) // _CARDS) or 1])
        exact = samples.with_video_reader(DEFAULT_READER)
        samples = samples.with_video_reader(self.video_reader)
        for index in indices:
            sample = samples[index]
            valid = self._media(split, sample, exact[index].media) and bool(sample.turns)
            if not sample.turns:
                self.add("no turns", f"{split}, {sample.id}")
            for turn in sample.turns:
                if turn.id in ids:
                    self.add("repeated id", f"{split}: {turn.id}")
                ids.add(turn.id)
                self.turns[split][turn.category] += 1
                targets = self._targets(split, sample, turn)
                valid = valid and bool(targets)
                rows += targets
            if valid and index in examples:
                # Samples often have the same questions in the same order.
                turn = sample.turns[index % len(sample.turns)]
                self.examples.append((split, self.task.prompt, replace(sample, turns=(turn,))))
            if len(rows) >= _CHUNK or index == indices[-1]:
                self._score(rows)
                rows.clear()
            yield

    def _media(self, split: SplitName, sample: Sample, exact: Media) -> bool:
        """Whether the media decode. Videos of another reader are compared with `exact`, those of the default reader."""
        media, name = sample.media, f"{split}, {sample.id}"
        if media.modality != self.task.modality:
            self.add("another modality", f"{name}: {media.modality}; that of the task is {self.task.modality}")
        if media not in self._digests:
            try:
                frames = media.load_frames()
            except MediaError as error:
                refused = isinstance(error, RefusedVideoError)
                self.videos.update(["refused"] if refused else [])
                self.add("refused" if refused else "does not decode", f"{name}: {error}")
                self._digests[media] = None
            else:
                if media != exact:
                    self._compare(name, frames, exact)
                if self.processor is not None:
                    height, width = frames.shape[-2:]
                    self.visual_tokens[self.processor.num_visual_tokens(media, (height, width))] += 1
                digest = hashlib.blake2b(str(tuple(frames.shape)).encode(), digest_size=16)
                digest.update(frames.numpy().data)
                self._digests[media] = digest.digest()
        content = self._digests[media]
        if content is not None:
            files = " and ".join(media.sources)
            other_split, other_files = self._first.setdefault(content, (split, files))
            if other_split != split:
                self.add("in two splits", f"{files} ({split}) has the pixels of {other_files} ({other_split})")
        return content is not None

    def _compare(self, name: str, frames: torch.Tensor, exact: Media) -> None:
        """Compares the frames of a video with those of the default reader."""
        self.videos.update(["compared"])
        try:
            expected = exact.load_frames()
        except MediaError as error:
            problem = f"{DEFAULT_READER} does not decode it: {error}"
        else:
            if frames.equal(expected):
                return
            differing = sum(not one.equal(other) for one, other in zip(frames, expected, strict=True))
            problem = f"{differing} of {len(frames)} frames of {', '.join(exact.sources)}"
        self.videos.update(["differ"])
        self.add(f"differs from {DEFAULT_READER}", f"{name}: {problem}")

    def _targets(self, split: SplitName, sample: Sample, turn: Turn) -> list[Prediction]:
        """A row for each target answer of a turn; none if its prompt or references are wrong."""
        name = f"{split}, {turn.id}"
        if not turn.references:
            self.add("no references", name)
            return []
        try:
            prompt = self.task.prompt(turn.prompt_fields)
            if self.encoder is not None:
                labels = frame_labels(sample.media)
                images, one = len(labels) or 1, replace(sample, turns=(turn,))
                for tree in self.encoder.encode_train_flat(self.task.prompt, one, images, 0):
                    length = sum(label != IGNORE for label in tree.labels)
                    self.answer_lengths[length] += 1
                    self.prompt_lengths[len(tree.labels) - length] += 1
                prompt = self.encoder.render(self.task.prompt, turn, images, labels=labels)
        except DataError as error:
            self.add("no prompt", f"{name}: {error}")
            return []
        given = turn.category if self.task.scorer.category_is_given else ""
        self.prompts.setdefault(given, (prompt, turn.targets[0]))
        choices = self.task.choices_for(turn.category)
        for answer in turn.targets:
            if self.encoder is None:
                self.answer_lengths[len(answer.split())] += 1
                self.prompt_lengths[len(prompt.split())] += 1
            if not answer.strip():
                self.add("empty answer", name)
            elif choices and answer not in choices:
                self.add("none of the choices", f"{name}: {answer!r}")
        files = sample.media.sources
        return [Prediction(name, "", files, turn.category, prompt, answer, turn.references) for answer in turn.targets]

    def _score(self, rows: Sequence[Prediction]) -> None:
        """Checks that an exact metric counts target answers as right."""
        scorer = self.task.scorer
        if not rows or not scorer.is_exact:
            return
        try:
            scores = scorer.evaluate(rows).scores
        except DataError as error:
            self.add("not scored", str(error))
            return
        for row, score in zip(rows, scores, strict=True):
            if score < 1:
                self.add("wrong target answer", f"{row.id}: {row.text!r} is not right by {scorer.name}")


def check_task(
    task: Task,
    *,
    limit: int | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    processor: Processor | None = None,
    video_reader: str = DEFAULT_READER,
    progress: bool = False,
) -> TaskCheck:
    """Reads all splits of a task.

    Problems: data that are missing or not readable; splits without samples; media that do not decode, that have another
    modality than the task, or whose pixels are in two splits; repeated ids; prompts that do not render; answers that
    are missing, empty, none of the choices, or wrong by the task's own metric (if that is exact). `limit` samples of
    each split are checked, spread over it. Without a tokenizer, words are counted. With the `processor` of a model, its
    visual tokens are counted, and tokens of texts with its tokenizer unless another is given.

    The frames that another `video_reader` than the default decodes are compared with those of the default; videos that
    differ, or that it refuses, are problems.
    """
    create_reader(video_reader)  # to raise its errors early
    tokenizer = tokenizer or (None if processor is None else processor.tokenizer)
    encoder = None if tokenizer is None else PromptEncoder(tokenizer)
    check = TaskCheck(task, encoder, processor, video_reader)
    for path in task.required_paths:
        if not path.exists():
            check.add("missing", f"{path}. Get the data: {task.download_hint}")
    chosen: dict[SplitName, tuple[TaskSplit, range]] = {}
    for split in () if check.problems else task.splits:
        try:
            samples = task.load_split(split)
        except DataError as error:
            check.add("not readable", str(error))
            continue
        step = 1 if limit is None else max(1, -(-len(samples) // limit))
        chosen[split] = samples, range(0, len(samples), step)
    total = sum(len(indices) for _, indices in chosen.values())
    with progress_bar("samples", total, unit="samples", show=progress) as advance:
        for split, (samples, indices) in chosen.items():
            advance(0, split)
            for _ in check.check_split(split, samples, indices):
                advance()
    return check


def _counts(name: str, counts: Mapping[str, int]) -> Iterator[str]:
    texts, limit = [f"{category} {count}" for category, count in sorted(counts.items()) if category], 4 * _MAX_LISTED
    if texts:
        more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
        yield f"  {name}: {', '.join(texts[:limit])}{more}"
