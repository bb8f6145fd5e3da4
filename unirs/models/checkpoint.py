"""Training checkpoints: the weights that learn, a fingerprint of the frozen ones, and a trained tokenizer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.errors import ModelError
from unirs.models.llm import tokenizer_from_json
from unirs.utils.hashing import fingerprint

MODEL_PREFIX = "model."
"""Prefix of the model's weights in the state dict of the LightningModule."""


def frozen_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights that come from a source and do not learn; checkpoints do not hold them."""
    # Tied weights have several names.
    learning = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    return {
        name: value.detach()
        for name, value in model.state_dict(keep_vars=True).items()
        if isinstance(value, nn.Parameter) and id(value) not in learning
    }


def strip_frozen(checkpoint: dict[str, Any], model: nn.Module, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Removes frozen weights from a Lightning checkpoint, and adds their fingerprint and a trained tokenizer.

    Args:
        checkpoint: with the LightningModule's `state_dict`.
        model: the model inside of it.
        tokenizer: if it was trained with the model; else None.
    """
    frozen = frozen_weights(model)
    names = {MODEL_PREFIX + name for name in frozen}
    checkpoint["state_dict"] = {key: value for key, value in checkpoint["state_dict"].items() if key not in names}
    checkpoint["frozen"] = fingerprint(frozen)
    checkpoint["tokenizer"] = None if tokenizer is None else tokenizer.backend_tokenizer.to_str()


def check_frozen(checkpoint: Mapping[str, Any], model: nn.Module) -> PreTrainedTokenizerBase | None:
    """Checks that a checkpoint fits the model's frozen weights.

    Returns:
        The tokenizer that was trained with the model, or None.

    Raises:
        ModelError: the frozen weights are not those of the training, or another program wrote the checkpoint.
    """
    if "frozen" not in checkpoint:
        raise ModelError("The checkpoint is another program's: it does not record which weights were frozen.")
    if checkpoint["frozen"] != fingerprint(frozen_weights(model)):
        raise ModelError(
            "The checkpoint was trained with other frozen weights than the config's sources have now, or with other "
            "components frozen. Set the sources, and the tuning, that it was trained with."
        )
    return tokenizer_from_json(checkpoint["tokenizer"]) if checkpoint["tokenizer"] else None


def load_checkpoint(path: Path, model: nn.Module) -> tuple[PreTrainedTokenizerBase | None, int]:
    """Loads the weights of a checkpoint into a model that was built from the same config.

    Args:
        path: a checkpoint of a training run.
        model: with the frozen weights of its sources.

    Returns:
        The tokenizer that was trained with the model, or None; and the number of optimizer steps.

    Raises:
        ModelError: the weights do not fit, with the keys, or the frozen ones are not those of the training.
    """
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    tokenizer = check_frozen(checkpoint, model)
    state = {name.removeprefix(MODEL_PREFIX): value for name, value in checkpoint["state_dict"].items()}
    try:
        model.load_state_dict(frozen_weights(model) | state)
    except RuntimeError as error:
        raise misfit(error) from error
    return tokenizer, int(checkpoint["global_step"])


def misfit(error: RuntimeError) -> ModelError:
    """The error for weights that do not fit; lists the keys on one line."""
    return ModelError(f"The checkpoint's weights do not fit the config's model: {' '.join(str(error).split())}")
