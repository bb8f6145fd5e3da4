"""Lightning's own options, callbacks, loggers, precisions and strategies through `unirs fit`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Cli = Callable[..., int]
WriteConfig = Callable[..., Path]
Capture = pytest.CaptureFixture[str]

ENCODER = '''\
import torch
from torch import nn

from unirs.tasks.media import ResizeSpec


class Patches(nn.Module):
    """Means of 32x32 pixels through one linear layer."""

    image_size, resize, grid, embed_dim, init_config = (64, 64), ResizeSpec(), (2, 2), 8, {}

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 8).requires_grad_(False)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        means = nn.functional.avg_pool2d(frames / 255.0, 32)
        return self.layer(means.flatten(2).transpose(1, 2))
'''


@pytest.fixture(scope="module")
def config(
    tmp_path_factory: pytest.TempPathFactory, colour_tasks: list[dict[str, Any]], write_config: WriteConfig
) -> Path:
    """The config of a run with a frozen encoder, of which a training takes a fraction of a second."""
    folder = tmp_path_factory.mktemp("lightning")
    (folder / "patches.py").write_text(ENCODER)
    llm = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = {
        "encoder": {"name": f"{folder / 'patches.py'}:Patches"},
        "llm": {"config": {"model_type": "llama", **llm}, "vocab_size": 280},
        "max_new_tokens": 3,
    }
    data = {"batch_size": 6, "feature_cache": str(folder / "features")}
    return write_config(folder, colour_tasks, model=model, data=data)


@pytest.fixture
def fit(config: Path, cli: Cli, tmp_path: Path) -> Callable[..., Path]:
    """Trains with further options; returns the run's folder."""

    def call(*arguments: object, code: int = 0, **trainer: object) -> Path:
        content = yaml.safe_load(config.read_text())
        content["trainer"] |= {"default_root_dir": str(tmp_path / "run"), **trainer}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
        assert cli("fit", "--config", tmp_path / "config.yaml", *arguments) == code
        return tmp_path / "run"

    return call


def message(capfd: Capture) -> str:
    """The one message that the command ends with."""
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    (line,) = (line for line in captured.err.splitlines() if line.startswith("unirs: error: "))
    return line.removeprefix("unirs: error: ")


def checkpoints(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.rglob("*.ckpt"))


def callback(name: str, **options: object) -> dict[str, Any]:
    return {"callbacks": [{"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": options}]}


def logger(name: str, **options: object) -> dict[str, Any]:
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
        {"max_steps": 1, "max_epochs": -1, "max_time": {"hours": 1}},
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
        callback("ThroughputMonitor", batch_size_fn="len"),
        callback("LearningRateMonitor", logging_interval="step"),
        callback("RichProgressBar"),
        callback("TQDMProgressBar"),
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
def test_training_options(trainer: dict[str, Any], fit: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run = fit(**trainer)
    assert set(OURS) <= set(checkpoints(run))
