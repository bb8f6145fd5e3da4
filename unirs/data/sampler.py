"""Draws the training mixture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, cycle, islice
from typing import Any

import torch
from torch.utils.data import DistributedSampler

from unirs.errors import DataError


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
