"""Projectors: map vision tokens to the language model's embedding space."""

import torch
from torch import nn
from torch.nn import functional as F


class DownsampleProjector(nn.Module):
    """2x2 space-to-depth, LayerNorm, Linear, GELU, Linear (VILA-1.5's down-sampling projector, paper section III-A).

    Four neighbouring tokens become one, so a grid of h x w takes ceil(h/2) * ceil(w/2) visual tokens. An odd grid is
    padded with zeros at the bottom and on the right.

    Args:
        grid: h and w of the vision tokens.
        dim: width of the vision tokens.
        out: width of the language model's embeddings.
    """

    published_component = "projector"

    def __init__(self, grid: tuple[int, int], dim: int, out: int) -> None:
        super().__init__()
        self.grid = grid
        self.num_tokens = ((grid[0] + 1) // 2) * ((grid[1] + 1) // 2)
        self.norm = nn.LayerNorm(4 * dim)
        self.expand = nn.Linear(4 * dim, out)
        self.out = nn.Linear(out, out)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Projects `[N, L, D]` to `[N, L', out]`."""
        return self.out(F.gelu(self.expand(self.norm(self._space_to_depth(tokens)))))  # type: ignore[no-any-return]

    def _space_to_depth(self, tokens: torch.Tensor) -> torch.Tensor:
        n, _, dim = tokens.shape
        h, w = self.grid
        x = F.pad(tokens.view(n, h, w, dim), (0, 0, 0, w % 2, 0, h % 2))
        x = x.view(n, (h + 1) // 2, 2, (w + 1) // 2, 2, dim)
        # Column-major, as in the published weights: [n, w/2, h/2, row in block, column in block, dim].
        return x.permute(0, 3, 1, 2, 4, 5).reshape(n, self.num_tokens, 4 * dim)


class MlpProjector(nn.Module):
    """Linear, GELU, Linear on each token (LLaVA-1.5, arXiv 2310.03744, section 3).

    The arguments are those of `DownsampleProjector`.
    """

    def __init__(self, grid: tuple[int, int], dim: int, out: int) -> None:
        super().__init__()
        self.num_tokens = grid[0] * grid[1]
        self.expand = nn.Linear(dim, out)
        self.out = nn.Linear(out, out)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Projects `[N, L, D]` to `[N, L, out]`."""
        return self.out(F.gelu(self.expand(tokens)))  # type: ignore[no-any-return]
