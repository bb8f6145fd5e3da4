"""Muon: momentum whose matrices are made orthogonal. Short trainings need fewer steps than with AdamW."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

from unirs.errors import ModelError

_MOMENTUM = 0.95
_STEPS = 5
# 0.2 * sqrt(max(rows, columns)) gives a step the size of AdamW's, so that one learning rate serves both (Moonlight,
# arXiv 2502.16982, equation 4).
_STEP_SIZE = 0.2


class Muon(AdamW):
    """Muon for parameter groups with `muon: True`, whose weights are matrices; AdamW for the others.

    torch.optim.Muon and timm.optim.Muon compute in bfloat16, which many CPUs emulate, and take matrices one by one.
    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, with Nesterov momentum.

    Args:
        groups: parameter groups, each with a key `muon`.
        lr: of both.
        weight_decay: decoupled, of both.
        betas: of AdamW.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, weight_decay: float, betas: tuple[float, float]
    ) -> None:
        super().__init__(groups, lr=lr, weight_decay=weight_decay, betas=betas)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """A step.

        Raises:
            ModelError: a strategy such as FSDP has split the matrices.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        for group in groups:
            if group["muon"]:
                self._update(group)
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def __setstate__(self, state: dict[str, Any]) -> None:
        # AdamW's adapts states of old versions, and expects a step in each.
        Optimizer.__setstate__(self, state)

    def _update(self, group: dict[str, Any]) -> None:
        # Matrices of one shape are one batch of matrix products.
        by_shape: defaultdict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
        for weight in group["params"]:
            if weight.grad is not None:
                by_shape[weight.shape].append((weight, self._direction(weight, weight.grad)))
        for shape, pairs in by_shape.items():
            if len(shape) != 2:
                raise ModelError(
                    f"optim.muon needs whole matrices, and a parameter has the shape {list(shape)}. Use the strategy "
                    "'ddp', or 'optim.muon: false'."
                )
            directions = orthogonalize(torch.stack([direction for _, direction in pairs]))
            size = group["lr"] * _STEP_SIZE * max(shape) ** 0.5
            for (weight, _), direction in zip(pairs, directions, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=size)

    def _direction(self, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        return gradient.lerp(state["momentum"], _MOMENTUM)


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """Moves the singular values of matrices to 0.7..1.2 by five Newton-Schulz iterations.

    Args:
        matrices: float `[n, rows, columns]`.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if is_tall else x
