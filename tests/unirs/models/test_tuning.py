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


def learning(part: nn.Module) -> set[str]:
    return {name for name, parameter in part.named_parameters() if parameter.requires_grad}


def stir(part: nn.Module) -> None:
    """As training would: whatever learns is another."""
    with torch.no_grad():
        for parameter in part.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def test_full_and_frozen(llama: Make) -> None:
    part = llama()
    # As positions that are computed, not learnt.
    part.model.norm.weight.requires_grad_(False)
    set_tuning(part, "full", Lora())
    assert learning(part) == {name for name, _ in part.named_parameters()} - {"model.norm.weight"}
    set_tuning(part, "frozen", Lora())
    assert learning(part) == set()
    assert not has_adapters(part)


def test_adapters_begin_as_no_change_and_learn_alone(llama: Make) -> None:
    part = llama()
    before = part(IDS).logits
    set_tuning(part, "lora", Lora(r=4), exclude=[part.get_output_embeddings()])
    assert has_adapters(part)
    torch.testing.assert_close(part(IDS).logits, before, rtol=0, atol=0)
    # Seven linear layers a block, two matrices each; not the output layer.
    assert len(learning(part)) == 2 * 7 * 2
    assert all("lora_" in name and "lm_head" not in name for name in learning(part))
    part(IDS).logits.sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in part.parameters())


def test_all_linear_layers_where_none_is_kept(llama: Make) -> None:
    part = llama()
    set_tuning(part, "lora", Lora())
    assert "lm_head.lora_A.default.weight" in learning(part)


def test_rank_alpha_and_targets(llama: Make) -> None:
    part = llama()
    set_tuning(part, "lora", Lora(r=3, lora_alpha=6, target_modules=("q_proj", "layers.1.mlp.up_proj")))
    layers = {name.rpartition(".lora_")[0] for name in learning(part)}
    assert layers == {
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
    }
    query = part.model.layers[0].self_attn.q_proj
    assert query.lora_A["default"].weight.shape == (3, 16)
    x = torch.randn(1, 16)
    stir(part)
    added = query.lora_B["default"](query.lora_A["default"](x))
    torch.testing.assert_close(query(x), query.base_layer(x) + 6 / 3 * added)


def test_adapters_are_float32_beside_half_precision(llama: Make) -> None:
    part = llama().to(torch.bfloat16)
    set_tuning(part, "lora", Lora(), new_tokens=[3])
    assert {parameter.dtype for parameter in part.parameters() if parameter.requires_grad} == {torch.float32}
    assert part.model.layers[0].mlp.up_proj.base_layer.weight.dtype == torch.bfloat16
    assert part(IDS).logits.dtype == torch.bfloat16


def test_convolutions_where_nothing_is_linear() -> None:
    part = convolutions().eval()
    picture = torch.randn(1, 3, 8, 8)
    before = part(picture)
    set_tuning(part, "lora", Lora(r=2))
    # Not the one that treats each channel alone.
    assert {name[0] for name in learning(part)} == {"0", "3"}
    torch.testing.assert_close(part(picture), before, rtol=0, atol=0)
    stir(part)
    assert not torch.allclose(part(picture), before)


@pytest.mark.parametrize("tied", [False, True])
def test_new_tokens_learn_beside_the_adapters(llama: Make, tied: bool) -> None:
    part = llama(tied=tied)
    before = part(IDS).logits
    set_tuning(part, "lora", Lora(), exclude=[part.get_output_embeddings()], new_tokens=[3, 4])
    torch.testing.assert_close(part(IDS).logits, before)
    (tokens,) = (name for name in learning(part) if "lora_" not in name)
    assert part.get_parameter(tokens).shape == (2, 16)
    embeddings = part.get_input_embeddings()
    old = embeddings(torch.arange(20))
    stir(part)
    changed = (embeddings(torch.arange(20)) != old).any(1)
    assert changed.nonzero().flatten().tolist() == [3, 4]


@pytest.mark.parametrize("tied", [False, True])
def test_adapters_off_is_the_base(llama: Make, tied: bool) -> None:
    part = llama(tied=tied)
    before = part(IDS).logits
    base = {key: value.clone() for key, value in part.state_dict().items()}
    set_tuning(part, "lora", Lora(), exclude=[part.get_output_embeddings()], new_tokens=[3, 4])
    stir(part)
    # One that a user set to rest.
    part.model.layers[0].mlp.up_proj.lora_A["default"].weight.requires_grad_(False)
    learnt, names = part(IDS).logits, learning(part)
    assert not torch.allclose(learnt, before, atol=1e-3)
    with adapters_off(part):
        torch.testing.assert_close(part(IDS).logits, before)
    torch.testing.assert_close(part(IDS).logits, learnt, rtol=0, atol=0)
    assert learning(part) == names
    left = list(base_state(part).values())
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
    component, picture = convolutions().eval(), torch.randn(1, 3, 8, 8)
    set_tuning(component, "lora", Lora(r=2))
    stir(component)
    expected = component(picture)
    merge_adapters(component)
    torch.testing.assert_close(component(picture), expected, atol=1e-4, rtol=1e-4)


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


def test_adapters_come_back_after_an_error(llama: Make) -> None:
    part = llama()
    set_tuning(part, "lora", Lora())
    stir(part)
    learnt, names = part(IDS).logits, learning(part)

    def fail() -> None:
        with adapters_off(part), adapters_off(part):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    torch.testing.assert_close(part(IDS).logits, learnt, rtol=0, atol=0)
    assert learning(part) == names


def test_base_state_without_adapters_is_all(llama: Make) -> None:
    part = llama()
    assert base_state(part).keys() == part.state_dict().keys()


def test_only_the_adapters_dropout_trains() -> None:
    part = convolutions()
    set_tuning(part, "lora", Lora(r=2, lora_dropout=0.5))
    before = {name: value.clone() for name, value in part[1].named_buffers()}
    train_adapters(part, mode=True)
    stir(part)
    picture = torch.randn(2, 3, 8, 8)
    # The adapters drop something else each time; the part's own dropout and batch statistics rest.
    assert not torch.equal(part(picture), part(picture))
    assert not part[4].training
    assert all(torch.equal(value, before[name]) for name, value in part[1].named_buffers())
    train_adapters(part, mode=False)
    assert torch.equal(part(picture), part(picture))


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
        (Lora(r=0), "No LoRA for LlamaForCausalLM: .*positive"),
    ],
)
def test_adapters_that_do_not_fit(lora: Lora, message: str, llama: Make) -> None:
    with pytest.raises(ModelError, match=message):
        set_tuning(llama(), "lora", lora)


def test_nothing_to_adapt() -> None:
    with pytest.raises(ModelError, match="No LoRA for Sequential"):
        set_tuning(nn.Sequential(nn.ReLU()), "lora", Lora())
