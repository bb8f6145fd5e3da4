"""`unirs fit|validate|test`: Lightning's command line, and what every run gets besides."""

import re
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import (
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    RichModelSummary,
    RichProgressBar,
)
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from unirs.cli.plugin_options import add_plugin_options
from unirs.data.datamodule import UniRSDataModule
from unirs.errors import UniRSError
from unirs.models.run_folder import find_checkpoint
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
            text = self.parser.dump(_to_plain(config), skip_unset=False, skip_validation=True)
            write_atomically(path, text.encode())


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

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Checks the options of plugins by type, and takes them one by one."""
        add_plugin_options(parser)

    def instantiate_classes(self) -> None:
        """Builds model, data and trainer, and gives the data the model's processor."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            # jsonargparse lists every type that an option could have; the problem is one line of it.
            found = re.search(r"Problem with given class_path '(\S+)':\s*([^\n]+)", str(error))
            if found is None:
                raise
            raise UniRSError(f"{found[1]} cannot be used: {found[2]}") from error
        self.datamodule.processor = self.model.processor

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401 - Lightning's signature
        """Builds the trainer with checkpoints, results and default loggers inside its `default_root_dir`."""
        options = {**self._get(self.config_init, "trainer"), **kwargs}
        root = Path(options["default_root_dir"] or "runs/default")
        options["default_root_dir"] = str(root)
        given: list[Callback] = options["callbacks"] or []
        training, barebones = self.subcommand == "fit", options["barebones"]
        own: list[Callback] = []
        if barebones:
            # Lightning refuses these two; they are set by default.
            options.update(log_every_n_steps=None, logger=False)
        if barebones or options["enable_progress_bar"] is None:
            options["enable_progress_bar"] = False if barebones else sys.stdout.isatty()
        if options["enable_progress_bar"] and not _has(given, ProgressBar):
            own.append(RichProgressBar())
        if options["enable_model_summary"] is not False and not barebones and not _has(given, ModelSummary):
            own.append(RichModelSummary(max_depth=2))
        if options["fast_dev_run"]:
            return self._instantiate_trainer(options, own)
        # The log comes after the results are written, so that it deletes the answers last.
        own += [ResultsWriter(self._get(self.config, "seed_everything")), EvaluationLog()]
        if training and not barebones:
            own.append(ThroughputLogger())
        if options["enable_checkpointing"] is not False and not barebones:
            own.append(_checkpoints(root / "checkpoints", validates=options["limit_val_batches"] != 0))
        if options["logger"] is None:
            # A logger begins a new log, which only training needs: results of the other commands are files.
            options["logger"] = _loggers(root) if training else False
        if training and options["logger"] is not False and not _has(given, LearningRateMonitor):
            own.append(LearningRateMonitor())
        return self._instantiate_trainer(options, own)

    def _parse_ckpt_path(self) -> None:
        """Keeps the config: Lightning's own replaces it by the hyperparameters of the checkpoint."""

    def before_fit(self) -> None:
        """Refuses to train over another run, before anything of it is touched.

        Raises:
            UniRSError: the folder holds checkpoints and training does not go on from one.
        """
        folder = Path(self.trainer.default_root_dir)
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self._get(self.config, "ckpt_path", default=None) is None and any(folder.glob("checkpoints/*.ckpt")):
            raise UniRSError(
                f"{folder} already holds a run. Go on with '--ckpt_path last', name another folder with "
                "'--trainer.default_root_dir', or delete it."
            )

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        name, run = kwargs.get("ckpt_path"), Path(self.trainer.default_root_dir)
        if name is None and subcommand != "fit":
            path = find_checkpoint(run)
        elif name in ("best", "last"):
            # Lightning knows the best checkpoint only in the process that trained.
            path = run / "checkpoints" / f"{name}.ckpt"
        else:
            path = Path(name or "")
        if path.suffix == ".ckpt":
            if not path.is_file():
                raise UniRSError(f"Checkpoint {path} does not exist. Correct '--ckpt_path'.")
            kwargs["ckpt_path"] = str(path)
        return kwargs


def _to_plain(value: Any) -> Any:  # noqa: ANN401 - any value of a config
    """Enums and devices, such as the defaults of Lightning's callbacks, as the text that YAML can hold."""
    if isinstance(value, Namespace):
        return Namespace({key: _to_plain(one) for key, one in vars(value).items()})
    if isinstance(value, list | tuple):
        return [_to_plain(one) for one in value]
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, torch.device) else value


def _has(callbacks: Sequence[Callback], kind: type[Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)


def _checkpoints(folder: Path, *, validates: bool) -> ModelCheckpoint:
    if not validates:
        # There is no score to find the best by.
        return ModelCheckpoint(folder, "last", enable_version_counter=False)
    return ModelCheckpoint(
        folder, "best", monitor="val/score", mode="max", save_last=True, enable_version_counter=False
    )


def _loggers(root: Path) -> list[Logger]:
    csv = CSVLogger(root, name="logs")
    return [csv, TensorBoardLogger(root, name="logs", version=csv.version)]


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
