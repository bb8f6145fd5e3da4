"""The callback that ends both programs of `start.py` right after the first optimiser step."""

import json
import os
import sys
from pathlib import Path

from lightning import Callback, LightningModule, Trainer


class FirstStep(Callback):
    """Ends the process once the optimiser has taken its first step.

    Args:
        packages: the file to write the names of all imported packages to, a JSON list.
    """

    def __init__(self, packages: Path) -> None:
        self.packages = packages

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Registers a hook of the optimiser itself, so that no other callback runs before the end."""
        trainer.optimizers[0].register_step_post_hook(lambda *_: self._exit())

    def _exit(self) -> None:
        names = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names
        self.packages.write_text(json.dumps(sorted(names)))
        os._exit(0)  # without clean-up
