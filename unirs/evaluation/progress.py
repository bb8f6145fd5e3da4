"""The progress bar of Lightning's loops."""

from __future__ import annotations

from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import RichProgressBar

from unirs.utils.progress import columns


class TrainerProgressBar(RichProgressBar):
    """Has the look of all other progress bars, `unirs.utils.progress`, and is on stderr, too."""

    def __init__(self) -> None:
        super().__init__(console_kwargs={"stderr": True})

    def configure_columns(self, trainer: Trainer) -> list[Any]:  # noqa: ARG002 - Lightning's signature
        """The columns; Lightning adds that of the metrics."""
        return columns("batches")
