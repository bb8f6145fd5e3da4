"""Datasets of examples, and of examples with their decoded media."""

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
from unirs.data.sampler import Draw
from unirs.tasks.media import Media
from unirs.tasks.perturbation import Perturbation, PerturbedMedia
from unirs.tasks.sample import Sample, TaskSplit


@dataclass(frozen=True)
class Example:
    """A sample of a task, with the base VLM's clue.

    `augment` rotates and mirrors the frames at random; a `filler` has no weight in the loss.
    """

    task: str
    sample: Sample
    clue: str = ""
    augment: bool = False
    filler: bool = False


@dataclass(frozen=True)
class TaskDataset(Dataset[Example]):
    """Examples of one task, created on access to save memory.

    Attributes:
        task: name of the task.
        samples: one split of the task.
        indices: indices of the samples to use, in order.
        max_turns: maximum number of turns of an example; a sample with more turns is split. None for no limit.
        perturbation: change of the media for a sanity baseline, or None.
        augment: whether the frames are rotated and mirrored at random.
        clues: clue of each media item; no clues if empty.
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
        limit = self.max_turns
        chunks = (1 if limit is None else math.ceil(self.samples.turns(index) / limit) for index in self.indices)
        object.__setattr__(self, "_ends", array("q", accumulate(chunks)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Example:
        position = bisect_right(self._ends, index)
        start = self._ends[position - 1] if position else 0
        sample = self.samples[self.indices[position]]
        # Strided, since files may group questions by type.
        turns = sample.turns[index - start :: self._ends[position] - start]
        media = self._perturbed(sample.media)
        clue = self.clues[media] if self.clues else ""
        return Example(self.task, replace(sample, media=media, turns=turns), clue, self.augment)

    def media(self, index: int) -> Media:
        """The media of a sample, perturbed as in the examples."""
        return self._perturbed(self.samples[index].media)

    def _perturbed(self, media: Media) -> Media:
        if self.perturbation is None or isinstance(media, PerturbedMedia):
            return media
        return PerturbedMedia(media, self.perturbation)


class VisualInput(NamedTuple):
    """The visual input of an example: either frames, uint8 `[k, 3, H, W]`, or cached features of them, `[k, L, Dv]`."""

    frames: torch.Tensor | None = None
    vision_features: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class DecodedDataset(Dataset[tuple[Example, VisualInput]]):
    """Examples, of a dataset with a length, and their visual input: cached features or frames that `decode` returns."""

    examples: Dataset[Example]
    decode: Callable[[Sample], torch.Tensor]
    feature_cache: FeatureCache | None = None

    def __len__(self) -> int:
        return len(self.examples)  # type: ignore[arg-type]

    def __getitem__(self, index: int | Draw) -> tuple[Example, VisualInput]:
        draw = index if isinstance(index, Draw) else Draw(index, int(torch.randint(2**62, ())))
        example = self.examples[draw.example]
        if draw.filler:
            example = replace(example, filler=True)
        if example.augment:
            return example, VisualInput(_augment(self.decode(example.sample), draw.seed))
        cached = None if self.feature_cache is None else self.feature_cache.get(example.sample.media)
        if cached is not None:
            return example, VisualInput(vision_features=cached)
        return example, VisualInput(self.decode(example.sample))


def _augment(frames: torch.Tensor, seed: int) -> torch.Tensor:
    """One of the eight rotations and reflections of square frames, or of the four of other frames."""
    quarters, mirrored = divmod(seed % 8, 2)
    if mirrored:
        frames = frames.flip(-1)
    square = frames.shape[-1] == frames.shape[-2]
    return torch.rot90(frames, quarters if square else 2 * (quarters % 2), (-2, -1))
