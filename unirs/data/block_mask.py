"""The attention mask of token trees as a block mask, for flex attention, which skips blocks of zeros."""

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask


def tree_positions(branch_end: torch.Tensor) -> torch.Tensor:
    """Position ids `[B, T]`: the number of tokens before each one that it attends to; 0 for padding."""
    rows, length = branch_end.shape
    is_token = (branch_end > 0).long()
    # Token j counts for the positions from j + 1 to before branch_end[j].
    change = torch.zeros(rows, length + 1, dtype=torch.long, device=branch_end.device)
    change[:, 1:] += is_token
    change.scatter_add_(1, branch_end.clamp(max=length), -is_token)
    return change.cumsum(1)[:, :length] * is_token


def tree_block_mask(
    branch_end: torch.Tensor, bidirectional: torch.Tensor | None = None, window: int | None = None
) -> BlockMask:
    """`tree_attention_mask`, limited by `sliding_window_mask` if there is a `window`, without its `[B, T, T]` booleans.

    Args:
        branch_end: int64 `[B, T]`, see `Batch`.
        bidirectional: bool `[B, T]`, tokens that attend to all adjacent ones of these.
        window: maximum number of tokens, itself included, that a token attends to.
    """
    positions = tree_positions(branch_end)
    runs = None if bidirectional is None else (~bidirectional).cumsum(1)

    def attends(row: torch.Tensor, _: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        is_token = branch_end[row, query] > 0
        mask = (key <= query) & (query < branch_end[row, key]) & is_token | (key == query)
        if bidirectional is not None and runs is not None:
            in_runs = bidirectional[row, query] & bidirectional[row, key]
            mask = mask | in_runs & (runs[row, query] == runs[row, key])
        return mask if window is None else mask & (positions[row, query] - positions[row, key] < window)

    rows, length = branch_end.shape
    return create_block_mask(attends, rows, None, length, length, device=branch_end.device)
