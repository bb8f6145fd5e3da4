"""Samples per second in the progress bar and the logs."""

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer

from unirs.batch import Batch


class SampleRate(Callback):
    """Logs `samples/s`: media trained on per second of one process, averaged over the last steps."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._last = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Starts the clock; validation between epochs does not count."""
        self._last = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401, ARG002
        batch: Batch,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Logs the rate."""
        now = time.perf_counter()
        rate = len(batch.kinds) / (now - self._last)
        self._rate = 0.95 * self._rate + 0.05 * rate if self._rate else rate
        self._last = now
        pl_module.log("samples/s", self._rate, prog_bar=True, batch_size=len(batch.kinds))
