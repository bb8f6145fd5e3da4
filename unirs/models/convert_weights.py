"""Key maps from the checkpoints of other programs to `UniRSModel`, and readers of their projectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from unirs.errors import ModelError
from unirs.utils.io import check_regular, read_json

_T = TypeVar("_T")

VILA_PROJECTOR = {"layers.1": "projector.norm", "layers.2": "projector.expand", "layers.4": "projector.out"}
"""Prefixes of VILA-1.5's `mlp_downsample`, and the prefixes of `UniRSModel` that replace them."""

UNIRS_PROJECTOR = {
    "layers.single.1": "projector.norm",
    "layers.single.2": "projector.expand",
    "layers.single.4": "projector.out",
    "layers.change.Conv1": "change.fuse",
    "layers.change.LN.left": "change.residual",
    # The published code indexes `h_embedding` by column, and `w_embedding` by row.
    "layers.change.h_embedding": "change.columns",
    "layers.change.w_embedding": "change.rows",
}
"""The same for the published UniRS's projector and change extraction module."""


def rename(weights: Mapping[str, _T], names: Mapping[str, str]) -> dict[str, _T]:
    """Renames weights by prefix; `names` maps old to new prefixes, which end before a dot or are whole names."""
    found = {key: next((old for old in names if f"{key}.".startswith(f"{old}.")), None) for key in weights}
    unknown = sorted(key for key, old in found.items() if old is None)
    if unknown:
        raise ModelError(
            f"Unknown weights: {', '.join(unknown)}. Known prefixes: {', '.join(f'{old}.*' for old in names)}."
        )
    return {names[old] + key.removeprefix(old): weights[key] for key, old in found.items() if old is not None}


def read_config(source: Path) -> dict[str, Any]:
    """Reads the `config.json` of a folder."""
    path = source / "config.json"
    config = read_json(path)
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not the config of a model: it must hold one JSON object. Download it again.")
    return config


def read_projector(source: Path, change: bool) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None]:
    """Reads a folder `mm_projector`: state dicts of `DownsampleProjector` and, if present, of `ChangeExtraction`."""
    projector_type = read_config(source).get("mm_projector_type")
    path = source / "model.safetensors"
    try:
        check_regular(path)
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} does not load ({error}). Download or save it again, as safetensors.") from error
    published = any(key.startswith("layers.single.") for key in weights)
    # Later projector types have weights of the same names and shapes, but another order of the four tokens.
    if not published and projector_type != "mlp_downsample":
        raise ModelError(f"{source} holds a projector of type '{projector_type}'. UniRS reads 'mlp_downsample'.")
    try:
        renamed = rename(weights, UNIRS_PROJECTOR if published else VILA_PROJECTOR)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    states: dict[str, dict[str, torch.Tensor]] = {"projector": {}, "change": {}}
    for key, value in renamed.items():
        component, _, name = key.partition(".")
        states[component][name] = value
    return states["projector"], states["change"] if change and states["change"] else None


def load_exactly(component: nn.Module, state: Mapping[str, torch.Tensor], source: Path) -> None:
    """Loads weights into a component of a model."""
    try:
        component.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"The weights in {source} do not fit {type(component).__name__}: {error}") from error
