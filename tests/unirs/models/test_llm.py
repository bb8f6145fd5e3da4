import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from unirs.errors import ModelError
from unirs.models.llm import LLMConfig, build_llm, tokenizer_from_json, train_tokenizer

TEXTS = ["USER: [vqa] Is there a road?\nASSISTANT: yes", "USER: [vqa] Is there water?\nASSISTANT: no"]
LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
TOKENIZER = train_tokenizer(TEXTS, 300)


def from_config(vocab_size: int = 300, **options: Any) -> torch.nn.Module:  # noqa: ANN401 - a model type's own
    return build_llm(LLMConfig(config=LLAMA | options, vocab_size=vocab_size))[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with its tokenizer, as a hub has it."""
    torch.manual_seed(0)
    from_config().save_pretrained(tmp_path)  # type: ignore[operator]
    TOKENIZER.save_pretrained(tmp_path)
    return tmp_path


def load(folder: Path, **options: Any) -> Any:  # noqa: ANN401 - model and tokenizer
    return build_llm(LLMConfig(source=str(folder), **options))


def test_from_a_config() -> None:
    model, tokenizer = build_llm(LLMConfig(config=dict(LLAMA), vocab_size=300))
    assert tokenizer is None
    assert (model.config.model_type, model.config.hidden_size, model.config.vocab_size) == ("llama", 16, 300)
    ids = [model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id]
    assert ids == [TOKENIZER.pad_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id]
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_from_a_folder(folder: Path) -> None:
    model, tokenizer = load(folder)
    saved = load_file(folder / "model.safetensors")
    assert {key: value.tolist() for key, value in model.state_dict().items()} == {
        key: value.tolist() for key, value in saved.items()
    }
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert tokenizer(TEXTS)["input_ids"] == TOKENIZER(TEXTS)["input_ids"]
    assert tokenizer.eos_token == TOKENIZER.eos_token


def test_frozen(folder: Path) -> None:
    model, _ = load(folder, tune="frozen")
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("settings", [LLMConfig(), LLMConfig(source="x", config=dict(LLAMA))])
def test_neither_or_both(settings: LLMConfig) -> None:
    with pytest.raises(ModelError, match=r"exactly one of 'source'.*'config'"):
        build_llm(settings)


def test_frozen_from_scratch() -> None:
    with pytest.raises(ModelError, match=r"random weights and 'tune: frozen'.*'tune: full'"):
        build_llm(LLMConfig(config=dict(LLAMA), tune="frozen"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_type": "lama"}, "Unknown model_type 'lama'.*Did you mean 'llama'"),
        ({"model_type": "clip"}, "Unknown model_type 'clip'"),
        ({"hiden_size": 16}, "no option 'hiden_size'.*Did you mean 'hidden_size'"),
        ({"hidden_size": "wide"}, "does not describe a causal language model.*hidden_size"),
        ({"hidden_size": 17}, "does not describe a causal language model"),
        ({"num_attention_heads": 0}, "does not describe a causal language model"),
        ({"hidden_act": "rilu"}, "does not describe a causal language model.*rilu"),
    ],
)
def test_invalid_model_config(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=f"(?s){message}"):
        from_config(**options)


def test_config_may_not_set_the_vocabulary() -> None:
    with pytest.raises(ModelError, match=r"may not set 'vocab_size'.*llm\.vocab_size"):
        build_llm(LLMConfig(config=LLAMA | {"vocab_size": 400}))


def test_config_without_model_type() -> None:
    with pytest.raises(ModelError, match="needs a 'model_type'"):
        build_llm(LLMConfig(config={"hidden_size": 16}))


def test_options_under_another_name() -> None:
    # GPT-2 keeps `hidden_size` as `n_embd` and takes both.
    model, _ = build_llm(LLMConfig(config={"model_type": "gpt2", "hidden_size": 16, "n_layer": 1, "n_head": 2}))
    assert model.config.n_embd == 16


def test_missing_and_unexpected_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.extra.weight"] = weights.pop("model.norm.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"do not fit.*missing.*model\.norm\.weight.*unexpected.*model\.extra\.weight"):
        load(folder)


def test_weights_of_another_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(15)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"do not fit.*mismatched.*model\.norm\.weight"):
        load(folder)


def test_truncated_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"does not load \(.*Name a folder"):
        load(folder)


def test_folder_without_a_model(folder: Path) -> None:
    (folder / "empty").mkdir()
    for wrong in (folder / "empty", folder / "absent"):
        with pytest.raises(ModelError, match=f"(?s)'{wrong}' does not load"):
            load(wrong)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"(?s)does not load.*JSON"):
        load(folder)


def test_folder_without_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match=f"(?s)tokenizer of '{folder}' does not load"):
        load(folder)


def test_tokenizer_without_end(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text())
    del content["eos_token"]
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        load(folder)


@given(st.text())
@settings(max_examples=200)
def test_any_text_round_trips(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.decode(ids) == text
    assert all(id_ < 300 for id_ in ids)


def test_frequent_words_become_one_token() -> None:
    assert len(TOKENIZER(" there", add_special_tokens=False)["input_ids"]) == 1


def test_training_is_deterministic() -> None:
    first, second = (train_tokenizer(iter(TEXTS), 300).backend_tokenizer.to_str() for _ in range(2))
    assert first == second


def test_json_round_trip() -> None:
    again = tokenizer_from_json(TOKENIZER.backend_tokenizer.to_str())
    assert again(TEXTS)["input_ids"] == TOKENIZER(TEXTS)["input_ids"]
    for name in ("pad_token", "bos_token", "eos_token"):
        assert getattr(again, name) == getattr(TOKENIZER, name)
    assert (again.pad_token_id, again.bos_token_id, again.eos_token_id) == (0, 1, 2)
    assert again.decode(again("a , b .")["input_ids"]) == "a , b ."


@pytest.mark.parametrize("vocab_size", [259, 280, 5000])
def test_vocabulary_size_is_a_maximum(vocab_size: int) -> None:
    assert 259 <= len(train_tokenizer(TEXTS, vocab_size)) <= vocab_size


def test_vocabulary_too_small() -> None:
    with pytest.raises(ModelError, match=r"vocabulary of 258 tokens is too small.* 259"):
        train_tokenizer(TEXTS, 258)
