"""`attn_implementation: flex_attention`: block masks by flex attention (arXiv 2412.05496), other masks by SDPA.

Training computes whole trees, whose masks are block masks. In generation each step has a mask of another shape, for
which flex attention would be compiled anew.
"""

import warnings
from contextlib import nullcontext
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from unirs.errors import ModelError

TREE_ATTENTION = "unirs_tree_attention"
"""Its name in transformers, after `register`."""


def register() -> str:
    """Registers the attention function with transformers, and returns its name."""
    AttentionInterface.register(TREE_ATTENTION, _attention)
    AttentionMaskInterface.register(TREE_ATTENTION, sdpa_mask)
    return TREE_ATTENTION


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,  # noqa: ANN401 - a tensor or a block mask
    **options: Any,  # noqa: ANN401 - those of transformers
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if not isinstance(attention_mask, BlockMask):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if torch.is_autocast_enabled(query.device.type):
        # As for SDPA. Queries and keys are float32, since the position embeddings are.
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    on_cpu = query.device.type == "cpu"
    if on_cpu and query.requires_grad:
        raise ModelError("Flex attention trains on GPUs only. Set llm.attn_implementation to 'sdpa'.")
    # Compiled code for CPUs needs a C++ compiler.
    with torch.compiler.set_stance("force_eager") if on_cpu else nullcontext(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        return flex_attention_forward(module, query, key, value, attention_mask, **options)
