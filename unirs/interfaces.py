"""The model's swappable parts as protocols, with shapes. Letters: F frames, P pairs, L = h * w tokens, D width."""

from typing import Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class Encoder(Protocol):
    """Turns frames into vision tokens; an `nn.Module`. Resizing is done before, normalisation inside.

    Attributes:
        size: height and width in pixels of the frames it takes.
        grid: h and w of the tokens of one frame.
        dim: D.
    """

    size: tuple[int, int]
    grid: tuple[int, int]
    dim: int

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Encodes uint8 `[F, 3, H, W]` to `[F, L, D]`, row by row of the grid."""
        ...


@runtime_checkable
class ChangeExtractor(Protocol):
    """Fuses the two times of a pair into the tokens of one picture; an `nn.Module`.

    A plugin is called with `grid: tuple[int, int]` and `dim: int` first, then its options.
    """

    def __call__(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Fuses `[P, L, D]` and `[P, L, D]` to `[P, L, D]`."""
        ...


def as_module(part: object) -> nn.Module:
    """The same part as the module it must be.

    Raises:
        TypeError: it is not an `nn.Module`, so that its weights would be neither trained nor saved.
    """
    if not isinstance(part, nn.Module):
        raise TypeError(
            f"{type(part).__name__} must be a torch.nn.Module: else its weights are neither trained nor saved."
        )
    return part
