"""Key maps from the checkpoints of other programs to `UniRSModel`, as pure functions, and the projectors they are for.

Weights are renamed by the first parts of their names; whatever is left over, missing or of another shape is an error.
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
"""VILA-1.5's `mlp_downsample` to the names in `UniRSModel`."""

UNIRS_PROJECTOR = {
    "layers.single.1": "projector.norm",
    "layers.single.2": "projector.expand",
    "layers.single.4": "projector.out",
    "layers.change.Conv1": "change.fuse",
    "layers.change.LN.left": "change.residual",
    # The published `h_embedding` is looked up by column, and `w_embedding` by row.
    "layers.change.h_embedding": "change.columns",
    "layers.change.w_embedding": "change.rows",
}
"""The published UniRS's projector and change extraction to the names in `UniRSModel`."""

_WEIGHTS = "model.safetensors"


def rename(weights: Mapping[str, _T], names: Mapping[str, str]) -> dict[str, _T]:
    """Gives weights other names.

    Args:
        weights: by name.
        names: from the first parts of a name, up to a dot, to what takes their place.

    Raises:
        ModelError: a weight begins with none of them; lists all such weights.
    """
    found = {key: next((old for old in names if key.startswith(f"{old}.")), None) for key in weights}
    unknown = sorted(key for key, old in found.items() if old is None)
    if unknown:
        raise ModelError(f"Unknown weights: {', '.join(unknown)}. Known are {', '.join(f'{old}.*' for old in names)}.")
    return {names[old] + key.removeprefix(old): weights[key] for key, old in found.items() if old is not None}


def llava_names(vision: str, llm: str) -> dict[str, str]:
    """The names in `LlavaForConditionalGeneration` to those in `UniRSModel`.

    Args:
        vision: what the encoder calls its vision model.
        llm: what the language model calls its part before the output layer.
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
        ModelError: it holds something else than options.
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
        change: whether the weights of the change extraction are wanted.

    Returns:
        The state of `Projector`, and that of `ChangeExtraction` where it is wanted and the folder has it.

    Raises:
        ModelError: the folder holds another projector, unknown weights, or a broken file.
        DataError: its config.json is missing or broken.
    """
    kind = read_config(source).get("mm_projector_type")
    path = source / _WEIGHTS
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} does not load ({error}). Download or save it again, as safetensors.") from error
    published = any(key.startswith("layers.single.") for key in weights)
    # Later projectors have weights of the same names and shapes, but another order of the four tokens.
    if not published and kind != "mlp_downsample":
        raise ModelError(f"{source} holds a projector of type '{kind}'. UniRS reads 'mlp_downsample'.")
    try:
        renamed = rename(weights, UNIRS_PROJECTOR if published else VILA_PROJECTOR)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    parts: dict[str, dict[str, torch.Tensor]] = {"projector": {}, "change": {}}
    for key, value in renamed.items():
        part, _, name = key.partition(".")
        parts[part][name] = value
    return parts["projector"], parts["change"] if change and parts["change"] else None


def load_exactly(part: nn.Module, state: Mapping[str, torch.Tensor], source: Path) -> None:
    """Loads weights into a part of a model.

    Raises:
        ModelError: a weight is missing, left over or of another shape; lists them.
    """
    try:
        part.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"The weights in {source} do not fit {type(part).__name__}: {error}") from error
