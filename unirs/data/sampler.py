"""The sampler of the training mixture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, cycle, islice
from typing import Any

import torch
from torch.utils.data import DistributedSampler

from unirs.errors import DataError


class MixtureSampler(DistributedSampler[Any]):
    """Samples an epoch from concatenated groups in random order, each group `weight` times.

    A weight of 2.5 yields each sample twice, and a random half of the samples once more. The groups are spread evenly
    over the epoch, so that all batches contain nearly the same mixture: less gradient noise, and fewer shapes to
    compile kernels for. The order depends on seed and epoch only; each process takes its share of it.

    Args:
        sizes: number of samples of each group.
        weights: weight of each group.
        num_replicas: number of processes.
        rank: of this process.
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
        # Repeated, so that all processes get equally many samples even if there are fewer samples than processes.
        return islice(cycle(order), self.rank, self.total_size, self.num_replicas)
