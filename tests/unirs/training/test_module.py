import csv
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Trainer
from torch import nn

from unirs.data.datamodule import UniRSDataModule
from unirs.errors import ModelError
from unirs.models.builder import ProjectorConfig
from unirs.models.checkpoint import load_checkpoint
from unirs.models.llm import LLMConfig
from unirs.training.module import UniRSModule
from unirs.training.muon import Muon
from unirs.training.optim import OptimConfig

# Lightning's advice, and its call of a deprecated function.
pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:lightning.pytorch.utilities._pytree"),
]

Cli = Callable[..., int]
WriteConfig = Callable[..., Path]

LLM = LLMConfig(
    config={
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    vocab_size=280,
)

ENCODER = '''\
import torch
from torch import nn

from unirs.tasks.media import ResizeSpec


class Patches(nn.Module):
    """Means of 16x16 pixels through one linear layer."""

    image_size, resize, grid, embed_dim, init_config = (64, 64), ResizeSpec(), (4, 4), 8, {}

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 8)
        self.layer.weight.data = torch.linspace(-1, 1, 24).view(8, 3)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        means = nn.functional.avg_pool2d(frames / 255.0, 16)
        return self.layer(means.flatten(2).transpose(1, 2))


def build(frozen: bool = False) -> nn.Module:
    return Patches().requires_grad_(not frozen)


def no_encoder() -> nn.Module:
    return nn.Linear(1, 1)
'''


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    (tmp_path / "patches.py").write_text(ENCODER)
    return str(tmp_path / "patches.py")


@pytest.fixture
def train(colour_tasks: list[dict[str, Any]], tmp_path: Path) -> Callable[[UniRSModule], Trainer]:
    """Trains a module on one batch of all tasks."""

    def run(module: UniRSModule, steps: int = 1) -> Trainer:
        trainer = Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            use_distributed_sampler=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(module, datamodule=UniRSDataModule(colour_tasks, batch_size=12, processor=module.processor))
        return trainer

    return run


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.named_parameters()}


