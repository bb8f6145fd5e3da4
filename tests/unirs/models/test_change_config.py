"""The change extractor's tuning and the source of its weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unirs import UniRS
from unirs.errors import ModelError, PluginError, UniRSError
from unirs.models.checkpoint import find_checkpoint, read_checkpoint
from unirs.models.llm import LLMConfig
from unirs.training.module import UniRSModule


@pytest.fixture(scope="module")
def saved(learnt_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("change") / "model"
    UniRS.from_pretrained(learnt_run, device="cpu", trust_remote_code=True).save_pretrained(folder)
    return folder


def weights_of(component: nn.Module | None) -> dict[str, torch.Tensor]:
    assert component is not None
    return component.state_dict()


def extractor(module: UniRSModule) -> nn.Module:
    assert module.model.change is not None
    return module.model.change


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def build(tiny_model: dict[str, Any], change: dict[str, Any]) -> UniRSModule:
    return UniRSModule(encoder=tiny_model["encoder"], llm=LLMConfig(**tiny_model["llm"]), change=change)


def test_source_is_a_run_or_a_saved_model(learnt_run: Path, saved: Path, tiny_model: dict[str, Any]) -> None:
    expected = weights_of(UniRS.from_pretrained(saved, device="cpu").model.change)
    for source in (learnt_run, saved):
        change = {"name": "change_extraction", "source": str(source), "tune": "frozen"}
        module = build(tiny_model, change)
        assert equal(extractor(module).state_dict(), expected)
        assert not any(parameter.requires_grad for parameter in extractor(module).parameters())
        assert module.built.change_config == {"name": "change_extraction"}


def test_source_is_a_published_folder(saved: Path, tmp_path: Path, tiny_model: dict[str, Any]) -> None:
    change = weights_of(UniRS.from_pretrained(saved, device="cpu").model.change)
    names = {"fuse": "Conv1", "residual": "LN.left", "columns": "h_embedding", "rows": "w_embedding"}
    published = {}
    for key, value in change.items():
        component, _, rest = key.partition(".")
        published[f"layers.change.{names[component]}.{rest}"] = value + 1
    published |= {f"layers.single.{layer}.weight": torch.zeros(1) for layer in (1, 2, 4)}
    save_file(published, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"mm_projector_type": "mlp_downsample"}')
    module = build(tiny_model, {"name": "change_extraction", "source": str(tmp_path)})
    assert equal(extractor(module).state_dict(), {key: value + 1 for key, value in change.items()})
    assert all(parameter.requires_grad for parameter in extractor(module).parameters())


def test_wrong_sources(saved: Path, tmp_path: Path, tiny_model: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"frozen with random weights. Set change\.source, or 'tune: full'"):
        build(tiny_model, {"name": "change_extraction", "tune": "frozen"})
    with pytest.raises(ModelError, match=r"(?s)weights in .*model do not fit ChangeExtraction: .*single\.0"):
        build(tiny_model, {"name": "change_extraction", "n_layers": 1, "source": str(saved)})
    with pytest.raises(UniRSError, match=r"nowhere.*config\.json"):
        build(tiny_model, {"name": "change_extraction", "source": str(tmp_path / "nowhere")})
    with pytest.raises(PluginError, match=r"model\.change: option 'tune' is 'ful'.*Did you mean 'full'"):
        build(tiny_model, {"name": "change_extraction", "tune": "ful"})


def test_frozen_extractor_stays_as_it_is(
    learnt_run: Path,
    colour_tasks: list[dict[str, Any]],
    tmp_path: Path,
    cli: Callable[..., int],
    write_config: Callable[..., Path],
) -> None:
    """Neither its weights nor its running statistics change, and it does not see the statistics of a batch."""
    config = write_config(tmp_path, colour_tasks, data={"batch_size": 12})
    options = ("--model.change.tune", "frozen", "--model.change.source", str(learnt_run))
    assert cli("fit", "--config", config, *options) == 0
    before = UniRS.from_pretrained(learnt_run, device="cpu", trust_remote_code=True)
    after = UniRS.from_pretrained(tmp_path / "run", device="cpu", trust_remote_code=True)
    assert equal(weights_of(before.model.change), weights_of(after.model.change))
    assert not equal(weights_of(before.model.projector), weights_of(after.model.projector))
    assert after.config.change == {"name": "change_extraction"}
    state = read_checkpoint(find_checkpoint(tmp_path / "run"))["state_dict"]
    assert not [key for key in state if key.startswith("model.change.") and key.endswith("weight")]
    module = UniRSModule(init=str(learnt_run), change={"tune": "frozen"}, trust_remote_code=True).train()
    assert module.model.training
    assert not any(child.training for child in extractor(module).modules())
    # The run that froze it does not hold its weights.
    with pytest.raises(ModelError, match="it was frozen in that run"):
        UniRSModule(init=str(learnt_run), change={"source": str(tmp_path / "run")}, trust_remote_code=True)


def test_shared_options_are_described(cli: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("plugins", "change_extractors", "difference") == 0
    described = capsys.readouterr().out
    assert "options of every change extractor:\n  tune: 'full' | 'frozen' (default: 'full')" in described
    assert "  source: Path | None (default: None)" in described
