"""The components of a training, built from its config without starting it."""

from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from unirs.cli.trainer import TrainerCLI, config_errors


class TrainerParts(TrainerCLI):
    """Builds the model and the data of a training, and a trainer of one device; starts nothing.

    What a training would write goes to `folder`. `trainer_config` has the options of the trainer as configured.
    """

    def __init__(self, args: list[str], folder: Path) -> None:
        self._folder = folder
        with config_errors(args):
            super().__init__([*args, f"--trainer.default_root_dir={folder}", f"--data.feature_cache={folder}"])

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401 - Lightning's type
        """Parses `args`, and removes callbacks and loggers, which are not to be built."""
        super().parse_arguments(parser, args)
        config = self.config[self._command]["trainer"]
        self.trainer_config = dict(vars(config))
        config["callbacks"], config["logger"] = None, False

    def instantiate_trainer(self, **_: Any) -> Trainer:  # noqa: ANN401 - Lightning's signature
        """Builds a trainer for device and precision alone."""
        options = self._get(self.config_init, "trainer")
        return Trainer(
            accelerator=options["accelerator"],
            devices=1,
            precision=options["precision"],
            plugins=options["plugins"],
            default_root_dir=self._folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    def _run_subcommand(self, subcommand: str) -> None:
        pass
