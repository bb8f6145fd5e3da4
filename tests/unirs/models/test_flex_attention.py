"""Flex attention with block masks: the logits of SDPA with dense masks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask
from transformers import AutoConfig, AutoModelForCausalLM

from unirs.data.batch import sliding_window_mask, tree_attention_mask
from unirs.data.block_mask import tree_block_mask, tree_positions
from unirs.data.collator import collate
from unirs.data.token_tree import NO_END, TokenTree
from unirs.errors import ModelError
from unirs.models.flex_attention import TREE_ATTENTION, register
from unirs.models.llm import LLMConfig, build_llm
from unirs.models.unirs_model import UniRSModel

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def trees(seed: int, count: int = 3) -> torch.Tensor:
    """`branch_end` of rows of random nested trees, two to a row; some rows are padded."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    def grow(tree: TokenTree, depth: int) -> None:
        start = len(tree.input_ids)
        tree.add([1] * (1 + draw(9)))
        for _ in range(draw(4) if depth else 0):
            grow(tree, depth - 1)
        tree.close(start)

    rows = []
    for _ in range(count):
        row = TokenTree()
        for _ in range(2):
            tree = TokenTree()
            tree.add([1] * (10 + draw(150)))
            for _ in range(draw(6)):
                grow(tree, 2)
            row.append(tree)
        rows.append(row.branch_end)
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


@pytest.mark.parametrize("seed", range(4))
def test_block_masks_are_those_of_trees(seed: int) -> None:
    branch_end = trees(seed)
    rows, length = branch_end.shape
    visual = torch.zeros(rows, length, dtype=torch.bool)
    # Two images in the prefix.
    visual[:, 1:4] = visual[:, 5:9] = True
    for bidirectional in (None, visual):
        dense = tree_attention_mask(branch_end, bidirectional)
        assert torch.equal(tree_positions(branch_end), dense.tril().sum(2) - 1)
        for window in (None, 1, 7, 100):
            expected = dense if window is None else sliding_window_mask(dense, window)
            block = tree_block_mask(branch_end, bidirectional, window)
            mask = create_mask(block.mask_mod, rows, 1, length, length, device="cpu")
            assert torch.equal(mask[:, 0], expected), (bidirectional is None, window)


def test_blocks_of_other_branches_are_skipped() -> None:
    # A prefix of one block, and two branches of two blocks each.
    branch_end = torch.tensor([[NO_END] * 128 + [384] * 256 + [640] * 256])
    block = tree_block_mask(branch_end)
    # 15 blocks are causal; the 4 between the branches are skipped.
    assert block.full_kv_num_blocks is not None
    assert int(block.kv_num_blocks.sum() + block.full_kv_num_blocks.sum()) == 15 - 4


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", {}),
        ("mistral", {"sliding_window": 20}),
        ("gemma3_text", {"sliding_window": 20, "sliding_window_pattern": 2, "head_dim": 16}),
    ],
)
@torch.no_grad()
def test_logits_are_those_of_sdpa(
    make_model: Callable[..., UniRSModel], model_type: str, options: dict[str, Any]
) -> None:
    model = make_model().eval()
    config = AutoConfig.for_model(model_type, **SMALL, **options)
    branch_end = trees(1)
    embeds = torch.randn(*branch_end.shape, 32)
    visual = torch.zeros_like(branch_end, dtype=torch.bool)
    logits = []
    for name in ("sdpa", register()):
        torch.manual_seed(0)
        model.llm = AutoModelForCausalLM.from_config(config, attn_implementation=name).eval()
        logits.append(model._logits_from_embeds(embeds, branch_end, visual, branch_end > 0))
    assert logits[0].std() > 0.01
    torch.testing.assert_close(logits[1], logits[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_mixed_precision(make_model: Callable[..., UniRSModel]) -> None:
    model = make_model().eval()
    branch_end = trees(1)
    embeds, visual = torch.randn(*branch_end.shape, 32), torch.zeros_like(branch_end, dtype=torch.bool)
    logits = []
    for name in ("sdpa", register()):
        model.llm.config._attn_implementation = name
        with torch.autocast("cpu", torch.bfloat16):
            logits.append(model._logits_from_embeds(embeds, branch_end, visual, branch_end > 0).float())
    # Of logits with a standard deviation of 0.1 and more.
    assert logits[0].std() > 0.1
    torch.testing.assert_close(logits[1], logits[0], atol=0.05, rtol=0.05)


def test_option_of_the_language_model(make_model: Callable[..., UniRSModel]) -> None:
    config = {"model_type": "llama", **{key: value for key, value in SMALL.items() if key != "vocab_size"}}
    llm, _ = build_llm(LLMConfig(config=config, vocab_size=300, attn_implementation="flex_attention"))
    assert llm.config._attn_implementation == TREE_ATTENTION
    model = make_model(change=False)
    model.llm = llm
    tree = TokenTree()
    tree.add([0] * 4, visual=True)
    tree.add([5, 6, 7], learn=True)
    batch = collate([torch.zeros(1, 3, 64, 64, dtype=torch.uint8)], ["image"], [tree], [(0,)])
    with pytest.raises(ModelError, match="trains on GPUs only"):
        model.loss(batch)
    with torch.no_grad():
        loss = model.loss(batch, "token_mean")
        llm.config._attn_implementation = "sdpa"
        torch.testing.assert_close(model.loss(batch, "token_mean"), loss)
