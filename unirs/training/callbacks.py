"""Callbacks of a run: its manifest and its throughput."""

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer

from unirs.data.batch import Batch
from unirs.data.datamodule import UniRSDataModule
from unirs.tasks.video_reader import describe_reader
from unirs.training.manifest import write_manifest
from unirs.training.module import UniRSModule
from unirs.utils.hashing import hash_files, hash_tensors


class ManifestWriter(Callback):
    """Writes `<trainer.default_root_dir>/manifest.json` when training starts and when an evaluation ends.

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = seed

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes it without a hash of weights."""
        self._write(trainer, cast("UniRSModule", pl_module), trained=False)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes it with the hash of the evaluated weights; validation during training writes nothing."""
        if trainer.state.fn != "fit":
            self._write(trainer, cast("UniRSModule", pl_module), trained=True)

    on_validation_end = on_test_end

    def _write(self, trainer: Trainer, module: UniRSModule, *, trained: bool) -> None:
        if not trainer.is_global_zero:
            return
        tasks = {
            name: {"data": hash_files(task.task.required_paths, task.root), "prompt": repr(task.task.prompt)}
            for name, task in module.processor.tasks.items()
        }
        data = getattr(trainer, "datamodule", None)
        write_manifest(
            Path(trainer.default_root_dir),
            seed=self.seed,
            tasks=tasks,
            weights=hash_tensors(module.model.state_dict()) if trained else None,
            decoding={
                "strategy": module.generation.strategy,
                "max_new_tokens": module.max_new_tokens,
                **asdict(module.generation),
            },
            video_reader=describe_reader(data.video_reader) if isinstance(data, UniRSDataModule) else None,
            command=sys.argv,
        )


class ThroughputLogger(Callback):
    """Logs `samples/s`: media trained on per second of one process, averaged over the last steps."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._last = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Starts the clock; validation between epochs does not count."""
        self._last = time.perf_counter()

    def on_train_batch_end(self, _: Trainer, pl_module: LightningModule, __: Any, batch: Batch, ___: int) -> None:  # noqa: ANN401
        """Logs the rate."""
        now = time.perf_counter()
        rate = len(batch.modalities) / (now - self._last)
        self._rate = 0.95 * self._rate + 0.05 * rate if self._rate else rate
        self._last = now
        pl_module.log("samples/s", self._rate, prog_bar=True, batch_size=len(batch.modalities))
