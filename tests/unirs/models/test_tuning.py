from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unirs.errors import ModelError
from unirs.models.tuning import (
    Lora,
    adapters_off,
    base_state,
    has_adapters,
    merge_adapters,
    set_tuning,
    train_adapters,
    write_adapter,
)

Make = Callable[..., Any]
IDS = torch.arange(12).view(2, 6)


@pytest.fixture
def llama() -> Make:
    """Makes tiny language models."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(*, tied: bool = False, added: int = 0) -> Any:  # noqa: ANN401
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            vocab_size=20,
            tie_word_embeddings=tied,
        )
        model = LlamaForCausalLM(config)
        if added:
            model.resize_token_embeddings(20 + added, mean_resizing=False)
        return model.eval()

    return make


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 16, 1), nn.Dropout()
    )


def learning(component: nn.Module) -> set[str]:
    return {name for name, parameter in component.named_parameters() if parameter.requires_grad}


def stir(component: nn.Module) -> None:
    """As training would: whatever learns is another."""
    with torch.no_grad():
        for parameter in component.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def test_full_and_frozen(llama: Make) -> None:
    component = llama()
    # As positions that are computed, not learnt.
    component.model.norm.weight.requires_grad_(False)
    set_tuning(component, "full", Lora())
    assert learning(component) == {name for name, _ in component.named_parameters()} - {"model.norm.weight"}
    set_tuning(component, "frozen", Lora())
    assert learning(component) == set()
    assert not has_adapters(component)


def test_adapters_initially_change_nothing_and_are_trained_alone(llama: Make) -> None:
    component = llama()
    before = component(IDS).logits
    set_tuning(component, "lora", Lora(r=4), exclude=[component.get_output_embeddings()])
    assert has_adapters(component)
    torch.testing.assert_close(component(IDS).logits, before, rtol=0, atol=0)
    # Seven linear layers a block, two matrices each; not the output layer.
    assert len(learning(component)) == 2 * 7 * 2
    assert all("lora_" in name and "lm_head" not in name for name in learning(component))
    component(IDS).logits.sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in component.parameters())


def test_default_targets_are_all_linear_layers(llama: Make) -> None:
    component = llama()
    set_tuning(component, "lora", Lora())
    assert "lm_head.lora_A.default.weight" in learning(component)


def test_rank_alpha_and_targets(llama: Make) -> None:
    component = llama()
    set_tuning(component, "lora", Lora(r=3, lora_alpha=6, target_modules=("q_proj", "layers.1.mlp.up_proj")))
    layers = {name.rpartition(".lora_")[0] for name in learning(component)}
    assert layers == {
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
    }
    query = component.model.layers[0].self_attn.q_proj
    assert query.lora_A["default"].weight.shape == (3, 16)
    x = torch.randn(1, 16)
    stir(component)
    added = query.lora_B["default"](query.lora_A["default"](x))
    torch.testing.assert_close(query(x), query.base_layer(x) + 6 / 3 * added)


def test_adapters_are_float32_beside_half_precision(llama: Make) -> None:
    component = llama().to(torch.bfloat16)
    set_tuning(component, "lora", Lora(), new_tokens=[3])
    assert {parameter.dtype for parameter in component.parameters() if parameter.requires_grad} == {torch.float32}
    assert component.model.layers[0].mlp.up_proj.base_layer.weight.dtype == torch.bfloat16
    assert component(IDS).logits.dtype == torch.bfloat16


def test_default_targets_are_convolutions_without_linear_layers() -> None:
    component = convolutions().eval()
    image = torch.randn(1, 3, 8, 8)
    before = component(image)
    set_tuning(component, "lora", Lora(r=2))
    # Not the one that treats each channel alone.
    assert {name[0] for name in learning(component)} == {"0", "3"}
    torch.testing.assert_close(component(image), before, rtol=0, atol=0)
    stir(component)
    assert not torch.allclose(component(image), before)


@pytest.mark.parametrize("tied", [False, True])
def test_new_tokens_are_trained_beside_the_adapters(llama: Make, tied: bool) -> None:
    component = llama(tied=tied)
    before = component(IDS).logits
    set_tuning(component, "lora", Lora(), exclude=[component.get_output_embeddings()], new_tokens=[3, 4])
    torch.testing.assert_close(component(IDS).logits, before)
    (tokens,) = (name for name in learning(component) if "lora_" not in name)
    assert component.get_parameter(tokens).shape == (2, 16)
    embeddings = component.get_input_embeddings()
    old = embeddings(torch.arange(20))
    stir(component)
    changed = (embeddings(torch.arange(20)) != old).any(1)
    assert changed.nonzero().flatten().tolist() == [3, 4]


@pytest.mark.parametrize("tied", [False, True])
def test_adapters_off_is_the_base(llama: Make, tied: bool) -> None:
    component = llama(tied=tied)
    before = component(IDS).logits
    base = {key: value.clone() for key, value in component.state_dict().items()}
    set_tuning(component, "lora", Lora(), exclude=[component.get_output_embeddings()], new_tokens=[3, 4])
    stir(component)
    # One that a user set to rest.
    component.model.layers[0].mlp.up_proj.lora_A["default"].weight.requires_grad_(False)
    learnt, names = component(IDS).logits, learning(component)
    assert not torch.allclose(learnt, before, atol=1e-3)
    with adapters_off(component):
        torch.testing.assert_close(component(IDS).logits, before)
    torch.testing.assert_close(component(IDS).logits, learnt, rtol=0, atol=0)
    assert learning(component) == names
    left = list(base_state(component).values())
    assert len(left) == len(base)
    assert all(torch.equal(value, was) for value, was in zip(left, base.values(), strict=True))


@pytest.mark.parametrize("tied", [False, True])
def test_merged_adapters_compute_the_same(llama: Make, tied: bool) -> None:
    model = llama(tied=tied)
    names = set(model.state_dict())
    set_tuning(model, "lora", Lora(r=2), exclude=[model.get_output_embeddings()], new_tokens=[3, 4])
    stir(model)
    expected = model(IDS).logits
    merge_adapters(model)
    torch.testing.assert_close(model(IDS).logits, expected, atol=1e-4, rtol=1e-4)
    assert not has_adapters(model)
    assert set(model.state_dict()) == names
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    # The merged model can be tuned again.
    set_tuning(model, "lora", Lora(r=2), exclude=[model.get_output_embeddings()])
    torch.testing.assert_close(model(IDS).logits, expected, atol=1e-4, rtol=1e-4)


def test_merged_convolutions_compute_the_same() -> None:
    component, image = convolutions().eval(), torch.randn(1, 3, 8, 8)
    set_tuning(component, "lora", Lora(r=2))
    stir(component)
    expected = component(image)
    merge_adapters(component)
    torch.testing.assert_close(component(image), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's use of it
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("added", [0, 2])
def test_exported_adapters_load_with_peft(llama: Make, tmp_path: Path, tied: bool, added: int) -> None:
    from peft import PeftModel

    model = llama(tied=tied, added=added)
    new_tokens = list(range(20, 20 + added))
    set_tuning(model, "lora", Lora(r=2), exclude=[model.get_output_embeddings()], new_tokens=new_tokens)
    stir(model)
    write_adapter(tmp_path, model)
    assert {path.name for path in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    base = llama(tied=tied)
    if added:
        base.resize_token_embeddings(20 + added, mean_resizing=False)
    loaded = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    ids = IDS + added
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits)


def test_no_adapters_to_export(llama: Make, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no LoRA adapters"):
        write_adapter(tmp_path, llama())


def test_adapters_are_enabled_again_after_an_error(llama: Make) -> None:
    component = llama()
    set_tuning(component, "lora", Lora())
    stir(component)
    learnt, names = component(IDS).logits, learning(component)

    def fail() -> None:
        with adapters_off(component), adapters_off(component):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    torch.testing.assert_close(component(IDS).logits, learnt, rtol=0, atol=0)
    assert learning(component) == names


def test_base_state_without_adapters_is_all(llama: Make) -> None:
    component = llama()
    assert base_state(component).keys() == component.state_dict().keys()


def test_only_dropout_of_adapters_is_in_training_mode() -> None:
    component = convolutions()
    set_tuning(component, "lora", Lora(r=2, lora_dropout=0.5))
    before = {name: value.clone() for name, value in component[1].named_buffers()}
    train_adapters(component, mode=True)
    stir(component)
    image = torch.randn(2, 3, 8, 8)
    # The adapters drop something else each time; the component's own dropout and batch statistics rest.
    assert not torch.equal(component(image), component(image))
    assert not component[4].training
    assert all(torch.equal(value, before[name]) for name, value in component[1].named_buffers())
    train_adapters(component, mode=False)
    assert torch.equal(component(image), component(image))


def test_options_of_a_config() -> None:
    assert Lora.parse({}) == Lora()
    given = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["q_proj"]}
    lora = Lora.parse(given)
    assert lora == Lora(4, 8, 0.1, ("q_proj",))
    assert lora.as_options() == given
    assert Lora.parse(Lora().as_options()) == Lora()
    with pytest.raises(ModelError, match=r"lora has no option 'rr'\. Did you mean 'r'"):
        Lora.parse({"rr": 4})


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (Lora(target_modules=("q_proj", "vproj")), r"LlamaForCausalLM has no layer 'vproj'\. Did you mean 'v_proj'"),
        (Lora(target_modules=("norm",)), "No LoRA for LlamaForCausalLM: .*LlamaRMSNorm"),
    ],
)
def test_unsuitable_adapters(lora: Lora, message: str, llama: Make) -> None:
    with pytest.raises(ModelError, match=message):
        set_tuning(llama(), "lora", lora)


def test_nothing_to_adapt() -> None:
    with pytest.raises(ModelError, match="No LoRA for Sequential"):
        set_tuning(nn.Sequential(nn.ReLU()), "lora", Lora())