def moved(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """The components of the model with changed parameters, as `model.component`."""
    after = weights(module)
    return {".".join(name.split(".")[:2]) for name, value in before.items() if not torch.equal(value, after[name])}


def test_a_few_samples_are_memorised(learnt_run: Path) -> None:
    (path,) = learnt_run.glob("logs/*/metrics.csv")
    with path.open() as file:
        logged = [row for row in csv.DictReader(file) if row["train/loss"]]
    losses = [float(row["train/loss"]) for row in logged]
    assert len(losses) == 100
    assert all(float(row["samples/s"]) > 0 for row in logged)
    assert losses[-1] < losses[0] / 20
    document = json.loads((learnt_run / "test" / "metrics.json").read_text())
    assert {task: metrics["accuracy"]["value"] for task, metrics in document["tasks"].items()} == {
        "image": 1.0,
        "pair": 1.0,
        "video": 1.0,
    }
    # It uses the media: on black frames it can only guess.
    blank = document["baselines"]["blank"]
    assert all(blank[task]["accuracy"]["value"] < 1 for task in ("image", "pair", "video"))


def test_frozen_encoder_does_not_change(encoder: str, train: Callable[[UniRSModule], Trainer]) -> None:
    optim = OptimConfig(lr=0.01)
    module = UniRSModule({"name": encoder, "frozen": True}, LLM, {"name": "change_extraction"}, optim=optim)
    before = weights(module)
    train(module)
    assert moved(module, before) == {"model.change", "model.projector", "model.llm"}
    assert all(parameter.grad is None for parameter in module.model.encoder.parameters())


@pytest.mark.parametrize(
    ("change", "learns"), [(None, False), ("change_extraction", True), ("concat", True), ("difference", False)]
)
def test_every_extractor_trains(
    change: str | None, learns: bool, encoder: str, train: Callable[[UniRSModule], Trainer]
) -> None:
    module = UniRSModule(
        {"name": encoder}, LLM, None if change is None else {"name": change}, optim=OptimConfig(lr=0.01, warmup_ratio=0)
    )
    before = weights(module)
    train(module)
    assert moved(module, before) == {"model.encoder", "model.projector", "model.llm"} | (
        {"model.change"} if learns else set()
    )


def test_nothing_to_train(encoder: str, train: Callable[[UniRSModule], Trainer]) -> None:
    module = UniRSModule({"name": encoder, "frozen": True}, LLM)
    module.requires_grad_(False)
    with pytest.raises(ModelError, match="Every component of the model is frozen"):
        train(module)


def test_weight_decay_is_for_matrices(encoder: str, train: Callable[[UniRSModule], Trainer]) -> None:
    optim = OptimConfig(lr=0.01, weight_decay=0.3)
    module = UniRSModule({"name": encoder, "frozen": True}, LLM, {"name": "change_extraction"}, optim=optim)
    (optimizer,) = train(module).optimizers
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert set(decay) == {name for name in names.values() if not name.startswith("model.encoder")}
    decayed = {name for name, value in decay.items() if value == 0.3}
    assert {name for name, value in decay.items() if value not in (0.0, 0.3)} == set()
    for name in ("model.llm.lm_head.weight", "model.change.fuse.weight", "model.llm.model.layers.0.mlp.up_proj.weight"):
        assert name in decayed
    spared = set(decay) - decayed
    for name in ("model.llm.model.embed_tokens.weight", "model.change.rows.weight", "model.llm.model.norm.weight"):
        assert name in spared
    assert not [name for name in decayed if name.endswith("bias") or "norm" in name]


def test_learning_rate_schedule(encoder: str, train: Callable[..., Trainer]) -> None:
    rates: list[float] = []

    class Watched(UniRSModule):
        def on_train_batch_start(self, batch: object, batch_idx: int) -> None:  # noqa: ARG002
            rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    train(Watched({"name": encoder}, LLM, optim=OptimConfig(lr=0.01, warmup_ratio=0.2)), steps=10)
    assert rates[0] == 0
    assert max(rates) == rates[2] == 0.01
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_a_plugin_that_is_not_an_encoder(encoder: str) -> None:
    with pytest.raises(ModelError, match="built a Linear without image_size, resize, grid, embed_dim or init_config"):
        UniRSModule({"name": f"{encoder}:no_encoder"}, LLM)


def test_no_tokenizer_before_training(encoder: str) -> None:
    with pytest.raises(ModelError, match="no tokenizer yet: train it, or load a checkpoint"):
        UniRSModule({"name": encoder}, LLM).processor.prompt_encoder()


def test_checkpoint_contains_the_tokenizer(
    encoder: str, train: Callable[[UniRSModule], Trainer], tmp_path: Path
) -> None:
    module = UniRSModule({"name": encoder}, LLM)
    trainer = train(module)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = UniRSModule({"name": encoder}, LLM)
    tokenizer, steps = load_checkpoint(tmp_path / "a.ckpt", other.model)
    assert tokenizer is not None
    text = "USER: [vqa] Which colour?\nASSISTANT: grün"
    assert tokenizer(text)["input_ids"] == module.processor.require_tokenizer()(text)["input_ids"]
    assert steps == 1
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in module.state_dict().items())
    larger = deepcopy(LLM)
    larger.vocab_size = 300
    with pytest.raises(ModelError, match=r"do not fit.*size mismatch for llm\."):
        load_checkpoint(tmp_path / "a.ckpt", UniRSModule({"name": encoder}, larger).model)


def test_frozen_encoder_from_a_config(
    encoder: str, colour_tasks: list[dict[str, Any]], tmp_path: Path, cli: Cli, write_config: WriteConfig
) -> None:
    config = write_config(tmp_path, colour_tasks, model={"encoder": {"name": encoder, "frozen": True}})
    assert cli("fit", "--config", config) == 0
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    # Its source has them.
    assert "model.encoder.layer.weight" not in saved
    assert "model.encoder.layer.bias" not in saved
    resolved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert resolved["model"]["encoder"] == {"name": encoder, "frozen": True}


