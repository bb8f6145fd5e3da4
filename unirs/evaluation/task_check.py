"""Reads all of a task's data and says what is in it and what is wrong with it: `unirs tasks check`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from unirs.data.prompt_encoder import PromptEncoder
from unirs.data.token_tree import IGNORE
from unirs.errors import DataError, MediaError
from unirs.evaluation.contact_sheet import write_samples
from unirs.metrics.base import Prediction
from unirs.tasks.media import Media
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, TaskSplit, Turn
from unirs.tasks.task import SplitName, Task
from unirs.utils.progress import progress_bar

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase


_CARDS = 8
"""Of each split."""

_SHOWN = 8
"""The most prompts, kinds and problems of a sort that are told."""

_BATCH = 10_000


@dataclass
class Report:
    """What a check found.

    Attributes:
        samples: by split, also those that a limit left out.
        turns: those looked at, by split and kind.
        dropped: turns that the protocol leaves out, by split and kind.
        prompts: a prompt as the model is given it, and the answer to learn; of each kind where the kind is asked.
        unit: what lengths count: `tokens` or `words`.
        prompt_lengths: how many answers have a prompt of that length; visual tokens do not count.
        answer_lengths: how many answers to learn have that length.
        problems: what is wrong, by the sort of fault.
        cards: sound samples, for the sheet.
    """

    unit: str
    samples: dict[SplitName, int] = field(default_factory=dict)
    turns: dict[SplitName, Counter[str]] = field(default_factory=dict)
    dropped: dict[SplitName, Mapping[str, int]] = field(default_factory=dict)
    prompts: dict[str, tuple[str, str]] = field(default_factory=dict)
    prompt_lengths: Counter[int] = field(default_factory=Counter)
    answer_lengths: Counter[int] = field(default_factory=Counter)
    problems: dict[str, list[str]] = field(default_factory=dict)
    cards: list[tuple[str, PromptTemplate, Sample]] = field(default_factory=list)

    def add(self, fault: str, what: str) -> None:
        """Adds a problem."""
        self.problems.setdefault(fault, []).append(what)

    def write_sheet(self, path: Path) -> None:
        """Draws samples of each split, with what is asked and what is learnt.

        Raises:
            DataError: no sample is sound.
        """
        write_samples(path, self.cards)

    def lines(self) -> Iterator[str]:
        """The report as text."""
        for split, count in self.samples.items():
            yield f"{split}: {count} samples; {self.turns[split].total()} turns looked at"
            yield from _counts("kinds", self.turns[split])
            yield from _counts("dropped", self.dropped[split])
        for kind, (prompt, answer) in islice(self.prompts.items(), _SHOWN):
            yield f"prompt{f' of {kind}' if kind else ''}, and what is learnt:"
            yield from (f"  | {line}" for line in [*prompt.splitlines(), f"-> {answer}"])
        for name, lengths in (("prompt", self.prompt_lengths), ("answer", self.answer_lengths)):
            if lengths:
                mean = sum(length * count for length, count in lengths.items()) / lengths.total()
                yield f"{self.unit} of a{'n' if name[0] == 'a' else ''} {name}: mean {mean:.1f}, most {max(lengths)}"
        for fault, found in self.problems.items():
            yield f"{fault}: {len(found)}"
            yield from (f"  {what}" for what in found[:_SHOWN])
            if len(found) > _SHOWN:
                yield f"  and {len(found) - _SHOWN} more"


def check_task(
    task: Task,
    *,
    limit: int | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = False,
) -> Report:
    """Reads all splits of a task.

    Finds: data that are missing or do not read; splits without samples; media that do not decode, or are of another
    kind than the task's; equal media in two splits, by their pixels; turns of one id; prompts that cannot be made;
    answers that are missing, empty, none of the choices, or wrong by the task's own metric (if that is exact).

    Args:
        task: what to check.
        limit: samples of each split that are looked at, spread over it; all where left out.
        tokenizer: renders prompts and counts tokens; where left out, words are counted.
        progress: show a progress bar where a person looks on.
    """
    check = _Check(task, None if tokenizer is None else PromptEncoder(tokenizer), Report(_unit(tokenizer)))
    for path in task.required_paths:
        if not path.exists():
            check.report.add("missing", f"{path}. Get the data: {task.download_hint}")
    chosen: dict[SplitName, tuple[TaskSplit, range]] = {}
    for split in () if check.report.problems else task.splits:
        try:
            samples = task.load_split(split)
        except DataError as error:
            check.report.add("does not read", str(error))
            continue
        step = 1 if limit is None else max(1, -(-len(samples) // limit))
        chosen[split] = samples, range(0, len(samples), step)
    total = sum(len(indices) for _, indices in chosen.values())
    with progress_bar("samples", total, unit="samples", show=progress) as advance:
        for split, (samples, indices) in chosen.items():
            advance(0, split)
            for _ in check.split(split, samples, indices):
                advance()
    return check.report


def _unit(tokenizer: PreTrainedTokenizerBase | None) -> str:
    return "words" if tokenizer is None else "tokens"


def _counts(name: str, counts: Mapping[str, int]) -> Iterator[str]:
    told = [f"{kind} {count}" for kind, count in sorted(counts.items()) if kind]
    more = f" and {len(told) - 4 * _SHOWN} more" if len(told) > 4 * _SHOWN else ""
    if told:
        yield f"  {name}: {', '.join(told[: 4 * _SHOWN])}{more}"


@dataclass
class _Check:
    task: Task
    renderer: PromptEncoder | None
    report: Report
    looked: dict[Media, bytes | None] = field(default_factory=dict)
    first: dict[bytes, tuple[SplitName, str]] = field(default_factory=dict)

    def split(self, split: SplitName, samples: TaskSplit, indices: range) -> Iterator[None]:
        """Checks samples of a split; yields after each."""
        report = self.report
        report.samples[split], report.turns[split], report.dropped[split] = (
            len(samples),
            Counter(),
            samples.num_excluded,
        )
        if not samples:
            report.add("does not read", f"split '{split}' has no samples")
        ids: set[str] = set()
        rows: list[Prediction] = []
        shown = set(indices[:: -(-len(indices) // _CARDS) or 1])
        for index in indices:
            sample = samples[index]
            sound = self._media(split, sample) and bool(sample.turns)
            if not sample.turns:
                report.add("no turns", f"{split}, {sample.id}")
            for turn in sample.turns:
                if turn.id in ids:
                    report.add("repeated id", f"{split}: {turn.id}")
                ids.add(turn.id)
                report.turns[split][turn.category] += 1
                answered = self._turn(split, sample, turn)
                sound = sound and bool(answered)
                rows += answered
            if sound and index in shown:
                # Samples often ask the same things in the same order.
                turn = sample.turns[index % len(sample.turns)]
                report.cards.append((split, self.task.prompt, replace(sample, turns=(turn,))))
            if len(rows) >= _BATCH or index == indices[-1]:
                self._score(rows)
                rows.clear()
            yield

    def _media(self, split: SplitName, sample: Sample) -> bool:
        """Whether the media decode; notes what they show."""
        media = sample.media
        if media.modality != self.task.modality:
            self.report.add(
                "another kind", f"{split}, {sample.id}: {media.modality}; the task's kind is {self.task.modality}"
            )
        if media not in self.looked:
            try:
                frames = media.load_frames()
            except MediaError as error:
                self.report.add("does not decode", f"{split}, {sample.id}: {error}")
                self.looked[media] = None
            else:
                digest = hashlib.blake2b(str(tuple(frames.shape)).encode(), digest_size=16)
                digest.update(frames.numpy().data)
                self.looked[media] = digest.digest()
        content = self.looked[media]
        if content is None:
            return False
        name = " and ".join(media.sources)
        other, path = self.first.setdefault(content, (split, name))
        if other != split:
            self.report.add("in two splits", f"{name} ({split}) shows the same as {path} ({other})")
        return True

    def _turn(self, split: SplitName, sample: Sample, turn: Turn) -> list[Prediction]:
        """The turn, answered as is learnt; nothing where its prompt or an answer is wrong."""
        report, where = self.report, f"{split}, {turn.id}"
        if not turn.references:
            report.add("no references", where)
            return []
        try:
            prompt = self.task.prompt(turn.prompt_fields)
            if self.renderer is not None:
                alone = replace(sample, turns=(turn,))
                for sequence in self.renderer.encode_train_flat(self.task.prompt, alone, 1, 0):
                    learnt = sum(label != IGNORE for label in sequence.labels)
                    report.answer_lengths[learnt] += 1
                    report.prompt_lengths[len(sequence.labels) - learnt] += 1
                prompt = self.renderer.render(self.task.prompt, turn, 1)
        except DataError as error:
            report.add("no prompt", f"{where}: {error}")
            return []
        shown_as = turn.category if self.task.scorer.category_is_given else ""
        report.prompts.setdefault(shown_as, (prompt, turn.targets[0]))
        choices = self.task.choices_for(turn.category)
        for answer in turn.targets:
            if self.renderer is None:
                report.answer_lengths[len(answer.split())] += 1
                report.prompt_lengths[len(prompt.split())] += 1
            if not answer.strip():
                report.add("empty answer", where)
            elif choices and answer not in choices:
                report.add("none of the choices", f"{where}: {answer!r}")
        files = sample.media.sources
        return [Prediction(where, "", files, turn.category, prompt, answer, turn.references) for answer in turn.targets]

    def _score(self, rows: Sequence[Prediction]) -> None:
        """Checks that what is learnt counts as right."""
        if not rows or not self.task.scorer.is_exact:
            return
        try:
            scores = self.task.scorer.evaluate(rows).scores
        except DataError as error:
            self.report.add("not scored", str(error))
            return
        for row, score in zip(rows, scores, strict=True):
            if score < 1:
                self.report.add(
                    "learnt but wrong", f"{row.id}: {row.text!r} is no right answer by {self.task.scorer.name}"
                )
