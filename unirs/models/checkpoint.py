"""Training checkpoints: trained weights, a fingerprint of the frozen ones, and a trained tokenizer."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZipFile

import torch
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.errors import ModelError, UniRSError
from unirs.models.llm import tokenizer_from_json
from unirs.utils.hashing import fingerprint
from unirs.utils.io import check_regular

MODEL_PREFIX = "model."
"""Prefix of the model's weights in the state dict of the LightningModule."""


@dataclass(frozen=True)
class FrozenWeights:
    """The weights that come from a source and are not trained; checkpoints do not contain them.

    Taken when the model is built: later, a strategy may shard them, and a precision convert them.
    """

    names: frozenset[str]
    fingerprint: str

    @classmethod
    def of(cls, model: nn.Module) -> "FrozenWeights":
        """The frozen weights of a model that was just built."""
        # By id, since tied weights have several names.
        trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
        weights = {
            name: value.detach()
            for name, value in model.state_dict(keep_vars=True).items()
            if isinstance(value, nn.Parameter) and id(value) not in trainable
        }
        return cls(frozenset(weights), fingerprint(weights))

    def strip(self, checkpoint: dict[str, Any], tokenizer: PreTrainedTokenizerBase | None) -> None:
        """Replaces them in a Lightning checkpoint by their fingerprint, and adds a trained tokenizer."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {
            key: value for key, value in state.items() if key.removeprefix(MODEL_PREFIX) not in self.names
        }
        checkpoint["frozen"] = self.fingerprint
        checkpoint["tokenizer"] = None if tokenizer is None else tokenizer.backend_tokenizer.to_str()

    def check(self, checkpoint: Mapping[str, Any]) -> PreTrainedTokenizerBase | None:
        """Checks that a checkpoint fits them; returns the tokenizer that was trained with it."""
        if "frozen" not in checkpoint:
            raise ModelError("The checkpoint is another program's: it does not record which weights were frozen.")
        if checkpoint["frozen"] != self.fingerprint:
            raise ModelError(
                "The checkpoint was trained with other frozen weights than the config's sources have now, with other "
                "components frozen, or in another dtype. Set the sources, tuning and dtypes of the run's config.yaml."
            )
        return tokenizer_from_json(checkpoint["tokenizer"]) if checkpoint["tokenizer"] else None

    def add(self, state: Mapping[str, torch.Tensor], model: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
        """A state dict of trained weights, with the model's frozen ones."""
        present = model.state_dict()
        return {prefix + name: present[name] for name in self.names} | dict(state)


def find_checkpoint(run: Path, *names: str) -> Path:
    """The first of these checkpoints that a run has; by default the best by validation score, or else the last."""
    paths = [run / "checkpoints" / f"{name}.ckpt" for name in names or ("best", "last")]
    for path in paths:
        if path.is_file():
            return path
    missing = " nor ".join(str(path) for path in paths)
    raise UniRSError(f"{'Neither ' * (len(paths) > 1)}{missing} exists: train first with 'unirs fit'.")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint file to the CPU. It may hold tensors and plain values only: no code in it is run.

    Raises:
        ModelError: the file does not exist, is damaged, or holds other objects.
    """
    try:
        with warnings.catch_warnings():
            # torch asks for reports of foreign pickles.
            warnings.simplefilter("ignore")
            check_regular(path)
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        # torch does not compare the checksums that it writes.
        with ZipFile(path) as archive:
            damaged = archive.testzip()
    except FileNotFoundError:
        raise ModelError(f"Checkpoint {path} does not exist.") from None
    except UnpicklingError as error:
        raise ModelError(
            f"Checkpoint {path} is damaged, or holds more than tensors and plain values, which is not loaded since it "
            "could run code."
        ) from error
    # What damaged archives raise, at the place of the damage.
    except Exception as error:
        raise ModelError(
            f"Checkpoint {path} cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__}). "
            "It was cut short or damaged: use another checkpoint of the run."
        ) from error
    if damaged is not None:
        raise ModelError(f"Checkpoint {path} is damaged at '{damaged}'. Use another checkpoint of the run.")
    if not isinstance(checkpoint, dict):
        raise ModelError(f"{path} is no checkpoint of a training: it holds {type(checkpoint).__name__}.")
    return checkpoint


def load_checkpoint(path: Path, model: nn.Module) -> tuple[PreTrainedTokenizerBase | None, int]:
    """Loads a checkpoint's weights into a model; returns the tokenizer trained with it, and the number of steps."""
    checkpoint = read_checkpoint(path)
    frozen = FrozenWeights.of(model)
    tokenizer = frozen.check(checkpoint)
    state = {name.removeprefix(MODEL_PREFIX): value for name, value in checkpoint["state_dict"].items()}
    try:
        model.load_state_dict(frozen.add(state, model))
    except RuntimeError as error:
        raise misfit(error) from error
    return tokenizer, int(checkpoint["global_step"])


def misfit(error: RuntimeError) -> ModelError:
    """The error for weights that do not fit; lists the keys on one line."""
    return ModelError(f"The checkpoint's weights do not fit the config's model: {' '.join(str(error).split())}")
