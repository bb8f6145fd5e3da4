"""From samples to batches: which are drawn, what is shown of them, and how they are put together."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, cycle, islice
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, DistributedSampler

from unirs.batch import Batch, collate, pack
from unirs.errors import DataError
from unirs.features import FeatureCache
from unirs.media import Alteration, Altered, Media
from unirs.metrics.base import Prediction
from unirs.prompt import Prompt, Renderer
from unirs.sample import Sample, Split, Turn

_ROOM = 256
"""Tokens of questions in a row of an evaluation: attention costs less where they are few, all else where many."""


@dataclass(frozen=True)
class Item:
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


class MixtureSampler(DistributedSampler[Any]):
    """Draws an epoch from concatenated groups of samples, each as often as its weight says, in random order.

    A weight of 2.5 shows each sample twice and a random half of them once more. The groups are spread evenly over the
    epoch, so that every batch holds nearly the same mixture: less noise in the gradients, and few shapes for kernels
    that are made and cached shape by shape. Every process takes its share of the same order, and the order depends on
    seed and epoch only.

    Args:
        sizes: samples of each group.
        weights: one for each group.
        num_replicas: processes.
        rank: this process.
        seed: of the order.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], num_replicas: int, rank: int, seed: int) -> None:
        self.sizes = list(sizes)
        self.weights = list(weights)
        total = sum(round(size * weight) for size, weight in zip(sizes, weights, strict=True))
        if total == 0:
            raise DataError("The mixture is empty: every task has weight 0 or no samples.")
        super().__init__(range(total), num_replicas, rank, shuffle=True, seed=seed)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        # Each group's draws at even distances, from a random place on, and all of them sorted by place.
        placed: list[tuple[float, int]] = []
        start = 0
        for size, weight in zip(self.sizes, self.weights, strict=True):
            count = round(size * weight)
            passes = (torch.randperm(size, generator=generator).tolist() for _ in range(math.ceil(weight)))
            drawn = list(islice(chain.from_iterable(passes), count))
            offset = float(torch.rand((), generator=generator))
            placed += [((place + offset) / count, start + index) for place, index in enumerate(drawn)]
            start += size
        order = [index for _, index in sorted(placed)]
        # Begun again, so that all processes get equally many, were there fewer samples than processes.
        return islice(cycle(order), self.rank, self.total_size, self.num_replicas)


@dataclass(frozen=True, eq=False)
class Collator:
    """Makes a batch of decoded items; turns of a sample stand in common sequences where the model takes branches.

    Attributes:
        renderer: makes token ids.
        prompts: of each task.
        grids: how many pictures' worth of visual tokens a medium costs.
        tokens: visual tokens a picture.
        training: whether answers are in the sequences.
        branches: whether the model takes sequences that branch.
    """

    renderer: Renderer
    prompts: Mapping[str, Prompt]
    grids: Callable[[Media], int]
    tokens: int
    training: bool
    branches: bool = True

    def __call__(self, items: Sequence[tuple[Item, Shown]]) -> Batch:
        """Batches items and what they show."""
        media = tuple(None if item.augment else item.sample.media for item, _ in items)
        return replace(self._batch(items), media=media)

    def _batch(self, items: Sequence[tuple[Item, Shown]]) -> Batch:
        frames, features = [shown.frames for _, shown in items], [shown.features for _, shown in items]
        kinds = [item.sample.media.kind for item, _ in items]
        grids = [self.grids(item.sample.media) for item, _ in items]
        if self.training:
            asked = [
                (self.prompts[item.task], item.sample, count, self.tokens, item.clue)
                for (item, _), count in zip(items, grids, strict=True)
            ]
            if self.branches:
                rows, owners = pack([self.renderer.training(*one) for one in asked])
                return collate(frames, kinds, rows, owners, features=features)
            plain = [(row, (owner,)) for owner, one in enumerate(asked) for row in self.renderer.unbranched(*one)]
            rows, owners = [row for row, _ in plain], [owner for _, owner in plain]
            return collate(frames, kinds, rows, owners, features=features)
        sequences, of, order = [], [], []
        told: list[Prediction] = []
        room = _ROOM if self.branches else 0
        for owner, ((item, _), count) in enumerate(zip(items, grids, strict=True)):
            prompt = self.prompts[item.task]
            for sequence, turns in self.renderer.asking(prompt, item.sample, count, self.tokens, item.clue, room):
                sequences.append(sequence)
                of.append((owner,))
                order += [len(told) + turn for turn in turns]
            told += [_row(item, turn, self.renderer.text(prompt, turn, count, item.clue)) for turn in item.sample.turns]
        batch = collate(frames, kinds, sequences, of, left=not self.branches, features=features)
        asks = dict(zip(order, batch.asks, strict=True))
        return replace(batch, asks=tuple(asks[question] for question in range(len(told))), rows=tuple(told))


@dataclass(frozen=True)
class TaskItems(Dataset[Item]):
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
    samples: Split
    order: Sequence[int]
    max_turns: int | None
    alter: Alteration | None = None
    augment: bool = False
    clues: Mapping[Media, str] = field(default_factory=dict)
    _ends: array[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        most = self.max_turns
        parts = (1 if most is None else math.ceil(self.samples.turns(index) / most) for index in self.order)
        object.__setattr__(self, "_ends", array("q", accumulate(parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Item:
        place = bisect_right(self._ends, index)
        start = self._ends[place - 1] if place else 0
        sample = self.samples[self.order[place]]
        # Strided, so that questions which the file groups by type are spread over the parts.
        turns = sample.turns[index - start :: self._ends[place] - start]
        clue = self.clues[sample.media] if self.clues else ""
        media = sample.media
        if self.alter is not None and not isinstance(media, Altered):
            media = Altered(media, self.alter)
        return Item(self.task, replace(sample, media=media, turns=turns), clue, self.augment)


class Shown(NamedTuple):
    """A medium for the model: one of the two.

    Attributes:
        frames: uint8 `[k, 3, H, W]`.
        features: what the encoder sees in them, `[k, L, Dv]`, where that is kept.
    """

    frames: torch.Tensor | None = None
    features: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Items(Dataset[tuple[Item, Shown]]):
    """Items with what they show.

    Attributes:
        items: of a known length.
        decode: gives a sample's frames, uint8 `[k, 3, H, W]`.
        features: where those of a frozen encoder are looked for.
    """

    items: Dataset[Item]
    decode: Callable[[Sample], torch.Tensor]
    features: FeatureCache | None = None

    def __len__(self) -> int:
        return len(self.items)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Item, Shown]:
        item = self.items[index]
        if item.augment:
            return item, Shown(_turned(self.decode(item.sample)))
        known = None if self.features is None else self.features.get(item.sample.media)
        return item, Shown(self.decode(item.sample)) if known is None else Shown(features=known)


def _turned(frames: torch.Tensor) -> torch.Tensor:
    """One of the eight ways to look down at the same place; of four where frames are not square."""
    quarters, mirrored = divmod(int(torch.randint(8, ())), 2)
    if mirrored:
        frames = frames.flip(-1)
    square = frames.shape[-1] == frames.shape[-2]
    return torch.rot90(frames, quarters if square else 2 * (quarters % 2), (-2, -1))


def _row(item: Item, turn: Turn, prompt: str) -> Prediction:
    media = tuple(map(str, item.sample.media.paths))
    return Prediction(turn.id, item.task, media, turn.kind, prompt, "", turn.references, item.clue)
