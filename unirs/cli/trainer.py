"""`unirs fit|validate|test`: Lightning's command line with results, checkpoints and loggers in the run folder."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from traceback import walk_tb
from typing import Any, Literal

import torch
from jsonargparse import ArgumentError, Namespace
from lightning import Callback, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    RichModelSummary,
)
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities import rank_zero_info

from unirs.cli.plugin_options import add_plugin_options
from unirs.data.datamodule import UniRSDataModule
from unirs.errors import UniRSError, nearest
from unirs.evaluation.answer_log import AnswerLog
from unirs.evaluation.progress import TrainerProgressBar
from unirs.evaluation.results_writer import ResultsWriter
from unirs.models.checkpoint import find_checkpoint
from unirs.models.dtypes import bfloat16_unit, resolve_dtype, resolve_encoder, resolve_precision
from unirs.ranges import Seed, check_range, check_ranges
from unirs.tasks.config import TaskConfig
from unirs.tasks.video_reader import create_reader
from unirs.training.callbacks import ManifestWriter, ThroughputLogger
from unirs.training.checkpointing import CheckpointConfig, LastCheckpoint, SafeCheckpointIO
from unirs.training.module import UniRSModule
from unirs.utils.io import check_writable, reading, write_atomically
from unirs.utils.typed_yaml import parser_mode

_DEFAULT_ROOT = "runs/default"


@contextmanager
def config_errors(arguments: Sequence[str]) -> Iterator[None]:
    """Raises errors of the command line, of a config and of Lightning about them as `UniRSError`s of one line."""
    try:
        yield
    except (ArgumentError, MisconfigurationException, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _from_callbacks(error):
            raise
        message = _short(" ".join(str(error).split()))
        raise UniRSError(
            f"{message} ('unirs {' '.join(arguments)}'; 'unirs {arguments[0]} --help' lists all options)"
        ) from error


def _short(message: str) -> str:
    """An error of jsonargparse, without the details of each type that a value could have."""
    pattern = r'Parser key "([^"]+)": Does not validate .*?Subtypes: \[(.*?)\] Errors: .*Given value: (.*)'
    found = re.fullmatch(pattern, message)
    if found is None:
        return message
    types = re.sub(r"<class '([\w.]+)'>", r"\1", found[2]).replace("NoneType", "null")
    return f"{found[1]} is '{found[3]}', it must be one of: {types}."


def _check_configs(args: Sequence[str]) -> None:
    """Checks that configs are files.

    Raises:
        UniRSError: one is not; a FIFO or device, which jsonargparse would read without end, too.
    """
    command, first = args[0], [*args[1:], ""][0]
    if first and not first.startswith("-"):
        raise UniRSError(f"'{first}' is no option. Try: unirs {command} --config {_config_of(Path(first))}")
    for option, value in zip(args, [*args[1:], ""], strict=True):
        name, separator, joined = option.partition("=")
        if name in ("-c", "--config"):
            path = Path(joined if separator else value)
            if path.is_dir():
                raise UniRSError(f"--config {path} is a folder. Name a file, such as {_config_of(path)}.")
            with reading(path, "a YAML file in UTF-8"):
                path.open("rb").close()


def _has_config(args: Sequence[str]) -> bool:
    return any(option.startswith(("-c", "--config")) for option in args)


def _config_of(path: Path) -> Path:
    """The config of a run, if the path is its folder."""
    return path / "config.yaml" if path.is_dir() else path


def _from_callbacks(error: RuntimeError) -> bool:
    """Whether one of Lightning's callbacks raised it, since it does not fit the run or another callback."""
    frames = [str(frame.f_globals["__name__"]) for frame, _ in walk_tb(error.__traceback__)]
    return frames[-1].startswith(("lightning.pytorch.callbacks.", "lightning.pytorch.trainer.connectors.callback"))


class SaveConfig(SaveConfigCallback):
    """Writes the resolved config of training to `<trainer.default_root_dir>/config.yaml`."""

    def save_config(self, trainer: Trainer, pl_module: object, stage: str) -> None:  # noqa: ARG002
        """Writes the file; validation and tests do not replace the one of training."""
        path = Path(trainer.default_root_dir) / "config.yaml"
        if stage == "fit" or not path.exists():
            # Only the sections of all commands: each takes the run's config, and has options of its own.
            sections = ("seed_everything", "trainer", "model", "data", "checkpoint")
            config = Namespace({key: self.config[key] for key in sections})
            text = self.parser.dump(_to_plain(config), skip_unset=False, skip_validation=True)
            write_atomically(path, text.encode())


