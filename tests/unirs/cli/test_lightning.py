"""Lightning's own options, callbacks, loggers, precisions and strategies through `unirs fit`."""

import csv
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Trainer

from unirs.data.datamodule import UniRSDataModule
from unirs.training.module import UniRSModule

Cli = Callable[..., int]
WriteConfig = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


def message(capfd: Capture) -> str:
    """The error message, which is a single line."""
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    (line,) = (line for line in captured.err.splitlines() if line.startswith("unirs: error: "))
    return line.removeprefix("unirs: error: ")


def checkpoints(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.rglob("*.ckpt"))


def callback(name: str, **options: object) -> dict[str, Any]:
    return {"callbacks": [{"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": options}]}


def logger(name: str, /, **options: object) -> dict[str, Any]:
    return {"logger": [{"class_path": f"lightning.pytorch.loggers.{name}", "init_args": options}]}


OURS = ["checkpoints/best.ckpt", "checkpoints/last.ckpt"]


@pytest.mark.parametrize(
    "trainer",
    [
        *({"precision": name} for name in ("bf16-true", "64-true", "bf16-mixed", "16-mixed")),
        *({"limit_val_batches": limit} for limit in (1, 1.0)),
        {"overfit_batches": 1},
        {"accumulate_grad_batches": 2, "gradient_clip_val": None},
        {"val_check_interval": 0.5},
        {"max_steps": 2, "max_epochs": -1, "max_time": {"hours": 1}},
        {"profiler": "simple"},
        {"detect_anomaly": True},
        {"enable_progress_bar": True},
        {"enable_model_summary": False},
        callback("EarlyStopping", monitor="val/loss"),
        callback("EarlyStopping", monitor="val/score", mode="max"),
        callback("ModelCheckpoint", monitor="val/loss", filename="loss", dirpath=None),
        callback("ModelCheckpoint", every_n_train_steps=1, save_top_k=-1),
        callback("LearningRateFinder", num_training_steps=3),
        callback("Timer", duration={"hours": 1}),
        callback("Timer", duration="00:01:00:00"),
        callback("StochasticWeightAveraging", swa_lrs=0.01),
        callback("GradientAccumulationScheduler", scheduling={0: 2}),
        callback("DeviceStatsMonitor", cpu_stats=False),
        callback("LearningRateMonitor", logging_interval="step"),
        callback("RichProgressBar") | {"enable_progress_bar": True},
        callback("TQDMProgressBar") | {"enable_progress_bar": True},
        callback("RichModelSummary"),
        callback("OnExceptionCheckpoint", dirpath="."),
        callback("WeightAveraging"),
        logger("CSVLogger", save_dir="."),
        logger("TensorBoardLogger", save_dir="."),
        {"logger": True},
        {"logger": False},
    ],
    ids=str,
)
# Lightning's advice on these options.
@pytest.mark.filterwarnings("default::UserWarning")
def test_training_options(
    trainer: dict[str, Any], fit: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = fit(**trainer)
    assert set(OURS) <= set(checkpoints(run))


@pytest.mark.parametrize(
    ("trainer", "left"),
    [
        ({"limit_val_batches": 0}, ["checkpoints/last.ckpt"]),
        ({"enable_checkpointing": False}, []),
        ({"barebones": True}, []),
        ({"fast_dev_run": True}, []),
    ],
    ids=str,
)
def test_training_without_validation_or_checkpoints(
    trainer: dict[str, Any], left: list[str], fit: Callable[..., Path], cli: Cli
) -> None:
    run = fit(**trainer)
    assert checkpoints(run) == left
    if "fast_dev_run" in trainer:
        assert not run.exists()
    if left:
        assert cli("test", "--config", run / "config.yaml") == 0
        assert (run / "test" / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("trainer", "text"),
    [
        ({"accelerator": "gpu"}, "No supported gpu backend found"),
        ({"limit_val_batches": 0.1}, "limit_val_batches"),
        ({"max_epochs": -1, "max_time": {"minutes": 1}}, "Cosine decay needs the number of training steps"),
        pytest.param(
            logger("WandbLogger"), "wandb", marks=pytest.mark.skipif(find_spec("wandb") is not None, reason="installed")
        ),
        (callback("EarlyStopping", monitor="val/lss"), "val/lss"),
    ],
    ids=str,
)
def test_impossible_settings_end_in_one_message(
    trainer: dict[str, Any], text: str, fit: Callable[..., Path], capfd: Capture
) -> None:
    fit(code=1, **trainer)
    assert text in message(capfd)


def test_training_for_a_given_time(fit: Callable[..., Path]) -> None:
    schedule = ("--model.lr_scheduler", "torch.optim.lr_scheduler.ConstantLR", "--model.lr_scheduler.factor", 1)
    fit(*schedule, max_epochs=-1, max_time={"seconds": 1})


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        (["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 0.1], {0.1, 0.01}),
        (
            ["--model.optimizer", "torch.optim.Adagrad", "--model.lr_scheduler", "torch.optim.lr_scheduler.LinearLR"],
            None,
        ),
        (
            [
                *("--model.lr_scheduler", "lightning.pytorch.cli.ReduceLROnPlateau"),
                *("--model.lr_scheduler.monitor", "val/loss"),
            ],
            None,
        ),
    ],
    ids=lambda value: str(value[1]) if isinstance(value, list) else "",
)
def test_another_optimizer_or_schedule(options: list[Any], rates: set[float] | None, fit: Callable[..., Path]) -> None:
    run = fit(*options, "--model.optim.lr_multipliers", '{"llm": 0.1}', max_epochs=2)
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    (optimizer,) = saved["optimizer_states"]
    decays = {group["weight_decay"] for group in optimizer["param_groups"]}
    assert decays == {0.0}
    if rates is not None:
        assert {round(group["initial_lr"], 9) for group in optimizer["param_groups"]} == rates
        assert {group["component"] for group in optimizer["param_groups"]} == {"change", "projector", "llm"}


def test_checkpoints_by_name_and_loggers_of_a_test(fit: Callable[..., Path], cli: Cli, tmp_path: Path) -> None:
    run = fit()
    for name in ("last", "best"):
        log = logger("CSVLogger", save_dir=str(tmp_path / name), name="", version="")
        (tmp_path / "log.yaml").write_text(yaml.safe_dump({"trainer": log}))
        command = ["test", "--config", run / "config.yaml", "--config", tmp_path / "log.yaml", "--ckpt_path", name]
        assert cli(*command) == 0
    tasks = json.loads((run / "test" / "metrics.json").read_text())["tasks"]
    with (tmp_path / "best" / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert {task: float(row[f"test/{task}/accuracy"]) for task in tasks} == {
        task: pytest.approx(metrics["accuracy"]["value"]) for task, metrics in tasks.items()
    }


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning:lightning.pytorch.utilities._pytree")
def test_a_trained_module_in_python(
    fit: Callable[..., Path], colour_tasks: list[dict[str, Any]], tmp_path: Path
) -> None:
    run = fit()
    module = UniRSModule.load_from_checkpoint(run / "checkpoints" / "best.ckpt", trust_remote_code=True)
    data = UniRSDataModule(colour_tasks, feature_cache_gb=0, processor=module.processor)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    (tested,) = trainer.test(module, data, verbose=False)[:1]
    assert {"test/image/accuracy", "test/pair/accuracy", "test/video/accuracy"} <= tested.keys()
    (validated,) = trainer.validate(module, data, verbose=False)[:1]
    assert {"val/loss", "val/score", "val/image/accuracy"} <= validated.keys()
    predicted = trainer.predict(module, data)
    assert predicted is not None
    assert len(predicted) == 3


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_strategies_with_two_processes(strategy: str, fit: Callable[..., Path]) -> None:
    assert checkpoints(fit(strategy=strategy, devices=2)) == OURS
