from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from unirs.errors import ModelError
from unirs.inference.api import UniRS
from unirs.models.llm import LLMConfig, build_llm, quantize_llm, set_llm_tuning, train_tokenizer
from unirs.models.quantization import dequantize, is_quantized
from unirs.tasks.media import Image

IDS = torch.arange(12).view(2, 6)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny language model and its tokenizer."""
    folder = tmp_path_factory.mktemp("llm")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config: Any = LlamaConfig(**sizes, vocab_size=300, max_position_embeddings=2048)  # type: ignore[arg-type]
    LlamaForCausalLM(config).save_pretrained(folder)
    train_tokenizer(["Which colour? red", "What changed?"], 290).save_pretrained(folder)
    return folder


def build(source: Path, **options: Any) -> Any:  # noqa: ANN401
    return build_llm(LLMConfig(source=str(source), **options))[0].eval()


def quantized_names(model: torch.nn.Module) -> list[str]:
    return [name for name, layer in model.named_modules() if is_quantized(layer)]


@torch.no_grad()
def test_frozen_linear_layers_have_four_bits(source: Path) -> None:
    plain, quantized = build(source, tune="frozen"), build(source, tune="frozen", quantize="nf4")
    linear = [name for name, layer in plain.named_modules() if isinstance(layer, torch.nn.Linear)]
    assert quantized_names(quantized) == [name for name in linear if name != "lm_head"]
    weights = quantized.model.layers[0].mlp.up_proj.weight
    assert (weights.dtype, weights.numel()) == (torch.uint8, 64 * 128 // 2)
    difference = (quantized(IDS).logits - plain(IDS).logits).abs().max() / plain(IDS).logits.std()
    assert 1e-3 < difference < 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.no_grad()
def test_quantizing_again_changes_nothing(source: Path, dtype: str) -> None:
    model = build(source, tune="frozen", quantize="nf4", dtype=dtype)
    expected = model(IDS).logits
    again = deepcopy(model)
    dequantize(again)
    assert not quantized_names(again)
    assert again.model.layers[0].mlp.up_proj.weight.dtype == getattr(torch, dtype)
    quantize_llm(again, "nf4")
    assert torch.equal(again(IDS).logits, expected)


def test_adapters_learn_on_four_bits(source: Path) -> None:
    model = build(source, tune="lora", quantize="nf4")
    model(IDS).logits.sum().backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learning == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning
    assert all("lora_" in name for name in learning)


def test_all_weights_cannot_be_trained(source: Path) -> None:
    with pytest.raises(ModelError, match=r"llm\.quantize and 'tune: full' exclude each other"):
        build(source, tune="full", quantize="nf4")
    with pytest.raises(ModelError, match="exclude each other"):
        set_llm_tuning(build(source, tune="frozen"), LLMConfig(quantize="nf4"), [])


def test_missing_package(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError, match=r"pip install 'unirs\[quantize\]'"):
        build(source, tune="frozen", quantize="nf4")


def test_train_save_resume_and_merge(
    source: Path,
    tmp_path: Path,
    colours: Path,
    colour_tasks: list[dict[str, Any]],
    cli: Callable[..., int],
    write_config: Callable[..., Path],
) -> None:
    llm = {"source": str(source), "tune": "lora", "quantize": "nf4", "lora": {"r": 4}, "config": None}
    config = write_config(tmp_path, colour_tasks, model={"llm": llm, "optim": {"lr": 0.01}})
    assert cli("fit", "--config", config, "--trainer.max_epochs", 1) == 0
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all("lora_" in name for name in state if name.startswith("model.llm."))
    last = ("--ckpt_path", checkpoint, "--trainer.max_epochs", 2)
    assert cli("fit", "--config", config, *last) == 0
    resumed = torch.load(checkpoint, weights_only=True)
    assert resumed["epoch"] == 1

    media, question = [Image(colours / "red.png")], "Which colour?"
    run = UniRS.from_pretrained(tmp_path / "run", device="cpu", trust_remote_code=True)
    assert quantized_names(run.model.llm)
    expected = run.predict(media, question)[0]
    run.save_pretrained(tmp_path / "saved")
    assert quantized_names(run.model.llm)
    saved = UniRS.from_pretrained(tmp_path / "saved", device="cpu", trust_remote_code=True)
    assert quantized_names(saved.model.llm) == quantized_names(run.model.llm)
    assert saved.predict(media, question)[0].logprobs == expected.logprobs
    merged = saved.merged()
    assert not quantized_names(merged.model.llm)
    assert merged.config.llm["quantize"] is None
    assert merged.predict(media, question)[0].logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    again = UniRS.from_pretrained(tmp_path / "merged", device="cpu", trust_remote_code=True)
    assert again.predict(media, question)[0].logprobs == pytest.approx(expected.logprobs, abs=1e-4)

    # Another training starts from the quantized model, and quantizes its merged weights.
    init = {"init": str(tmp_path / "saved"), "trust_remote_code": True}
    start = {**init, "encoder": {"tune": "frozen"}, "change": None, "llm": {"tune": "lora", "quantize": "nf4"}}
    second = write_config(tmp_path / "second", colour_tasks, model=start)
    assert cli("fit", "--config", second) == 0
    model = UniRS.from_pretrained(tmp_path / "second" / "run", device="cpu", trust_remote_code=True).model.llm
    assert quantized_names(model) == quantized_names(run.model.llm)
