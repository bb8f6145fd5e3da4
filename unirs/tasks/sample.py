"""Samples of a task: media, and one or several questions about them with their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from unirs.tasks.media import Media


@dataclass(frozen=True, slots=True)
class Turn:
    """A question about the media, and its answers.

    The turns of a sample are independent: each attends to the media and itself, never to another turn.

    Attributes:
        id: unique within the task and split.
        references: texts to score an answer against; at least one.
        prompt_fields: texts that the task's prompt may name, e.g. `{"question": "Is there a road?"}`.
        train_answers: texts to train on; `references` by default.
        category: question type, class, or `changed` / `unchanged`; scores are split by it.
    """

    id: str
    references: tuple[str, ...]
    prompt_fields: Mapping[str, str] = field(default_factory=dict)
    train_answers: tuple[str, ...] = ()
    category: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        """The texts to train on."""
        return self.train_answers or self.references


@dataclass(frozen=True, slots=True)
class Sample:
    """Media and at least one turn about them; `id` is unique within the task and split."""

    id: str
    media: Media
    turns: tuple[Turn, ...]


class LazySamples(Sequence[Sample]):
    """Samples that are made on access, for data sets that are too large for memory as objects.

    Args:
        make: makes the sample of an index; equal ones each time.
        turns: number of turns of each sample.
    """

    def __init__(self, make: Callable[[int], Sample], turns: Sequence[int]) -> None:
        self._make = make
        self.turns = turns

    def __len__(self) -> int:
        return len(self.turns)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        chosen = range(len(self))[index]
        return self._make(chosen) if isinstance(chosen, int) else [self._make(each) for each in chosen]


class TaskSplit(Sequence[Sample]):
    """The samples of one split.

    Args:
        samples: in an order that is the same on every machine.
        num_excluded: number of turns that the protocol excludes, by category; reported with the results.
    """

    def __init__(self, samples: Sequence[Sample], num_excluded: Mapping[str, int] | None = None) -> None:
        self._samples = samples
        self.num_excluded = dict(num_excluded or {})

    def __len__(self) -> int:
        return len(self._samples)

    def turns(self, index: int) -> int:
        """Number of turns of a sample, which is not made for it."""
        samples = self._samples
        return samples.turns[index] if isinstance(samples, LazySamples) else len(samples[index].turns)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        return self._samples[index]
