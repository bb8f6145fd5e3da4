"""Key maps from the checkpoints of other programs to `UniRSModel`, and readers of their projectors.

Weights are renamed by prefix; missing and unexpected weights, and weights of another shape, are errors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from unirs.errors import ModelError
from unirs.utils.io import read_json

_T = TypeVar("_T")

VILA_PROJECTOR = {"layers.1": "projector.norm", "layers.2": "projector.expand", "layers.4": "projector.out"}
"""Prefixes of VILA-1.5's `mlp_downsample` and of `UniRSModel`."""

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
"""Prefixes of the published UniRS's projector and change extraction module, and of `UniRSModel`."""

_WEIGHTS = "model.safetensors"


def rename(weights: Mapping[str, _T], names: Mapping[str, str]) -> dict[str, _T]:
    """Renames weights by prefix.

    Args:
        weights: by name.
        names: new prefixes by old prefix; a prefix ends before a dot.

    Raises:
        ModelError: weights have none of the prefixes; lists them.
    """
    found = {key: next((old for old in names if key.startswith(f"{old}.")), None) for key in weights}
    unknown = sorted(key for key, old in found.items() if old is None)
    if unknown:
        raise ModelError(
            f"Unknown weights: {', '.join(unknown)}. Known prefixes: {', '.join(f'{old}.*' for old in names)}."
        )
    return {names[old] + key.removeprefix(old): weights[key] for key, old in found.items() if old is not None}


def llava_names(vision: str, llm: str) -> dict[str, str]:
    """Prefixes of `LlavaForConditionalGeneration` and of `UniRSModel`.

    Args:
        vision: name of the vision model inside the encoder.
        llm: name of the base model, the one without output layer, inside the language model.
    """
    return {
        "model.vision_tower": f"encoder.{vision}",
        "model.multi_modal_projector.linear_1": "projector.expand",
        "model.multi_modal_projector.linear_2": "projector.out",
        "model.language_model": f"llm.{llm}",
        "lm_head": "llm.lm_head",
    }


def read_config(source: Path) -> dict[str, Any]:
    """Reads the `config.json` of a folder.

    Raises:
        DataError: it is missing or broken.
        ModelError: it is not a JSON object.
    """
    path = source / "config.json"
    config = read_json(path)
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not the config of a model: it must hold one JSON object. Download it again.")
    return config


def read_projector(source: Path, change: bool) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None]:
    """Reads the folder `mm_projector` of VILA-1.5 or UniRS.

    Args:
        source: the folder.
        change: whether to return the weights of the change extraction module.

    Returns:
        The state dict of `DownsampleProjector`, and that of `ChangeExtraction`, which is None if `change` is false or
        the folder has none.

    Raises:
        ModelError: the folder holds another projector, unknown weights, or a broken file.
        DataError: its config.json is missing or broken.
    """
    projector_type = read_config(source).get("mm_projector_type")
    path = source / _WEIGHTS
    try:
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
    """Loads weights into a component of a model.

    Raises:
        ModelError: weights are missing, unexpected or of another shape; lists them.
    """
    try:
        component.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"The weights in {source} do not fit {type(component).__name__}: {error}") from error
