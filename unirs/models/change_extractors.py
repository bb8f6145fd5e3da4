"""Change extractors: fuse the tokens of a pair's two times, so that a pair costs as many visual tokens as an image.

With `change: null` the language model gets the tokens of both frames instead.
"""

import torch
from torch import distributed, nn
from torch.nn import functional as F

from unirs.data.loaders import world
from unirs.errors import ModelError
from unirs.ranges import NonNegativeInt, PositiveInt, UnitInterval

_SUM_TO_DIFFERENCE = 3.0
"""Ratio of the magnitudes of the sum and the difference of two times' features: 2.4 to 3.4 for EfficientNet-Lite0 on
images of the same location."""


class ChangeExtraction(nn.Module):
    """The paper's change extraction module (arXiv 2412.20742, figure 3).

    One learned position embedding is added to both times; their cosine similarity at each position is added to every
    channel of their concatenation (spatial enhance); a 1x1 convolution and a residual bottleneck fuse them.

    Batch normalisation: the statistics of few pairs describe these scenes rather than the data, so that training would
    compute another function than evaluation. Batches with fewer than `min_pairs` pairs are therefore normalised with
    the running statistics, as in evaluation; they still train the affine parameters.

    Args:
        grid: h and w of the tokens.
        dim: width D of the tokens, even.
        n_layers: number of transformer layers before spatial enhance: this many over each time alone, with shared
            weights, then this many over both times jointly. The published recipe has 0.
        heads: attention heads of these layers.
        dropout: dropout of these layers, 0..1.
        min_pairs: minimum number of pairs in a training batch that is normalised with its own statistics.
    """

    published_component = "change"

    def __init__(
        self,
        grid: tuple[int, int],
        dim: int,
        n_layers: NonNegativeInt = 0,
        heads: PositiveInt = 8,
        dropout: UnitInterval = 0.1,
        min_pairs: PositiveInt = 4,
    ) -> None:
        super().__init__()
        if dim % 2:
            raise ModelError(
                f"ChangeExtraction needs an even width, half for rows and half for columns: got dim={dim}."
            )
        if n_layers and dim % heads:
            raise ModelError(f"ChangeExtraction: heads is {heads}, it must divide the encoder's width, {dim}.")
        self.grid = grid
        self.rows = nn.Embedding(grid[0], dim // 2)
        self.columns = nn.Embedding(grid[1], dim // 2)
        for embedding in (self.rows, self.columns):
            # Small compared to the features: a large embedding, equal for both times, would raise their similarity.
            nn.init.normal_(embedding.weight, std=0.02)

        self.single, self.joint = (
            nn.ModuleList(
                nn.TransformerEncoderLayer(dim, heads, 4 * dim, dropout, activation="gelu", batch_first=True)
                for _ in range(n_layers)
            )
            for _ in range(2)
        )
        self.fuse = nn.Conv2d(2 * dim, dim, 1)
        with torch.no_grad():
            # Half of the channels start as the difference of the two times and half as their sum, of equal magnitude,
            # so that changes are visible in the output from the first step.
            self.fuse.weight[dim // 2 :, dim:] = self.fuse.weight[dim // 2 :, :dim]
            self.fuse.weight[: dim // 2] *= _SUM_TO_DIFFERENCE
            self.fuse.weight[: dim // 2, dim:] = -self.fuse.weight[: dim // 2, :dim]
        self.residual = nn.Sequential(
            nn.Conv2d(dim, dim // 2, 1),
            _PairBatchNorm(dim // 2, min_pairs),
            nn.ReLU(),
            nn.Conv2d(dim // 2, dim // 2, 3, padding=1),
            _PairBatchNorm(dim // 2, min_pairs),
            nn.ReLU(),
            nn.Conv2d(dim // 2, dim, 1),
            _PairBatchNorm(dim, min_pairs),
        )

    def forward(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Fuses `[P, L, D]` and `[P, L, D]` to `[P, L, D]`."""
        before, after = self._contextualise(before, after)
        both = torch.cat([self._to_map(before), self._to_map(after)], dim=1)
        fused = self.fuse(both + self._cosine(before, after).unsqueeze(1))
        return F.relu(self.residual(fused) + fused).flatten(2).transpose(1, 2)

    def similarity(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Cosine similarity per position, low where something changed: `[P, L, D]` twice to `[P, h, w]`, -1..1."""
        return self._cosine(*self._contextualise(before, after))

    def _contextualise(self, before: torch.Tensor, after: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h, w = self.grid
        columns = self.columns.weight.unsqueeze(0).expand(h, -1, -1)
        rows = self.rows.weight.unsqueeze(1).expand(-1, w, -1)
        position = torch.cat([columns, rows], dim=-1).flatten(0, 1)
        before, after = before + position, after + position
        for layer in self.single:
            before, after = layer(before), layer(after)
        for layer in self.joint:
            before, after = layer(torch.cat([before, after], dim=1)).chunk(2, dim=1)
        return before, after

    def _to_map(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *self.grid)

    def _cosine(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        return F.cosine_similarity(before, after, dim=-1).view(before.shape[0], *self.grid)


class _SumOverProcesses(torch.autograd.Function):
    """Sums a tensor over all processes, and its gradient, too."""

    @staticmethod
    def forward(ctx: object, value: torch.Tensor) -> torch.Tensor:  # noqa: ARG004 - torch's signature
        """Sum over processes."""
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: torch.Tensor) -> torch.Tensor:
        """Sum of the gradients over processes."""
        return _SumOverProcesses.forward(ctx, gradients[0])


class _PairBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d over the pairs of all processes, or by its running statistics if these are fewer than `min_pairs`.

    In training, every process calls it equally often, also with no pairs of its own.
    """

    def __init__(self, channels: int, min_pairs: int) -> None:
        super().__init__(channels)
        self.min_pairs = min_pairs

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the base class names it so
        if not self.training:
            return super().forward(input)
        shared = world()[0] > 1
        pairs = input.new_tensor(float(input.shape[0]))
        if shared:
            distributed.all_reduce(pairs)
        if pairs < self.min_pairs:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        if not shared:
            return super().forward(input)
        # Gradients flow through the statistics of all processes, as they do in one process.
        count = pairs * input.shape[2] * input.shape[3]
        mean = _SumOverProcesses.apply(input.sum((0, 2, 3))) / count
        centred = input - mean.view(1, -1, 1, 1)
        var = _SumOverProcesses.apply(centred.square().sum((0, 2, 3))) / count
        for running, value in ((self.running_mean, mean), (self.running_var, var * count / (count - 1))):
            running.lerp_(value.detach(), self.momentum)  # type: ignore[union-attr, arg-type]
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale = self.weight * torch.rsqrt(var + self.eps)
        return torch.addcmul(self.bias.view(1, -1, 1, 1), centred, scale.view(1, -1, 1, 1))


class Concat(nn.Module):
    """A linear layer on the concatenated channels of both times: a baseline that does not model change."""

    def __init__(self, grid: tuple[int, int], dim: int) -> None:  # noqa: ARG002 - the interface of the plugins
        super().__init__()
        self.fuse = nn.Linear(2 * dim, dim)

    def forward(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Fuses `[P, L, D]` and `[P, L, D]` to `[P, L, D]`."""
        return self.fuse(torch.cat([before, after], dim=-1))  # type: ignore[no-any-return]


class Difference(nn.Module):
    """After minus before: the change alone, without the scene."""

    def __init__(self, grid: tuple[int, int], dim: int) -> None:  # noqa: ARG002 - the interface of the plugins
        super().__init__()

    def forward(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Subtracts `[P, L, D]` from `[P, L, D]`."""
        return after - before
