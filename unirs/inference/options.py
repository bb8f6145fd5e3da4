"""Checks of options of the Python API."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from huggingface_hub import ModelHubMixin
from torch import nn

from unirs.errors import ModelError, UniRSError, did_you_mean

SAVING_OPTIONS = {
    name
    for function in (ModelHubMixin.save_pretrained, ModelHubMixin.push_to_hub)
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}
"""Options of `huggingface_hub` for saving a model."""


def check_positive(**options: object) -> None:
    """Raises a `UniRSError` for an option that is no positive integer."""
    for name, value in options.items():
        if type(value) is not int or value < 1:
            raise UniRSError(f"{name} is {value!r}. Set an integer of 1 or more.")


def check_choices(choices: Sequence[str] | None) -> None:
    """Raises a `UniRSError` if the choices of a question are no list of different, non-empty texts."""
    if choices is None:
        return
    is_list = isinstance(choices, Sequence) and not isinstance(choices, str | bytes)
    if not is_list or not choices or not all(isinstance(one, str) and one.strip() for one in choices):
        raise UniRSError(f"choices is {choices!r}. Pass a list of texts, such as ['yes', 'no'], or None for free text.")
    if len(set(choices)) < len(choices):
        raise UniRSError(f"choices repeats a text: {', '.join(choices)}. Pass each once.")


def check_names(function: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Raises a `UniRSError` for an unknown name of a keyword argument; suggests the nearest match."""
    names = set(known)
    for option in options:
        if option not in names:
            raise UniRSError(f"{function} has no option '{option}'. {did_you_mean(option, names)}")


def move_to_device(model: nn.Module, device: str | torch.device, source: str) -> None:
    """Moves a model that was loaded from `source`; a `ModelError` if the device is absent or has too little memory."""
    try:
        model.to(device)
    # AssertionError: torch was built without the device.
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"'{source}' does not go to device '{device}' ({error}). Name one that this machine has, such as 'cpu'."
        ) from error


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Sets a model to evaluation mode while the block runs, then restores its mode."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
