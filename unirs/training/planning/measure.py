"""Measures a few batches of each task with a run's own components, batch sizes and precision."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Trainer
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch.utils._pytree import tree_leaves
from torch.utils.data import ConcatDataset, DataLoader

from unirs.data.datamodule import UniRSDataModule
from unirs.data.dataset import DecodedDataset, TaskDataset
from unirs.data.feature_cache import FeatureCache, is_frozen
from unirs.evaluation.engine import EvaluationModule
from unirs.inference.completion import add_vision_features
from unirs.models.unirs_model import UniRSModel
from unirs.tasks.media import Media
from unirs.training.module import UniRSModule
from unirs.training.optim import build_optimizer
from unirs.training.planning.estimate import ZERO, Pieces, Seconds, Stage

# Stored in place of a clue whose media are not measured.
_CLUE = "A clue of about twenty words, which stands for the text that the base model would write about an input."


class Measurement:
    """Measures a run on one device, without writing outside `folder`.

    Args:
        module: of the run; its weights change.
        data: of the run; used for nothing else.
        trainer: for the device and the precision.
        folder: for cached features, a temporary one.
        samples: number of samples of each task, at least; two batches besides one for warm-up are measured anyway.
        advance: called after each batch.
    """

    def __init__(
        self,
        module: EvaluationModule,
        data: UniRSDataModule,
        trainer: Trainer,
        folder: Path,
        samples: int,
        advance: Callable[[], object],
    ) -> None:
        self.module, self.data, self.folder, self.samples, self.advance = module, data, folder, samples, advance
        self.device = trainer.strategy.root_device
        self.context: Callable[[], AbstractContextManager[Any]] = trainer.precision_plugin.forward_context
        trainer.precision_plugin.convert_module(module)
        module.to(self.device)
        encoder = module.model.encoder if isinstance(module.model, UniRSModel) else None
        self.frozen = encoder is not None and is_frozen(cast("Any", encoder))
        self.stores_features = self.frozen and data.feature_cache_gb > 0
        self.clue = ZERO
        # Neither cached frames nor features may shorten what is measured.
        data.cache_gb, data.feature_cache_gb = 0, 0
        module.processor.fingerprint = None

    def clues(self) -> None:
        """Measures clues, if tasks have them; later prompts contain a text of their length."""
        generator = self.module.clue_generator
        used = [name for name, task in self.data.tasks.items() if task.clue != "never"]
        if used and generator is not None:
            generator.config = replace(generator.config, cache=str(self.folder / "clues.sqlite"))
            size, split = generator.config.batch_size, self.data.split(used[0], "train")
            media = list(dict.fromkeys(split[i].media for i in range(min(2 * size, len(split)))))
            with torch.no_grad(), self.context():
                generator(media[:size])  # it may load the base model
                start = self._now()
                generator(media[size:])
            if len(media) > size:
                self.clue = Seconds.of([(self._now() - start) / (len(media) - size)])
        if used:
            self.module.processor.generate_clues = lambda media: dict.fromkeys(media, _CLUE)
            self.data.on_bad_sample = "raise"  # else all media with clues are decoded

    def training(self) -> tuple[list[Stage], float]:
        """Measures training steps of each task; `passes` of the stages are for one epoch. Also a checkpoint's size."""
        module = cast("UniRSModule", self.module)
        loader = self.data.train_dataloader()
        decoded = cast("DecodedDataset", loader.dataset)
        optimizer = build_optimizer(module.model, module.optim, module.optimizer, None)
        module.train()

        def compute(batch: Any) -> None:  # noqa: ANN401 - of the processor's collator
            optimizer.zero_grad()
            with self.context():
                total, count = module.model.loss_sum(batch, module.loss)
            (total / count.clamp(min=1)).backward()
            optimizer.step()

        stages = []
        for group in cast("list[TaskDataset]", cast("ConcatDataset[Any]", decoded.examples).datasets):
            dataset = replace(decoded, examples=group)
            weight = self.data.tasks[group.task].weight
            pieces = self._measure(dataset, loader, compute)
            stages.append(_stage("training", group, weight, pieces))
        checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
        module.on_save_checkpoint(checkpoint)
        size = sum(_bytes(one) for one in (checkpoint, optimizer.state_dict()))
        optimizer.zero_grad()
        return stages, size

    def evaluation(self, loaders: Sequence[DataLoader[Any]], name: str, known: Sequence[Stage] = ()) -> list[Stage]:
        """Measures answers of each task; of tasks among the `known` stages, only their counts are taken."""
        module = self.module
        training = isinstance(module, UniRSModule)
        module.eval()

        @torch.no_grad()
        def compute(batch: Any) -> None:  # noqa: ANN401
            with self.context():
                if isinstance(module, UniRSModule):
                    module.validation_step(batch, 0)
                else:
                    module.test_step(batch, 0)

        if training:
            module.on_validation_start()
        else:
            module.on_test_start()
        pieces = {stage.task: stage.pieces for stage in known}
        stages = []
        for loader in loaders:
            decoded = cast("DecodedDataset", loader.dataset)
            group = cast("TaskDataset", decoded.examples)
            if group.task not in pieces:
                pieces[group.task] = self._measure(decoded, loader, compute)
            stage = name if group.perturbation is None else f"{name} ({group.perturbation})"
            stages.append(_stage(stage, group, 1, pieces[group.task]))
        return stages

    def memory(self) -> tuple[str, float]:
        """Name of the memory that limits the run, and its peak in bytes."""
        if self.device.type == "cuda":
            return "GPU", torch.cuda.max_memory_allocated(self.device)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return "RAM", peak * (1 if sys.platform == "darwin" else 1024)

    def _measure(self, dataset: DecodedDataset, loader: DataLoader[Any], compute: Callable[[Any], None]) -> Pieces:
        sizes, total = batch_sizes(self.samples, loader.batch_size or 1, self.device.type), len(dataset)
        # Spread over the split, since files are sorted; a small split is repeated.
        count = sum(sizes)
        indices = iter([i * total // count if total >= count else i % total for i in range(count)])
        times: list[tuple[float, ...]] = []
        cached_bytes = 0.0
        for size in sizes:
            seconds, cached_bytes = self._batch(dataset, list(islice(indices, size)), loader, compute)
            times.append(tuple(one / size for one in seconds))
            self.advance()
        # The first batch warms up.
        read, read_cached, encode, rest = (Seconds.of(column) for column in zip(*times[1:], strict=True))
        return Pieces(read, read_cached, encode, rest, "features" if self._caches(dataset) else "frames", cached_bytes)

    def _caches(self, dataset: DecodedDataset) -> bool:
        """Whether the features of a task's media are cached."""
        return self.stores_features and not cast("TaskDataset", dataset.examples).augment

    def _batch(
        self, dataset: DecodedDataset, indices: Sequence[int], loader: DataLoader[Any], compute: Callable[[Any], None]
    ) -> tuple[tuple[float, float, float, float], float]:
        """Seconds to read a batch, to read it from the cache, to encode it and for the rest; bytes of a cached item."""
        start = self._now()
        items = [dataset[index] for index in indices]
        decoded = self._now()
        batch = loader.collate_fn(items)
        collated = self._now()
        read_cached = collated - decoded
        cached_bytes = sum(visual.frames.nbytes for _, visual in items if visual.frames is not None) / len(items)
        encoding = self._now()
        batch = move_data_to_device(batch, self.device)
        if self.frozen:
            model = cast("UniRSModel", self.module.model)
            with torch.no_grad(), self.context():
                batch = add_vision_features(model, self.module.processor, batch)
        encoded = self._now()
        compute(batch)
        done = self._now()
        if self._caches(dataset):
            features = [one for one in batch.vision_features if one is not None]
            cached_bytes = sum(one.nbytes for one in features) / len(features)
            read_cached += self._read_features([example.sample.media for example, _ in items], features)
        return (collated - start, read_cached, encoded - encoding, done - encoded), cached_bytes

    def _read_features(self, media: Sequence[Media], features: Sequence[torch.Tensor]) -> float:
        cache = FeatureCache(self.folder, "0" * 16, (features[0].shape[1], features[0].shape[2]), sys.maxsize)
        for one, tokens in zip(media, features, strict=True):
            cache.put(one, tokens)
        start = self._now()
        for one in media:
            cache.get(one)
        return self._now() - start

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def batch_sizes(samples: int, batch_size: int, device: str) -> list[int]:
    """Sizes of the batches to measure for about so many samples: one for warm-up, and two or more.

    Batches have the size of the run, except on a CPU, whose time is proportional to the number of samples.
    """
    size = min(batch_size, max(1, samples // 2)) if device == "cpu" else batch_size
    warm_up = min(size, 4) if device == "cpu" else size
    return [warm_up, *[size] * max(2, math.ceil(samples / size))]


def _stage(name: str, group: TaskDataset, weight: float, pieces: Pieces) -> Stage:
    questions = sum(group.samples.turns(index) for index in group.indices)
    return Stage(name, group.task, len(group.indices), len(group), questions, weight, pieces)


def _bytes(state: object) -> int:
    return sum(one.nbytes for one in tree_leaves(state) if isinstance(one, torch.Tensor))
