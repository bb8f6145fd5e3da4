"""DataLoaders over examples, for training and evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from multiprocessing import get_all_start_methods
from typing import Any, Protocol, Self

import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from unirs.data.batch import Batch
from unirs.data.dataset import DecodedDataset, Example, VisualInput
from unirs.data.frame_cache import FrameCache
from unirs.data.memory_features import FeatureStore
from unirs.data.sampler import MixtureSampler
from unirs.errors import UniRSError

_HAS_FORK = "forkserver" in get_all_start_methods()


class SharedBatch(Protocol):
    """A batch that workers pass on."""

    def share_memory(self) -> Self:
        """The same batch in shared memory; raises a `UniRSError` if it does not fit."""
        ...


class BatchCollator(Protocol):
    """Makes batches of decoded examples. `unirs.data.collator.Collator` is one.

    Attributes:
        training: whether its batches are trained on.
    """

    training: bool

    def __call__(self, items: Sequence[tuple[Example, VisualInput]]) -> SharedBatch:
        """Makes a batch."""
        ...

    def check(self, example: Example, visual: VisualInput) -> None:
        """Raises a `DataError` if the texts of an example cannot be encoded."""
        ...


class BatchLoader(DataLoader[Batch]):
    """A loader that raises the errors of its workers as they are."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, UniRSError):
                raise batch
            yield batch


class TrainLoader(BatchLoader):
    """A loader that resumes within an epoch: its state counts the batches that were taken, with or without workers."""

    _taken = 0
    _resume: Mapping[str, int] = {}

    def state_dict(self) -> dict[str, int]:
        """Epoch, and number of its batches that were taken; Lightning saves it in checkpoints."""
        return {"epoch": getattr(self.sampler, "epoch", 0), "taken": self._taken}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Has the iteration of that epoch begin after the batches that were taken."""
        self._resume, self._taken = state, state["taken"]

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # Workers begin when the first batch is taken: by then the epoch of the sampler is set.
        self._taken = 0
        if isinstance(self.sampler, MixtureSampler):
            self._taken = self._resume["taken"] if self._resume.get("epoch") == self.sampler.epoch else 0
            self.sampler.start = self._taken * (self.batch_size or 1)
        for batch in super().__iter__():
            self._taken += 1
            yield batch


def world() -> tuple[int, int]:
    """Number of processes of this run, and the rank of this one; `(1, 0)` without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    return 1, 0


def make_loader(
    examples: Dataset[Example] | Sequence[Example],
    collator: BatchCollator,
    frame_cache: FrameCache,
    feature_cache: FeatureStore | None = None,
    *,
    batch_size: int,
    sampler: Sampler[Any] | None = None,
    num_workers: int = 0,
    skip: bool = False,
    fork: bool = True,
) -> DataLoader[Batch]:
    """Makes a loader of batches for one model, without a Trainer; `examples` have a length.

    With `skip`, examples that cannot be read are replaced by others, and listed in `Batch.skipped`. Without `fork`,
    workers are new processes, which start later and hold nothing of this one.
    """
    check = collator.check if skip else None
    dataset: Dataset[Any] = DecodedDataset(examples, frame_cache, feature_cache, check)  # type: ignore[arg-type]
    return (TrainLoader if collator.training else BatchLoader)(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        multiprocessing_context="forkserver" if num_workers and not fork and _HAS_FORK else None,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        collate_fn=partial(_collate, collator),
    )


def _collate(
    collator: BatchCollator, items: Sequence[tuple[Example, VisualInput]] | UniRSError
) -> SharedBatch | UniRSError:
    """Collates a batch. A worker returns it in shared memory, or the error that prevents it.

    torch would wait for ever for a batch that it cannot share.
    """
    if isinstance(items, UniRSError):
        return items
    if get_worker_info() is None:
        return collator(items)
    try:
        return collator(items).share_memory()
    except UniRSError as error:
        return error
