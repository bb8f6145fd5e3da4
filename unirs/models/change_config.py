"""The change extractor in a config: whether it is trained, and where its weights come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from unirs import plugins
from unirs.errors import ModelError
from unirs.models.checkpoint import MODEL_PREFIX, find_checkpoint, read_checkpoint
from unirs.models.convert_weights import read_projector
from unirs.models.model_files import verify_checksums
from unirs.models.pretrained import WEIGHTS, is_saved_model
from unirs.options import check_options
from unirs.utils.sources import resolve_source

_PREFIX = "change."


@dataclass(frozen=True, kw_only=True)
class ChangeOptions:
    """The options of every change extractor, besides those of its plugin.

    Attributes:
        tune: `full` or `frozen`.
        source: a training run or a saved model whose change extractor's weights are loaded, or a UniRS folder
            `mm_projector`; by default those of `model.init` or of `projector.source`, or else random weights.
    """

    tune: Literal["full", "frozen"] = "full"
    source: Path | None = None


_OWN_OPTIONS = {entry.name for entry in fields(ChangeOptions)}


def check_change_options(spec: object) -> dict[str, Any]:
    """Checks the options of a change extractor by type, without building it; returns them with its `name`."""
    return plugins.check_plugin("unirs.change_extractors", spec, ChangeOptions)


def split_change(spec: Mapping[str, Any] | None) -> tuple[ChangeOptions, dict[str, Any] | None]:
    """The options of every change extractor, and the plugin's name and options; None without a change extractor."""
    if spec is None:
        return ChangeOptions(), None
    own = check_options("model.change", ChangeOptions, {k: v for k, v in spec.items() if k in _OWN_OPTIONS})
    return ChangeOptions(**own), {key: value for key, value in spec.items() if key not in _OWN_OPTIONS}


def read_change_weights(source: Path) -> dict[str, torch.Tensor]:
    """Reads the weights of a change extractor from `ChangeOptions.source`.

    Raises:
        ModelError: the folder is none of these, is damaged, or holds no weights of a change extractor.
    """
    folder = Path(resolve_source(str(source)))
    weights: dict[str, torch.Tensor] | None
    if (folder / "checkpoints").is_dir():
        prefix, state = MODEL_PREFIX + _PREFIX, read_checkpoint(find_checkpoint(folder))["state_dict"]
        weights = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    elif is_saved_model(folder):
        verify_checksums(folder)
        try:
            with safe_open(folder / WEIGHTS, "pt") as file:
                names = [key for key in file.keys() if key.startswith(_PREFIX)]  # noqa: SIM118 - not a mapping
                weights = {key.removeprefix(_PREFIX): file.get_tensor(key) for key in names}
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{folder / WEIGHTS} does not load ({error}). Save the model again.") from error
    else:
        _, weights = read_projector(folder, change=True)
    # The checkpoint of a run that froze it has its running statistics only.
    if not weights or not any(key.endswith("weight") for key in weights):
        raise ModelError(
            f"{folder} holds no weights of a change extractor: it has none, or it was frozen in that run. Name the run "
            "that trained it."
        )
    return weights
