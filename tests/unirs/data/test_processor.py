import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from unirs.data.datamodule import UniRSDataModule
from unirs.errors import ModelError
from unirs.models.llm import LLMConfig
from unirs.training.module import UniRSModule

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:lightning.pytorch.utilities._pytree"),
]

LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}

FROZEN = """\
import torch
from torch import nn

from unirs.tasks.media import ResizeSpec


class Scaled(nn.Module):
    image_size, resize, grid, embed_dim = (8, 8), ResizeSpec(), (4, 4), 4

    def __init__(self, scale: float):
        super().__init__()
        self.init_config = {"scale": scale}
        self.scale = nn.Parameter(torch.full((4, 1), scale), requires_grad=False)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        means = nn.functional.avg_pool2d(frames.float() / 255, 2).mean(1, keepdim=True)
        return (self.scale * means.flatten(2)).transpose(1, 2)

    def train(self, mode: bool = True):
        return super().train(False)


def build(scale: float) -> nn.Module:
    return Scaled(scale)
"""


@pytest.fixture
def make_module(tmp_path: Path) -> Callable[[float], UniRSModule]:
    """Modules with frozen encoders that differ in their weights alone."""
    (tmp_path / "frozen.py").write_text(FROZEN)

    def make(scale: float) -> UniRSModule:
        torch.manual_seed(0)
        return UniRSModule(
            {"name": str(tmp_path / "frozen.py"), "scale": scale}, LLMConfig(config=LLAMA, vocab_size=280)
        )

    return make


@pytest.fixture
def data(colour_tasks: list[dict[str, Any]], tmp_path: Path) -> UniRSDataModule:
    return UniRSDataModule(colour_tasks, batch_size=4, feature_cache=tmp_path / "features", blank_media=False)


def fit(module: UniRSModule, data: UniRSDataModule, folder: Path) -> Trainer:
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=data)
    return trainer


def test_two_modules_on_one_datamodule_have_separate_features(
    make_module: Callable[[float], UniRSModule], data: UniRSDataModule, tmp_path: Path
) -> None:
    modules = [make_module(1.0), make_module(2.0)]
    features = []
    for module in modules:
        data.processor = module.processor
        fit(module, data, tmp_path)
        batches = [batch for loader in data.test_dataloader() for batch in loader]
        # All of them come from the cache: the encoder is frozen, and all media were used in training.
        assert all(one is not None for batch in batches for one in batch.vision_features)
        features.append([one for batch in batches for one in batch.vision_features])
    for first, second in zip(*features, strict=True):
        assert torch.equal(2 * first, second)
    assert modules[0].processor.fingerprint != modules[1].processor.fingerprint
    assert len(list((tmp_path / "features").iterdir())) == 2


def test_batches_of_another_model_are_rejected(
    make_module: Callable[[float], UniRSModule], data: UniRSDataModule, tmp_path: Path
) -> None:
    data.processor = make_module(1.0).processor
    with pytest.raises(ModelError, match=r"made for another model.*data\.processor = module\.processor"):
        fit(make_module(1.0), data, tmp_path)


def test_a_datamodule_without_a_processor(
    make_module: Callable[[float], UniRSModule], data: UniRSDataModule, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"no processor.*data\.processor = module\.processor"):
        fit(make_module(1.0), data, tmp_path)


def test_loaders_work_without_a_trainer_and_the_module_with_plain_loaders(
    make_module: Callable[[float], UniRSModule], data: UniRSDataModule
) -> None:
    module = make_module(1.0)
    data.processor = module.processor
    data.setup("fit")
    (batch, *_) = data.train_dataloader()
    assert torch.isfinite(module.model.loss(batch))
    (loader, *_) = data.predict_dataloader()
    (batch, *_) = loader
    module.eval()
    assert [row.id for row in module.answer(batch)] == [query.id for query in batch.queries]


def test_workers_and_files_get_a_processor_without_weights(
    make_module: Callable[[float], UniRSModule], data: UniRSDataModule
) -> None:
    module = make_module(1.0)
    data.processor = module.processor
    data.setup("fit")
    copy = pickle.loads(pickle.dumps(module.processor))  # noqa: S301 - our own
    assert copy.key == module.processor.key
    assert copy.require_tokenizer()("red")["input_ids"] == module.processor.require_tokenizer()("red")["input_ids"]
    assert (copy.tasks, copy.generate_clues) == ({}, None)
    assert len(pickle.dumps(module.processor)) < 200_000


def test_validation_loss_is_that_of_the_answers(
    make_module: Callable[[float], UniRSModule], data: UniRSDataModule, tmp_path: Path
) -> None:
    module = make_module(1.0)
    data.processor = module.processor
    fit(module, data, tmp_path)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    logged = trainer.validate(module, datamodule=data, verbose=False)[0]
    module.eval()
    with torch.no_grad():
        # Training batches of the same media: the splits of this task are equal, and each epoch has all of them once.
        losses = [(len(batch.modalities), module.model.loss(batch)) for batch in data.train_dataloader()]
    expected = sum(count * loss for count, loss in losses) / sum(count for count, _ in losses)
    assert logged["val/loss"] == pytest.approx(float(expected), rel=1e-5)
    assert json.dumps(sorted(logged))  # plain numbers under plain names
