"""Protocols of the model's swappable components. Letters of shapes: F frames, P pairs, L = h * w tokens, D width."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from unirs.tasks.media import ResizeSpec


@runtime_checkable
class Encoder(Protocol):
    """Encodes frames to vision tokens; an `nn.Module`. Frames are resized before, and normalized inside.

    Its outputs are cached on disk if none of its parameters is trained and `train()` leaves all of it in evaluation
    mode (see `unirs.data.feature_cache`).

    Attributes:
        image_size: height and width in pixels of the frames.
        resize: how images of another shape are brought to that size.
        grid: h and w of the tokens of one frame.
        embed_dim: D.
        init_config: the plugin's options that build the same architecture without weights. They are saved with a model,
            so that it loads without its original sources.
    """

    image_size: tuple[int, int]
    resize: ResizeSpec
    grid: tuple[int, int]
    embed_dim: int
    init_config: dict[str, Any]

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Encodes uint8 `[F, 3, H, W]` to `[F, L, D]`, row by row of the grid."""
        ...


@runtime_checkable
class ChangeExtractor(Protocol):
    """Fuses the two times of a pair into the tokens of one image; an `nn.Module`.

    A plugin is called with `grid: tuple[int, int]` and `dim: int` first, then its options.
    """

    def __call__(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Fuses `[P, L, D]` and `[P, L, D]` to `[P, L, D]`; in training, P may be 0."""
        ...


@runtime_checkable
class MapsChange(Protocol):
    """A change extractor that computes a map of change."""

    def similarity(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Similarity of the times: `[P, L, D]` twice to `[P, h, w]`, -1..1."""
        ...


@runtime_checkable
class MergesAdapters(Protocol):
    """An encoder that can have LoRA adapters."""

    def merge_adapters(self) -> None:
        """Merges the adapters into the weights, in place; `init_config` then builds the encoder without them."""
        ...


@runtime_checkable
class Projector(Protocol):
    """Maps vision tokens to the language model's embeddings; an `nn.Module`.

    A plugin is called with `grid: tuple[int, int]`, `dim: int` (D) and `out: int` (the language model's width) first,
    then its options.

    Attributes:
        num_tokens: L', the number of tokens of one image after projection.
    """

    num_tokens: int

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Projects `[N, L, D]` to `[N, L', out]`."""
        ...


@runtime_checkable
class HasPublishedWeights(Protocol):
    """A component whose weights the published checkpoints of VILA-1.5 or UniRS contain.

    Attributes:
        published_component: the component's name in `unirs.models.convert_weights`: `projector` or `change`.
    """

    published_component: str


def as_module(component: object) -> nn.Module:
    """Returns a component that must be an `nn.Module`.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(component, nn.Module):
        name = type(component).__name__
        raise TypeError(f"{name} must be a torch.nn.Module: otherwise its weights are neither trained nor saved.")
    return component
