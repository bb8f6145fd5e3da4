"""Checkpoints that survive crashes, full disks and signals, and training that resumes from them to the last bit."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from unirs.errors import UniRSError
from unirs.models.checkpoint import read_checkpoint
from unirs.ranges import PositiveInt, Range, check_ranges
from unirs.utils.io import replacing_file


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target and renames it; reads tensors and plain values only.

    The file under the target's name is always a whole checkpoint: the former one until the new one is on the disk.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,  # noqa: ANN401, ARG002 - Lightning's signature
    ) -> None:
        """Writes a checkpoint.

        Raises:
            UniRSError: the disk is full or cannot be written; the former checkpoint is unchanged.
        """
        path = Path(path)
        for remnant in path.parent.glob(f".{path.name}.*.partial"):
            remnant.unlink()  # of a process that was killed; this one alone writes checkpoints here
        try:
            with replacing_file(path) as file:
                torch.save(checkpoint, file)
        # torch's writer reports a full disk as a RuntimeError.
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
            raise UniRSError(
                f"Checkpoint {path} cannot be written ({reason}). Checkpoints that were written before are unchanged: "
                "make space, and resume with '--ckpt_path last'."
            ) from error

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = None,  # noqa: ANN401, ARG002 - Lightning's signature
        weights_only: bool | None = None,  # noqa: ARG002 - always
    ) -> dict[str, Any]:
        """Reads a checkpoint to the CPU; no code in it is run.

        Raises:
            ModelError: the file is not a whole checkpoint, or holds more than tensors and plain values.
        """
        return read_checkpoint(Path(path))


@dataclass(frozen=True)
class CheckpointConfig:
    """When `last.ckpt` is saved besides the end of each epoch.

    Attributes:
        every_n_steps: optimizer steps between two saves within an epoch; null for none.
        every_n_minutes: minutes between two saves within an epoch; null for none.
    """

    every_n_steps: PositiveInt | None = None
    every_n_minutes: Annotated[float, Range(0, open_low=True)] | None = 10.0

    def __post_init__(self) -> None:
        check_ranges(CheckpointConfig, self, "checkpoint.")


class LastCheckpoint(Checkpoint):
    """Saves `last.ckpt` after each epoch, at intervals within it, and when the process is told to stop.

    Args:
        folder: of the checkpoints.
        config: the intervals.
    """

    def __init__(self, folder: Path, config: CheckpointConfig) -> None:
        self.path = folder / "last.ckpt"
        self.config = config
        self._saved_at = 0.0
        self._step = 0
        self._saved_step: int | None = None
        self._signal: int | None = None
        self._stop = self._accumulating = self._validating = False
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Starts the clock, and takes the signals from Lightning, which does not save on them."""
        self._saved_at, self._step, self._stop = time.monotonic(), trainer.global_step, False
        self._signal = signal.SIGTERM if trainer.received_sigterm else None
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._signal = number
        # A second signal ends the process at once.
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Saves if it is time or a signal came, between two optimizer steps."""
        # Gradients that are still accumulated are not in a checkpoint.
        self._accumulating = trainer.global_step == self._step
        self._step = trainer.global_step
        # After the last batch, validation and epoch end save.
        if self._accumulating or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        self._stop = trainer.strategy.reduce_boolean_decision(self._signal is not None, all=False)
        steps, minutes = self.config.every_n_steps, self.config.every_n_minutes
        due = steps is not None and trainer.global_step % steps == 0
        if minutes is not None:
            due |= bool(trainer.strategy.broadcast(time.monotonic() - self._saved_at >= 60 * minutes))
        if self._stop or due:
            self._save(trainer)

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        """Stops after a signal, once the metrics of the saved step are logged; prints how to continue.

        Raises:
            SystemExit: 128 plus the number of the signal.
        """
        if self._stop:
            number = self._signal or signal.SIGTERM
            if trainer.is_global_zero:
                saved = f"{self.path} was saved at step {self._saved_step}: continue with '--ckpt_path last'."
                state = "No checkpoint was saved since the start." if self._saved_step is None else saved
                print(f"unirs: stopped by {signal.Signals(number).name}. {state}", file=sys.stderr)
            raise SystemExit(128 + number)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Saves what an epoch has trained before its validation, which may take long."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not self._accumulating:
            self._validating = True
            self._save(trainer)
            self._validating = False

    def on_save_checkpoint(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        """Marks a checkpoint that is saved before a validation, so that training resumes with this validation."""
        if self._validating:
            # Lightning runs a validation again if its first batch had begun, and skips it otherwise.
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            for counts in (progress["total"], progress["current"]):
                counts["ready"] += 1
                counts["started"] += 1

    def on_validation_batch_start(self, trainer: Trainer, *_: object) -> None:
        """Stops a validation during training after a signal.

        Raises:
            SystemExit: 128 plus the number of the signal.
        """
        if trainer.state.fn == "fit":
            self._stop = trainer.strategy.reduce_boolean_decision(self._signal is not None, all=False)
            self.on_train_batch_start(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Saves after every epoch, whether its score is the best or not."""
        self._save(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Gives the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
