"""Projectors: map vision tokens to the language model's embedding space.

Letters of shapes: N images, h x w the grid of vision tokens, L = h * w, D their width.
"""

import torch
from torch import nn
from torch.nn import functional as F

from unirs.errors import ModelError


def space_to_depth(tokens: torch.Tensor, grid: tuple[int, int], scale: int) -> torch.Tensor:
    """Joins blocks of neighbouring tokens along the channels: `[N, L, D]` to `[N, h / scale, w / scale, scale^2 * D]`.

    The tokens of a block are joined row by row. A grid that blocks do not fill is padded with zeros, at the bottom and
    on the right.
    """
    n, _, dim = tokens.shape
    h, w = grid
    x = F.pad(tokens.view(n, h, w, dim), (0, 0, 0, -w % scale, 0, -h % scale))
    x = x.view(n, -(-h // scale), scale, -(-w // scale), scale, dim)
    return x.transpose(2, 3).flatten(3)


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
        # Column by column, as in the published weights.
        blocks = space_to_depth(tokens, self.grid, 2).transpose(1, 2).flatten(1, 2)
        return self.out(F.gelu(self.expand(self.norm(blocks))))  # type: ignore[no-any-return]


class PixelShuffleProjector(nn.Module):
    """Space-to-depth, then a linear layer or a perceptron: the connectors of Idefics3, SmolVLM and InternVL.

    Blocks of `scale` x `scale` tokens become one visual token each, row by row.

    Args:
        grid: h and w of the vision tokens.
        dim: width of the vision tokens.
        out: width of the language model's embeddings.
        scale: side of a block in tokens.
        mlp: LayerNorm, Linear, GELU, Linear (InternVL, arXiv 2404.16821, section 3.1); otherwise one linear layer
            without bias (Idefics3, arXiv 2408.12637, section 3.1).
    """

    def __init__(self, grid: tuple[int, int], dim: int, out: int, scale: int = 2, mlp: bool = True) -> None:
        super().__init__()
        self.grid, self.scale = grid, scale
        self.num_tokens = -(-grid[0] // scale) * -(-grid[1] // scale)
        width = scale**2 * dim
        self.norm = nn.LayerNorm(width) if mlp else nn.Identity()
        self.expand = nn.Linear(width, out, bias=mlp)
        self.out = nn.Sequential(nn.GELU(), nn.Linear(out, out)) if mlp else nn.Identity()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Projects `[N, L, D]` to `[N, L', out]`."""
        blocks = space_to_depth(tokens, self.grid, self.scale).flatten(1, 2)
        return self.out(self.expand(self.norm(blocks)))  # type: ignore[no-any-return]


class PoolProjector(nn.Module):
    """Average pooling, RMSNorm, Linear without bias (Gemma 3, arXiv 2503.19786, section 2.1).

    Args:
        grid: h and w of the vision tokens.
        dim: width of the vision tokens.
        out: width of the language model's embeddings.
        side: height and width of the pooled grid, which divide `grid`.
        eps: added to the mean square in the norm.
    """

    def __init__(self, grid: tuple[int, int], dim: int, out: int, side: int = 16, eps: float = 1e-6) -> None:
        super().__init__()
        if grid[0] % side or grid[1] % side:
            raise ModelError(f"Projector 'pool' does not pool a grid of {grid[0]}x{grid[1]} to {side}x{side}.")
        self.grid, self.side, self.num_tokens = grid, side, side**2
        self.norm = nn.RMSNorm(dim, eps)
        self.expand = nn.Linear(dim, out, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Projects `[N, L, D]` to `[N, side^2, out]`."""
        feature_map = tokens.transpose(1, 2).unflatten(2, self.grid)
        kernel = (self.grid[0] // self.side, self.grid[1] // self.side)
        pooled = F.avg_pool2d(feature_map, kernel).flatten(2).transpose(1, 2)
        return self.expand(self.norm(pooled))  # type: ignore[no-any-return]


class MlpProjector(nn.Module):
    """Linear, GELU, Linear on each token (LLaVA-1.5, arXiv 2310.03744, section 3).

    Args:
        grid: h and w of the vision tokens.
        dim: width of the vision tokens.
        out: width of the language model's embeddings.
        newline: append a trained embedding to the tokens of each image (LLaVA-OneVision, arXiv 2408.03326).
    """

    def __init__(self, grid: tuple[int, int], dim: int, out: int, newline: bool = False) -> None:
        super().__init__()
        self.num_tokens = grid[0] * grid[1] + newline
        self.expand = nn.Linear(dim, out)
        self.out = nn.Linear(out, out)
        self.newline = nn.Parameter(torch.randn(out) / out**0.5) if newline else None

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Projects `[N, L, D]` to `[N, L', out]`."""
        projected = self.out(F.gelu(self.expand(tokens)))
        if self.newline is None:
            return projected  # type: ignore[no-any-return]
        return torch.cat([projected, self.newline.expand(len(projected), 1, -1)], dim=1)