COMPONENTS = '''\
import torch
from torch import nn

from unirs.tasks.media import ResizeSpec


class WrongGrid(nn.Module):
    """Declares a grid of 4x4 tokens and returns 2x2."""

    image_size, resize, grid, embed_dim, init_config = (64, 64), ResizeSpec(), (4, 4), 8, {}

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 8)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.layer(nn.functional.avg_pool2d(frames / 255.0, 32).flatten(2).transpose(1, 2))


class SmallGrid(nn.Module):
    """Takes tokens of a 2x2 grid for any `grid`."""

    def __init__(self, grid: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(4, dim))

    def forward(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        return after - before + self.position


class OneToken(SmallGrid):
    def forward(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        return (after - before).mean(1, keepdim=True)
'''


@pytest.fixture
def components(tmp_path: Path) -> str:
    (tmp_path / "components.py").write_text(COMPONENTS)
    return str(tmp_path / "components.py")


def test_an_encoder_with_a_wrong_output_shape(components: str) -> None:
    with pytest.raises(ModelError, match=r"WrongGrid.* must return \[1, 16, 8\].*but returned \[1, 4, 8\]"):
        UniRSModule({"name": f"{components}:WrongGrid"}, LLM)


def test_a_change_extractor_for_another_grid(encoder: str, components: str) -> None:
    with pytest.raises(ModelError, match=r"SmallGrid does not take inputs of shape \[1, 16, 8\].* 4x4"):
        UniRSModule({"name": encoder}, LLM, {"name": f"{components}:SmallGrid"})
    with pytest.raises(ModelError, match=r"OneToken.* must return \[1, 16, 8\].*but returned \[1, 1, 8\]"):
        UniRSModule({"name": encoder}, LLM, {"name": f"{components}:OneToken"})


def test_given_weights_are_for_saved_models_only(encoder: str) -> None:
    with pytest.raises(ModelError, match="'pretrained: given' is for saved models"):
        UniRSModule({"name": "timm", "model": "resnet18", "pretrained": "given"}, LLM)
    with pytest.raises(ModelError, match=r"projector is frozen with random weights.*'source'"):
        UniRSModule({"name": encoder}, LLM, projector=ProjectorConfig(tune="frozen"))


def test_learning_rates_by_component(encoder: str, train: Callable[[UniRSModule], Trainer]) -> None:
    optim = OptimConfig(lr=0.01, lr_multipliers={"encoder": 0.0})
    module = UniRSModule({"name": encoder}, LLM, optim=optim)
    before = weights(module)
    train(module)
    assert moved(module, before) == {"model.projector", "model.llm"}
    module = UniRSModule({"name": encoder}, LLM, optim=OptimConfig(lr_multipliers={"encodre": 0.1}))
    with pytest.raises(ModelError, match=r"unknown component 'encodre'.*Did you mean 'encoder'"):
        train(module)


def test_muon_is_for_linear_layers(encoder: str, train: Callable[[UniRSModule], Trainer]) -> None:
    module = UniRSModule({"name": encoder}, LLM, {"name": "change_extraction"}, optim=OptimConfig(lr=0.01, muon=True))
    before = weights(module)
    (optimizer,) = train(module).optimizers
    assert moved(module, before) == {"model.encoder", "model.change", "model.projector", "model.llm"}
    assert isinstance(optimizer, Muon)
    by_muon = {id(p) for group in optimizer.param_groups if group["muon"] for p in group["params"]}
    layers = list(module.model.modules())
    assert by_muon == {id(layer.weight) for layer in layers if isinstance(layer, nn.Linear)}
    assert not by_muon & {id(layer.weight) for layer in layers if isinstance(layer, nn.Embedding | nn.Conv2d)}


def test_a_checkpoint_of_another_program(encoder: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ModelError, match="another program's"):
        load_checkpoint(tmp_path / "other.ckpt", UniRSModule({"name": encoder}, LLM).model)
