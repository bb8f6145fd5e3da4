"""`unirs fit|validate|test`: Lightning's command line, and what every run gets besides."""

from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichModelSummary
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from unirs.data.datamodule import UniRSDataModule
from unirs.errors import UniRSError
from unirs.models.run_folder import best_checkpoint
from unirs.training.callbacks import ResultsWriter, ThroughputLogger
from unirs.training.evaluation_log import EvaluationLog
from unirs.training.module import UniRSModule
from unirs.utils.io import write_atomically


class SaveConfig(SaveConfigCallback):
    """Keeps the resolved config of training at `<trainer.default_root_dir>/config.yaml`."""

    def save_config(self, trainer: Trainer, pl_module: object, stage: str) -> None:  # noqa: ARG002
        """Writes it; validation and tests leave the one that training wrote."""
        path = Path(trainer.default_root_dir) / "config.yaml"
        if stage == "fit" or not path.exists():
            # Only what all commands read: each takes the run's config, and has options of its own.
            config = Namespace({key: self.config[key] for key in ("seed_everything", "trainer", "model", "data")})
            write_atomically(path, self.parser.dump(config, skip_unset=False, skip_validation=True).encode())


class TrainerCLI(LightningCLI):
    """LightningCLI with UniRS's model, data and run folder.

    Args:
        args: the command line, without the program's name; the command first.
    """

    def __init__(self, args: list[str]) -> None:
        self._command = args[0]
        super().__init__(
            UniRSModule,
            UniRSDataModule,
            SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults=_trainer_defaults(),
            seed_everything_default=0,
            args=args,
            parser_kwargs={"exit_on_error": False},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command asked for alone, as the options of each take a tenth of a second to find."""
        return {self._command: super().subcommands()[self._command]}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401 - Lightning's type
        """Parses `args`; Lightning's own warns that they are not the process's."""
        self.config = parser.parse_args(args)

    def instantiate_classes(self) -> None:
        """Builds model, data and trainer, and gives the data the model's processor."""
        super().instantiate_classes()
        self.datamodule.processor = self.model.processor

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401 - Lightning's signature
        """Builds the trainer with checkpoints and loggers inside its `default_root_dir`."""
        root = Path(self._get(self.config_init, "trainer.default_root_dir") or "runs/default")
        checkpoint = ModelCheckpoint(
            root / "checkpoints", "best", monitor="val/score", mode="max", save_last=True, enable_version_counter=False
        )
        summary = RichModelSummary(max_depth=2)
        own = [
            checkpoint,
            summary,
            ThroughputLogger(),
            ResultsWriter(self._get(self.config, "seed_everything")),
            # After the results are written, so that it deletes the answers last.
            EvaluationLog(),
        ]
        if self.subcommand != "fit":
            # Loggers begin a new log, and only training has something to log.
            kwargs = {"logger": False} | kwargs
        elif self._get(self.config_init, "trainer.logger") is None:
            csv = CSVLogger(root, name="logs")
            kwargs = {"logger": [csv, TensorBoardLogger(root, name="logs", version=csv.version)]} | kwargs
            own.append(LearningRateMonitor())
        trainer_config = {**self._get(self.config_init, "trainer"), "default_root_dir": str(root), **kwargs}
        return self._instantiate_trainer(trainer_config, own)

    def before_fit(self) -> None:
        """Refuses to train over another run, before anything of it is touched.

        Raises:
            UniRSError: the folder holds checkpoints and training does not go on from one.
        """
        folder = Path(self.trainer.default_root_dir)
        if self._get(self.config, "ckpt_path", default=None) is None and any(folder.glob("checkpoints/*.ckpt")):
            raise UniRSError(
                f"{folder} already holds a run. Go on with '--ckpt_path last', name another folder with "
                "'--trainer.default_root_dir', or delete it."
            )

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        named = str(kwargs.get("ckpt_path") or "")
        if subcommand != "fit" and not named:
            kwargs["ckpt_path"] = str(best_checkpoint(Path(self.trainer.default_root_dir)))
        elif named.endswith(".ckpt") and not Path(named).is_file():
            raise UniRSError(f"Checkpoint {named} does not exist. Correct '--ckpt_path'.")
        return kwargs


def _trainer_defaults() -> dict[str, Any]:
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return {
        "default_root_dir": "runs/default",
        "precision": "bf16-mixed" if bf16 else "32-true",
        "gradient_clip_val": 1.0,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10,
        # The loaders share samples between processes themselves.
        "use_distributed_sampler": False,
    }