class TrainerCLI(LightningCLI):
    """LightningCLI with UniRS's model, data and run folder; `args` start with the command."""

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
            parser_kwargs={"exit_on_error": False, "parser_mode": parser_mode()},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The given command alone, as collecting the options of each takes a tenth of a second."""
        return {self._command: super().subcommands()[self._command]}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401 - Lightning's type
        """Parses `args`, without Lightning's warning that they are not those of the process, and checks ranges."""
        _check_configs(args)
        try:
            self.config = parser.parse_args(args)
        except UniRSError:
            raise
        except ArgumentError as error:
            hint = (
                ""
                if _has_config(args)
                else f" There is no config. Try: unirs {args[0]} --config configs/quickstart.yaml"
            )
            raise ArgumentError(None, f"{error}{self._nearest_option(str(error), parser)}{hint}") from error
        except Exception as error:  # of any class, for a damaged file
            raise ArgumentError(None, f"The config cannot be read ({type(error).__name__}: {error})") from error
        # Before the model is built, which takes long.
        config = self.config[self._command]
        check_range(Seed | bool, config["seed_everything"], "seed_everything")
        check_ranges(UniRSModule, config["model"], "model.")
        check_ranges(UniRSDataModule, config["data"], "data.")
        create_reader(config["data"]["video_reader"])
        if not config["trainer"]["fast_dev_run"]:
            checkpoint = "" if self._command == "fit" else ", and the run's checkpoint with --ckpt_path"
            folder = Path(config["trainer"]["default_root_dir"] or _DEFAULT_ROOT)
            for part in (folder, folder / "checkpoints", folder / self._command):
                check_writable(part, f"Name another folder with --trainer.default_root_dir{checkpoint}.")
        for task in TaskConfig.read_all(config["data"]["tasks"]).values():
            task.check()
        _resolve_dtypes(config["model"], config["trainer"])

    def _nearest_option(self, message: str, parser: LightningArgumentParser) -> str:
        """The nearest match of the unknown option of an error message; empty if it is about something else."""
        unknown = re.search(r"unrecognized arguments: (?:--)?([\w.-]+)|does not accept option '([\w.-]+)'", message)
        if unknown is None:
            return ""
        commands: Any = parser._subcommands_action
        actions = commands._name_parser_map[self._command]._actions
        known = [name.removeprefix("--") for action in actions for name in action.option_strings]
        return f". {nearest(unknown[1] or unknown[2], known)}".rstrip(" .")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds typed options of plugins, and the intervals of checkpoints."""
        add_plugin_options(parser)
        precision: Any = next(action for action in parser._actions if action.dest == "trainer.precision")
        # jsonargparse has no public way to add a value to the type of Lightning's option.
        precision._typehint = precision._typehint | Literal["auto"]
        parser.add_class_arguments(CheckpointConfig, "checkpoint")
        if self._command != "fit":
            parser.add_argument("--report", type=bool, default=True, help="write report.html beside the results")

    def instantiate_classes(self) -> None:
        """Builds model, data and trainer, and gives the data the model's processor."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            # jsonargparse lists every type that an option could have; only one line states the problem.
            found = re.search(r"Problem with given class_path '(\S+)':\s*([^\n]+)", str(error))
            if found is None:
                raise
            raise UniRSError(f"{found[1]} cannot be used: {found[2]}") from error
        self.datamodule.processor = self.model.processor

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401 - Lightning's signature
        """Builds the trainer with callbacks and loggers that write to its `default_root_dir`."""
        options = {**self._get(self.config_init, "trainer"), **kwargs}
        root = Path(options["default_root_dir"] or _DEFAULT_ROOT)
        options["default_root_dir"] = str(root)
        given: list[Callback] = options["callbacks"] or []
        training, barebones = self.subcommand == "fit", options["barebones"]
        own: list[Callback] = []
        if barebones:
            # Lightning refuses these two; they are set by default.
            options.update(log_every_n_steps=None, logger=False)
        if barebones or options["enable_progress_bar"] is None:
            options["enable_progress_bar"] = False if barebones else sys.stderr.isatty()
        if options["enable_progress_bar"] and not _has(given, ProgressBar):
            own.append(TrainerProgressBar())
        if options["enable_model_summary"] is not False and not barebones and not _has(given, ModelSummary):
            own.append(RichModelSummary(max_depth=2))
        if options["fast_dev_run"]:
            return self._instantiate_trainer(options, own)
        # The log comes after the results are written, so that it deletes the answers last.
        own += [
            ManifestWriter(self._get(self.config, "seed_everything")),
            ResultsWriter(report=self._get(self.config, "report", default=True)),
            AnswerLog(),
        ]
        own += [ThroughputLogger()] if training and not barebones else []
        if options["enable_checkpointing"] is not False and not barebones:
            own += self._checkpoints(root / "checkpoints", validates=options["limit_val_batches"] != 0)
        plugins = options["plugins"] or []
        options["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins])]
        if not any(isinstance(plugin, CheckpointIO) for plugin in options["plugins"]):
            options["plugins"].append(SafeCheckpointIO())
        if options["logger"] is None:
            # A logger starts a new log, which only training needs: results of the other commands are files.
            options["logger"] = _loggers(root) if training else False
        if training and options["logger"] is not False and not _has(given, LearningRateMonitor):
            own.append(LearningRateMonitor())
        return self._instantiate_trainer(options, own)

    def _checkpoints(self, folder: Path, *, validates: bool) -> list[Callback]:
        last = LastCheckpoint(folder, self._get(self.config_init, "checkpoint"))
        if not validates:
            return [last]  # there is no score to find the best by
        return [ModelCheckpoint(folder, "best", monitor="val/score", mode="max", enable_version_counter=False), last]

    def _parse_ckpt_path(self) -> None:
        """Does nothing: Lightning's own replaces the config by the hyperparameters of the checkpoint."""

    def before_fit(self) -> None:
        """Raises a `UniRSError` if the folder holds checkpoints and training does not continue from one."""
        folder = Path(self.trainer.default_root_dir)
        # Lightning resumes a job that SLURM queued again from this checkpoint.
        requeued = SLURMEnvironment.detect() and any(folder.glob("hpc_ckpt_*.ckpt"))
        new = self._get(self.config, "ckpt_path", default=None) is None and not requeued
        if new and not self.trainer.fast_dev_run and any(folder.glob("checkpoints/*.ckpt")):  # type: ignore[attr-defined]
            raise UniRSError(
                f"{folder} already holds a run. Continue with '--ckpt_path last', name another folder with "
                "'--trainer.default_root_dir', or delete it."
            )

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        name, run = kwargs.get("ckpt_path"), Path(self.trainer.default_root_dir)
        if name is None and subcommand != "fit":
            path = find_checkpoint(run)
        elif name == "last":
            path = find_checkpoint(run, "last", "best")
        elif name == "best":
            # Lightning knows the best checkpoint only in the process that trained.
            path = find_checkpoint(run, "best")
        elif "://" in (name or ""):
            raise UniRSError(f"Checkpoint {name} is a URL. Download it, and give the path of the file.")
        else:
            path = Path(name or "")
        if path.suffix == ".ckpt":
            if not path.is_file():
                raise UniRSError(f"Checkpoint {path} does not exist. Correct '--ckpt_path'.")
            kwargs["ckpt_path"] = str(path)
        return kwargs


class _OptionNames(TrainerCLI):
    """Collects the options of a command instead of running it."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401, ARG002
        commands: Any = parser._subcommands_action
        actions = commands._name_parser_map[self._command]._actions
        raise _FoundError([name for action in actions for name in action.option_strings if name.startswith("--")])


class _FoundError(Exception):
    """Ends the collection."""


def option_names(command: str) -> list[str]:
    """The long options of `fit`, `validate` or `test`."""
    names: list[str] = []
    try:
        _OptionNames([command])
    except _FoundError as found:
        names = sorted(set(found.args[0]) - {"--help"})
    return names


def _resolve_dtypes(model: Namespace, trainer: Namespace) -> None:
    """Replaces `auto` in dtypes and precision, so that the run's config holds the choice; logs it."""
    accelerator, llm, encoder = trainer["accelerator"], model["llm"], model["encoder"]
    before = trainer["precision"], llm["dtype"], encoder
    trainer["precision"] = resolve_precision(trainer["precision"], accelerator)
    llm["dtype"] = resolve_dtype(llm["dtype"], llm["tune"], accelerator)
    model["encoder"] = resolve_encoder(encoder, accelerator)
    if before != (trainer["precision"], llm["dtype"], model["encoder"]):
        unit = bfloat16_unit(accelerator)
        reason = f"{unit} computes bfloat16" if unit else "this device has no instructions for bfloat16"
        encoder_dtype = f", encoder {model['encoder']['dtype']}" if "dtype" in (model["encoder"] or {}) else ""
        rank_zero_info(f"Precision {trainer['precision']}, language model {llm['dtype']}{encoder_dtype}: {reason}.")


def _to_plain(value: Any) -> Any:  # noqa: ANN401 - any value of a config
    """Enums and devices, such as defaults of Lightning's callbacks, as text for YAML."""
    if isinstance(value, Namespace):
        return Namespace({key: _to_plain(one) for key, one in vars(value).items()})
    if isinstance(value, list | tuple):
        return [_to_plain(one) for one in value]
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, torch.device) else value


def _has(callbacks: Sequence[Callback], callback_class: type[Callback]) -> bool:
    return any(isinstance(callback, callback_class) for callback in callbacks)


def _loggers(root: Path) -> list[Logger]:
    csv = CSVLogger(root, name="logs")
    return [csv, TensorBoardLogger(root, name="logs", version=csv.version)]


def _trainer_defaults() -> dict[str, Any]:
    return {
        "default_root_dir": _DEFAULT_ROOT,
        "precision": "auto",
        "gradient_clip_val": 1.0,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10,
        # The loaders divide samples between processes themselves.
        "use_distributed_sampler": False,
    }
