"""From samples to batches: which are drawn, what is shown of them, and how they are put together."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from unirs.data.feature_cache import FeatureCache
from unirs.tasks.media import Media, Perturbation, PerturbedMedia
from unirs.tasks.sample import Sample, TaskSplit


@dataclass(frozen=True)
class Example:
    """A sample of a task.

    Attributes:
        task: its name.
        sample: with the turns to ask.
        clue: what a base VLM says about it.
        augment: show it turned and mirrored at random.
    """

    task: str
    sample: Sample
    clue: str = ""
    augment: bool = False


@dataclass(frozen=True)
class TaskDataset(Dataset[Example]):
    """Samples of a task as items, made when they are asked for: large data sets need not stand in memory as objects.

    Attributes:
        task: its name.
        samples: of one of its splits.
        order: which of them, and in which order.
        max_turns: the most turns of an item; a sample with more of them becomes several. None for all.
        alter: how its media are shown, if not as they are.
        augment: as in `Item`.
        clues: by medium; none where empty.
    """

    task: str
    samples: TaskSplit
    indices: Sequence[int]
    max_turns: int | None
    perturbation: Perturbation | None = None
    augment: bool = False
    clues: Mapping[Media, str] = field(default_factory=dict)
    _ends: array[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        most = self.max_turns
        parts = (1 if most is None else math.ceil(self.samples.turns(index) / most) for index in self.indices)
        object.__setattr__(self, "_ends", array("q", accumulate(parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Example:
        place = bisect_right(self._ends, index)
        start = self._ends[place - 1] if place else 0
        sample = self.samples[self.indices[place]]
        # Strided, so that questions which the file groups by type are spread over the parts.
        turns = sample.turns[index - start :: self._ends[place] - start]
        clue = self.clues[sample.media] if self.clues else ""
        media = sample.media
        if self.perturbation is not None and not isinstance(media, PerturbedMedia):
            media = PerturbedMedia(media, self.perturbation)
        return Example(self.task, replace(sample, media=media, turns=turns), clue, self.augment)


class VisualInput(NamedTuple):
    """A medium for the model: one of the two.

    Attributes:
        frames: uint8 `[k, 3, H, W]`.
        features: what the encoder sees in them, `[k, L, Dv]`, where that is kept.
    """

    frames: torch.Tensor | None = None
    vision_features: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class DecodedDataset(Dataset[tuple[Example, VisualInput]]):
    """Items with what they show.

    Attributes:
        items: of a known length.
        decode: gives a sample's frames, uint8 `[k, 3, H, W]`.
        features: where those of a frozen encoder are looked for.
    """

    examples: Dataset[Example]
    decode: Callable[[Sample], torch.Tensor]
    feature_cache: FeatureCache | None = None

    def __len__(self) -> int:
        return len(self.examples)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Example, VisualInput]:
        item = self.examples[index]
        if item.augment:
            return item, VisualInput(_augment(self.decode(item.sample)))
        known = None if self.feature_cache is None else self.feature_cache.get(item.sample.media)
        return item, VisualInput(self.decode(item.sample)) if known is None else VisualInput(vision_features=known)


def _augment(frames: torch.Tensor) -> torch.Tensor:
    """One of the eight ways to look down at the same place; of four where frames are not square."""
    quarters, mirrored = divmod(int(torch.randint(8, ())), 2)
    if mirrored:
        frames = frames.flip(-1)
    square = frames.shape[-1] == frames.shape[-2]
    return torch.rot90(frames, quarters if square else 2 * (quarters % 2), (-2, -1))
