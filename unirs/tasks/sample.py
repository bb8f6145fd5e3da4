"""What a task's dataset yields: media, and one or several turns of question and answer about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from unirs.tasks.media import Media


@dataclass(frozen=True, slots=True)
class Turn:
    """One question about the media and what to answer.

    The turns of a sample are independent: each sees the media and itself, never another turn.

    Attributes:
        id: unique within the task and split.
        prompt_fields: what the task's prompt may name, e.g. `{"question": "Is there a road?"}`.
        references: the texts an answer is scored against; at least one.
        train_answers: the texts to learn; `references` where left out.
        category: what scores are split by: question type, class, or `changed` / `unchanged`.
    """

    id: str
    references: tuple[str, ...]
    prompt_fields: Mapping[str, str] = field(default_factory=dict)
    train_answers: tuple[str, ...] = ()
    category: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        """The texts to learn."""
        return self.train_answers or self.references


@dataclass(frozen=True, slots=True)
class Sample:
    """Media and the turns about them.

    Attributes:
        id: unique within the task and split.
        media: what is shown.
        turns: at least one.
    """

    id: str
    media: Media
    turns: tuple[Turn, ...]


class LazySamples(Sequence[Sample]):
    """Samples that are made when they are asked for, of data sets too large to stand in memory as objects.

    Args:
        make: makes the sample of an index; the same each time.
        turns: how many turns each sample has.
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
        return self._make(chosen) if isinstance(chosen, int) else [self._make(one) for one in chosen]


class TaskSplit(Sequence[Sample]):
    """The samples of one split, and how many turns the protocol excludes, by category.

    Args:
        samples: in a fixed order, the same on every machine.
        num_excluded: excluded turns by category; printed beside the results.
    """

    def __init__(self, samples: Sequence[Sample], num_excluded: Mapping[str, int] | None = None) -> None:
        self._samples = samples
        self.num_excluded = dict(num_excluded or {})

    def __len__(self) -> int:
        return len(self._samples)

    def turns(self, index: int) -> int:
        """How many turns a sample has, without making it where it is not in memory."""
        samples = self._samples
        return samples.turns[index] if isinstance(samples, LazySamples) else len(samples[index].turns)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        return self._samples[index]
