"""DataLoaders over examples, for training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset, Sampler

from unirs.data.batch import Batch
from unirs.data.collator import Collator
from unirs.data.dataset import DecodedDataset, Example
from unirs.data.feature_cache import FeatureCache
from unirs.data.frame_cache import FrameCache


def world() -> tuple[int, int]:
    """Number of processes of this run, and the rank of this one; `(1, 0)` without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    return 1, 0


def make_loader(
    examples: Dataset[Example] | Sequence[Example],
    collator: Collator,
    frame_cache: FrameCache,
    feature_cache: FeatureCache | None = None,
    *,
    batch_size: int,
    sampler: Sampler[Any] | None = None,
    num_workers: int = 0,
) -> DataLoader[Batch]:
    """Makes a loader of batches for one model, without a Trainer; `examples` have a length."""
    dataset: Dataset[Any] = DecodedDataset(examples, frame_cache, feature_cache)  # type: ignore[arg-type]
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        collate_fn=collator,
    )
