"""Samples of a task: media, and one or several questions about them with their answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

from unirs.errors import DataError, MediaError
from unirs.tasks.inputs import with_raster
from unirs.tasks.media import Media, media_files, with_reader
from unirs.tasks.raster import Raster


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
        self._root: Path | None = None
        self._reader: str | None = None
        self._raster: Raster | None = None
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
        found = self._samples[index]
        return self._checked(found) if isinstance(found, Sample) else [self._checked(sample) for sample in found]

    def _checked(self, sample: Sample) -> Sample:
        if self._root is not None:
            _check_inside(sample, self._root)
        media = sample.media
        if self._reader is not None:
            media = with_reader(media, self._reader)
        if self._raster is not None:
            try:
                media = with_raster(media, self._raster)
            except MediaError as error:
                raise DataError(f"Sample '{sample.id}': {error}") from error
        return sample if media is sample.media else replace(sample, media=media)

    def inside(self, root: Path) -> TaskSplit:
        """The same samples, which raise a `DataError` on access if a media file is not below `root`.

        Paths are compared, so that a link of the user may lead elsewhere.
        """
        split = copy(self)
        split._root = root
        return split

    def with_video_reader(self, reader: str) -> TaskSplit:
        """The same samples; their videos that have no reader of their own are decoded by this one."""
        split = copy(self)
        split._reader = reader
        return split

    def with_raster(self, raster: Raster) -> TaskSplit:
        """The same samples; their media that have no options of a raster get these, and must be GeoTIFF files."""
        split = copy(self)
        split._raster = raster
        return split


def _check_inside(sample: Sample, root: Path) -> None:
    for path in media_files(sample.media):
        if not os.path.abspath(path).startswith(os.path.join(os.path.abspath(root), "")):  # noqa: PTH100, PTH118
            raise DataError(
                f"Sample '{sample.id}' names {path}, which is outside of the task's root {root}. Correct the row, or "
                "set 'allow_outside_root: true' for the task."
            )
