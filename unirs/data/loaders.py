"""DataLoaders over examples, for training and for every kind of evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset, Sampler

from unirs.data.batch import Batch
from unirs.data.dataset import DecodedDataset, Example
from unirs.data.frame_cache import FrameCache
from unirs.data.processor import Processor
from unirs.tasks.prompt import PromptTemplate


def world() -> tuple[int, int]:
    """Number of processes of this run, and the rank of this one; `(1, 0)` without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    return 1, 0


def make_loader(
    examples: Dataset[Example] | Sequence[Example],
    processor: Processor,
    frame_cache: FrameCache,
    *,
    batch_size: int,
    sampler: Sampler[Any] | None = None,
    num_workers: int = 0,
    training: bool = False,
    prompts: Mapping[str, PromptTemplate] | None = None,
    eval_set: str = "",
    with_labels: bool = False,
) -> DataLoader[Batch]:
    """Makes a loader of batches; needs no Trainer.

    Args:
        examples: what to load, with a length.
        processor: of the model that the batches are for.
        frame_cache: decodes media, for this processor's image size.
        batch_size: examples of a batch.
        sampler: order of the examples; by default their own.
        num_workers: processes that decode and encode.
        training: whether sequences hold answers and labels.
        prompts: prompt template of each task; by default those of the processor's tasks.
        eval_set: name of the evaluation set.
        with_labels: evaluation batches also hold what a validation loss needs.

    Raises:
        ModelError: the tokenizer has not been trained yet.
    """
    dataset: Dataset[Any] = DecodedDataset(examples, frame_cache, processor.feature_cache)  # type: ignore[arg-type]
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        collate_fn=processor.collator(training=training, prompts=prompts, eval_set=eval_set, with_labels=with_labels),
    )
