"""The sampler of the training mixture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from torch.utils.data import DistributedSampler

from unirs.errors import DataError


class Draw(NamedTuple):
    """One draw of a training epoch.

    Attributes:
        example: its index.
        seed: of everything that is random about it, such as its augmentation; differs between draws of one example.
        filler: whether it only gives this process as many examples as the others; it has no weight in the loss.
    """

    example: int
    seed: int
    filler: bool = False


class MixtureSampler(DistributedSampler[Any]):
    """Samples an epoch from concatenated groups in random order, each group `weight` times.

    A weight of 2.5 yields each sample twice, and a random half of the samples once more. The groups are spread evenly
    over the epoch, so that all batches contain nearly the same mixture: less gradient noise, and fewer shapes to
    compile kernels for. The order depends on seed and epoch only. Each process takes its share of every group in a
    step, so that none waits for another's videos.

    Attributes:
        start: number of draws of this process that the next iteration skips, to resume within an epoch.

    Args:
        sizes: number of samples of each group.
        weights: weight of each group.
        num_replicas: number of processes.
        rank: of this process.
        seed: of the order.
        batch_size: number of draws in a batch of a process.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float],
        num_replicas: int,
        rank: int,
        seed: int,
        batch_size: int,
    ) -> None:
        self.sizes = list(sizes)
        self.weights = list(weights)
        self.start = 0
        self._step_size = num_replicas * batch_size
        total = sum(round(size * weight) for size, weight in zip(sizes, weights, strict=True))
        if total == 0:
            raise DataError("The mixture is empty: every task has weight 0 or no samples.")
        super().__init__(range(total), num_replicas, rank, shuffle=True, seed=seed)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Draw]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        # Draws of each group at even distances from a random offset; then all draws sorted by position.
        positioned: list[tuple[float, int]] = []
        start = 0
        for size, weight in zip(self.sizes, self.weights, strict=True):
            count = round(size * weight)
            passes = (torch.randperm(size, generator=generator).tolist() for _ in range(math.ceil(weight)))
            drawn = list(islice(chain.from_iterable(passes), count))
            offset = float(torch.rand((), generator=generator))
            positioned += [((position + offset) / count, start + index) for position, index in enumerate(drawn)]
            start += size
        order = [index for _, index in sorted(positioned)]
        seeds = torch.randint(2**62, (self.total_size,), generator=generator)
        begin, self.start = self.start * self.num_replicas, 0
        for first in range(begin, self.total_size, self._step_size):
            step = range(first, min(first + self._step_size, self.total_size))
            # There may be more processes than draws.
            draws = {position: order[position % len(order)] for position in step}
            # Sorted by example, they are sorted by group.
            mine = sorted(step, key=draws.__getitem__)[self.rank :: self.num_replicas]
            for position in sorted(mine):
                yield Draw(draws[position], int(seeds[position]), filler=position >= len(order))
