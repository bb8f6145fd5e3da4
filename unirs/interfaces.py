"""The model's swappable parts as protocols, with shapes. Letters: F frames, P pairs, L = h * w tokens, D width."""

from itertools import chain
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from unirs.errors import ModelError
from unirs.media import Fit


@runtime_checkable
class Encoder(Protocol):
    """Turns frames into vision tokens; an `nn.Module`. Resizing is done before, normalisation inside.

    What an encoder sees is kept on disk where none of its parameters learns and `train()` leaves all of it in
    evaluation mode (see `unirs.features`).

    Attributes:
        size: height and width in pixels of the frames it takes.
        fit: how pictures of another shape are brought to that size.
        grid: h and w of the tokens of one frame.
        dim: D.
        spec: the plugin's options that build the same architecture without any weights. A saved model keeps them
            beside its weights, so that it loads without what it was first made from.
    """

    size: tuple[int, int]
    fit: Fit
    grid: tuple[int, int]
    dim: int
    spec: dict[str, Any]

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


@runtime_checkable
class MapsChange(Protocol):
    """A change extractor that can show where it sees a change."""

    def similarity(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """How alike the times are: `[P, L, D]` twice to `[P, h, w]`, -1..1."""
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


def check_parts(encoder: Encoder, change: ChangeExtractor | None) -> None:
    """Sees one black frame through the encoder, and that frame twice through the change extractor.

    Raises:
        ModelError: what comes out is not of the shape that the parts promise; says both shapes.
    """
    height, width = encoder.size
    expected = (1, encoder.grid[0] * encoder.grid[1], encoder.dim)
    module = as_module(encoder)
    reference = next(chain(module.parameters(), module.buffers()), torch.empty(0))
    modes = [(part, part.training) for part in (encoder, change) if isinstance(part, nn.Module)]
    try:
        for part, _ in modes:
            part.eval()
        with torch.no_grad():
            tokens = encoder(torch.zeros(1, 3, height, width, dtype=torch.uint8, device=reference.device))
            _check_shape(
                f"The encoder {type(encoder).__name__}, given a frame [1, 3, {height}, {width}],", tokens, expected
            )
            if change is not None:
                try:
                    fused = change(tokens, tokens)
                except RuntimeError as error:
                    raise ModelError(
                        f"The change extractor {type(change).__name__} does not take the encoder's tokens "
                        f"{list(expected)}, a grid of {encoder.grid[0]}x{encoder.grid[1]}: {error}"
                    ) from error
                _check_shape(
                    f"The change extractor {type(change).__name__}, given {list(expected)} twice,", fused, expected
                )
    finally:
        for part, training in modes:
            part.train(training)


def _check_shape(who: str, tokens: torch.Tensor, expected: tuple[int, ...]) -> None:
    if not isinstance(tokens, torch.Tensor) or tuple(tokens.shape) != expected:
        got = list(tokens.shape) if isinstance(tokens, torch.Tensor) else type(tokens).__name__
        raise ModelError(f"{who} must return {list(expected)} ([pictures, grid h*w, dim]), but returned {got}.")
