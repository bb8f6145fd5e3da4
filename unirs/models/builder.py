"""Builds the model from its config, and checks that its components fit together."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from unirs.errors import ModelError
from unirs.interfaces import ChangeExtractor, Encoder, as_module
from unirs.models.change_extractors import ChangeExtraction
from unirs.models.convert_weights import load_exactly, read_projector
from unirs.models.projectors import ProjectorName
from unirs.models.unirs_model import UniRSModel


@dataclass
class ProjectorConfig:
    """What lies between encoder and language model.

    Attributes:
        name: `downsample` is the paper's: four tokens become one. `mlp` is LLaVA's.
        source: a VILA-1.5 or UniRS folder `mm_projector` with weights for `downsample`, and for `change_extraction` if
            it has them; random weights where left out.
        tune: `full` or `frozen`.
    """

    name: ProjectorName = "downsample"
    source: Path | None = None
    tune: Literal["full", "frozen"] = "full"


def _load_projector(model: UniRSModel, config: ProjectorConfig) -> None:
    if config.source is None:
        if config.tune == "frozen":
            raise ModelError("The projector is frozen with random weights. Name its 'source', or set 'tune: full'.")
        return
    if config.name != "downsample":
        raise ModelError(f"projector.source holds a 'downsample' projector, not '{config.name}'. See 'unirs convert'.")
    state, change = read_projector(config.source, change=isinstance(model.change, ChangeExtraction))
    load_exactly(model.projector, state, config.source)
    if change is not None and model.change is not None:
        load_exactly(model.change, change, config.source)
    model.projector.requires_grad_(config.tune == "full")


def check_components(encoder: Encoder, change: ChangeExtractor | None) -> None:
    """Sees one black frame through the encoder, and that frame twice through the change extractor.

    Raises:
        ModelError: what comes out is not of the shape that the parts promise; says both shapes.
    """
    height, width = encoder.image_size
    expected = (1, encoder.grid[0] * encoder.grid[1], encoder.embed_dim)
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
