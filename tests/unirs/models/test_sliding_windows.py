from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from unirs.data.batch import tree_attention_mask
from unirs.data.token_tree import TokenTree
from unirs.models.unirs_model import UniRSModel

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("mistral", {"sliding_window": 4}),
        ("qwen2", {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1}),
        ("gemma3_text", {"sliding_window": 4, "sliding_window_pattern": 2, "head_dim": 16}),
    ],
)
@torch.no_grad()
def test_sliding_windows_in_branches(
    make_model: Callable[..., UniRSModel], model_type: str, options: dict[str, Any]
) -> None:
    model = make_model()
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **SMALL, **options)
    model.llm = AutoModelForCausalLM.from_config(config).eval()
    prefix, first, second = [1, 2, 3, 4, 5, 6], [7, 8, 9], [10, 11, 12, 13]
    tree = TokenTree()
    tree.add(prefix)
    for branch in (first, second):
        start = len(tree.input_ids)
        tree.add(branch)
        tree.close(start)
    embeds = model.llm.get_input_embeddings()(torch.tensor([tree.input_ids]))
    mask = tree_attention_mask(torch.tensor([tree.branch_end]))
    logits = model.forward_masked(embeds, mask, ())
    for branch, start in ((first, 6), (second, 9)):
        expected = model.llm(input_ids=torch.tensor([prefix + branch])).logits[0, 6:]
        torch.testing.assert_close(logits[0, start : start + len(branch)], expected, atol=1e-5, rtol=0)
    # The last branch again, after a prefix in the KV cache.
    cache = DynamicCache()
    model.forward_masked(embeds[:, :6], mask[:, :6, :6], (), cache)
    own = torch.cat([torch.ones(4, 6), torch.ones(4, 4).tril()], dim=1).bool()[None]
    cached = model.forward_masked(embeds[:, 9:], own, (), cache)
    torch.testing.assert_close(cached, logits[:, 9:], atol=1e-5, rtol=0)
