"""How often a training goes through its data, and how often it is validated, from the trainer's options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from unirs.errors import UniRSError


@dataclass(frozen=True)
class Schedule:
    """Passes of a training.

    Attributes:
        epochs: through the training mixture; a fraction if a limit of steps ends the training.
        validations: through the validation sets.
        validation_share: share of the validation sets that each goes through.
    """

    epochs: float
    validations: float
    validation_share: float


def read_schedule(trainer: Mapping[str, Any], batches: float) -> Schedule:
    """The schedule of a training whose epoch has a number of `batches` in each process.

    Args:
        trainer: the options of Lightning's trainer.
        batches: of one epoch.

    Raises:
        UniRSError: the training has no end.
    """
    max_epochs, max_steps = trainer["max_epochs"], trainer["max_steps"]
    limit = _share(trainer["limit_train_batches"], batches)
    if max_epochs is None:
        max_epochs = 1000 if max_steps == -1 else -1
    steps = limit * batches / trainer["accumulate_grad_batches"]
    epochs = min(
        math.inf if max_epochs == -1 else max_epochs, math.inf if max_steps == -1 else max_steps / max(steps, 1)
    )
    if math.isinf(epochs):
        raise UniRSError("This training has no end: set trainer.max_epochs or trainer.max_steps.")
    interval = trainer["val_check_interval"] or 1.0
    each = interval if isinstance(interval, float) else interval / max(limit * batches, 1)
    validations = epochs / (trainer["check_val_every_n_epoch"] or 1) / each
    # A limit in batches depends on the task: a share only if there are none.
    share = trainer["limit_val_batches"]
    share = 0.0 if share == 0 else share if isinstance(share, float) else 1.0
    return Schedule(epochs * limit, math.floor(validations + 1e-9) if share else 0, share)


def count_devices(devices: Any, accelerator: str) -> int:  # noqa: ANN401 - all that Lightning takes
    """Number of devices of `trainer.devices`."""
    if isinstance(devices, list):
        return len(devices)
    text = str(devices)
    if text.isdigit():
        return int(text)
    if "," in text:
        return len([one for one in text.split(",") if one])
    return 1 if accelerator == "cpu" else max(1, torch.cuda.device_count())


def _share(limit: float | int | None, batches: float) -> float:
    if limit is None or isinstance(limit, float):
        return 1.0 if limit is None else limit
    return min(1.0, limit / max(batches, 1))
