"""A run that trains in a fraction of a second, through the real command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Cli = Callable[..., int]
WriteConfig = Callable[..., Path]

ENCODER = '''\
import torch
from torch import nn

from unirs.tasks.media import ResizeSpec


class Patches(nn.Module):
    """Means of 32x32 pixels through one linear layer."""

    image_size, resize, grid, embed_dim, init_config = (64, 64), ResizeSpec(), (2, 2), 8, {}

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 8, bias=False).requires_grad_(False)
        self.layer.weight.data = torch.linspace(-1, 1, 24).view(8, 3)

    def train(self, mode: bool = True) -> "Patches":
        """Stays in evaluation mode, as a frozen encoder does."""
        return super().train(False)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        means = nn.functional.avg_pool2d(frames / 255.0, 32)
        return self.layer(means.flatten(2).transpose(1, 2))
'''


@pytest.fixture(scope="module")
def config(
    tmp_path_factory: pytest.TempPathFactory, colour_tasks: list[dict[str, Any]], write_config: WriteConfig
) -> Path:
    """The config of a run with a frozen encoder, which trains in a fraction of a second."""
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
