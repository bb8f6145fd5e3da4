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
from torch.utils.data import Dataset, get_worker_info

from unirs.data.batch import SkippedSample
from unirs.data.frame_cache import FrameCache
from unirs.data.memory_features import FeatureKey, FeatureStore
from unirs.data.sampler import Draw
from unirs.errors import DataError, UniRSError
from unirs.metrics.box_frame import BoxFrame
from unirs.tasks.media import Media
from unirs.tasks.perturbation import Perturbation, PerturbedMedia
from unirs.tasks.sample import Sample, TaskSplit


@dataclass(frozen=True)
class Example:
    """A sample of a task, with the base VLM's clue.

    `augment` rotates and mirrors the frames at random; a `filler` has no weight in the loss. The example replaces the
    `skipped` ones. `box_frame` relates boxes to the encoder's frame, see `Collator`.
    """

    task: str
    sample: Sample
    clue: str = ""
    augment: bool = False
    filler: bool = False
    skipped: tuple[SkippedSample, ...] = ()
    box_frame: BoxFrame | None = None


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
        clues: clue of each media item that can be read; no clues if empty.
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
        # None for media that cannot be read, which the loader skips.
        clue = self.clues.get(media, "")
        return Example(self.task, replace(sample, media=media, turns=turns), clue, self.augment)

    def media(self, index: int) -> Media:
        """The media of a sample, perturbed as in the examples."""
        return self._perturbed(self.samples[index].media)

    def _perturbed(self, media: Media) -> Media:
        if self.perturbation is None or isinstance(media, PerturbedMedia):
            return media
        return PerturbedMedia(media, self.perturbation)


class VisualInput(NamedTuple):
    """The visual input of an example: either frames, uint8 `[k, 3, H, W]`, or cached features of them, `[k, L, Dv]`.

    Features of frames are to be cached under `feature_key`, if there is one.
    """

    frames: torch.Tensor | None = None
    vision_features: torch.Tensor | None = None
    feature_key: FeatureKey | None = None

    @property
    def num_frames(self) -> int:
        """k, tiles included."""
        given = self.vision_features if self.frames is None else self.frames
        return 0 if given is None else len(given)


@dataclass(frozen=True, eq=False)
class DecodedDataset(Dataset[tuple[Example, VisualInput]]):
    """Examples, of a dataset with a length, and their visual input: cached features or frames.

    With `check`, an example whose media or text cannot be read is replaced by the next one that can: batches keep their
    size, also in training on several processes. The replacement has no weight in a training loss; in an evaluation it
    is answered twice, and counts once. `check` raises a `DataError` for a text that cannot be encoded.
    """

    examples: Dataset[Example]
    frame_cache: FrameCache
    feature_cache: FeatureStore | None = None
    check: Callable[[Example, VisualInput], object] | None = None

    def __len__(self) -> int:
        return len(self.examples)  # type: ignore[arg-type]

    def __getitems__(self, indices: Sequence[int | Draw]) -> list[tuple[Example, VisualInput]] | UniRSError:
        """The items of a batch. In a worker, an error is returned: torch adds tracebacks to what workers raise."""
        try:
            return [self[index] for index in indices]
        except UniRSError as error:
            if get_worker_info() is None:
                raise
            return error

    def __getitem__(self, index: int | Draw) -> tuple[Example, VisualInput]:
        draw = index if isinstance(index, Draw) else Draw(index, int(torch.randint(2**62, ())))
        skipped: list[SkippedSample] = []
        for step in range(len(self)):
            example = self.examples[(draw.example + step) % len(self)]
            try:
                visual = self._visual_input(example, draw.seed)
                if self.check is not None:
                    self.check(example, visual)
            except DataError as error:
                if self.check is None:
                    raise
                sample = example.sample
                skipped.append(SkippedSample(example.task, sample.id, sample.media.sources, str(error)))
            else:
                filler = draw.filler or (isinstance(index, Draw) and bool(skipped))
                return replace(example, filler=filler, skipped=tuple(skipped)), visual
        raise DataError(f"None of {len(self)} samples can be read. The first error: {skipped[0].error}")

    def _visual_input(self, example: Example, seed: int) -> VisualInput:
        if example.augment:
            frames = self.frame_cache(example.sample)
            if len(frames) > example.sample.media.num_frames:
                raise DataError(
                    f"Task '{example.task}': 'augment' would rotate the tiles of an image, but not their order. Omit "
                    "it, or set the encoder's 'max_tiles' to 0."
                )
            return VisualInput(_augment(frames, seed))
        if self.feature_cache is None:
            return VisualInput(self.frame_cache(example.sample))
        media = example.sample.media
        key = FeatureKey(media.content_key(), media.sources)
        cached = self.feature_cache.get(key)
        if cached is not None:
            return VisualInput(vision_features=cached)
        frames = self.frame_cache.load(example.sample)
        # A file may have changed under way: then it is unknown whose features these are.
        return VisualInput(frames, feature_key=key if media.content_key() == key.digest else None)


def is_readable(media: Media) -> bool:
    """Whether all frames of an input decode."""
    try:
        media.load_frames((8, 8))
    except DataError:
        return False
    return True


def _augment(frames: torch.Tensor, seed: int) -> torch.Tensor:
    """One of the eight rotations and reflections of square frames, or of the four of other frames."""
    quarters, mirrored = divmod(seed % 8, 2)
    if mirrored:
        frames = frames.flip(-1)
    square = frames.shape[-1] == frames.shape[-2]
    return torch.rot90(frames, quarters if square else 2 * (quarters % 2), (-2, -1))
