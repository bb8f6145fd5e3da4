"""How a pretrained part learns: all of it, nothing of it, or low-rank adapters beside its frozen weights (LoRA)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn

from unirs.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTunerLayer


TuningMode = Literal["full", "frozen", "lora"]

_ADAPTER = "default"


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al., arXiv 2106.09685).

    Attributes:
        r: rank of the update matrices.
        lora_alpha: the adapters' output is scaled by alpha / r.
        lora_dropout: of the adapters' input, 0..1.
        target_modules: names, or last parts of names, of the layers that get one; where left out all linear layers,
            or all convolutions of a part that has no linear layer.
    """

    r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, options: dict[str, Any]) -> "Lora":
        """Reads the options of a config.

        Raises:
            ModelError: an unknown option, with the nearest match.
        """
        known = list(cls.__dataclass_fields__)
        for option in options:
            if option not in known:
                raise ModelError(f"lora has no option '{option}'. {did_you_mean(option, known)}")
        targets = options.get("target_modules")
        return cls(**{**options, "target_modules": None if targets is None else tuple(targets)})

    def as_options(self) -> dict[str, Any]:
        """The options that `parse` reads."""
        return asdict(self) | {"target_modules": None if self.target_modules is None else list(self.target_modules)}


def set_tuning(
    part: nn.Module, how: TuningMode, lora: Lora, *, keep: Sequence[nn.Module] = (), new_tokens: Sequence[int] = ()
) -> None:
    """Sets what of a part learns. With `lora`, adapters in float32 are put into the part; they begin as no change.

    Args:
        part: encoder or language model, as it was built.
        how: `full` leaves it at what its library lets learn, `frozen` or `lora`.
        lora: the adapters of `lora`.
        keep: layers that get no adapter where `lora.target_modules` is left out, such as an output layer.
        new_tokens: ids of added tokens, whose embeddings learn beside the adapters.

    Raises:
        ModelError: a target names no layer, or the adapters' settings are impossible.
    """
    if how == "full":
        return
    part.requires_grad_(False)
    if how == "frozen":
        return
    for target in lora.target_modules or ():
        # peft is content where one target of several fits.
        if not any(f".{name}".endswith(f".{target}") for name, _ in part.named_modules()):
            layers = {name.rpartition(".")[2] for name in _targets(part, keep)}
            raise ModelError(
                f"lora.target_modules: {type(part).__name__} has no layer '{target}'. {did_you_mean(target, layers)}"
            )
    # Here as below: peft takes a second to import, and only some runs have adapters.
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.tuners_utils import cast_adapter_dtype

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=list(lora.target_modules or _targets(part, keep)),
        trainable_token_indices=list(new_tokens) or None,
    )
    try:
        inject_adapter_in_model(config, part, _ADAPTER)
    except ValueError as error:
        raise ModelError(f"No LoRA for {type(part).__name__}: {error}") from error
    # They learn in small steps, which a bfloat16 weight would round away.
    cast_adapter_dtype(part, _ADAPTER)


def has_adapters(part: nn.Module) -> bool:
    """Whether any layer of a part has a LoRA adapter."""
    return bool(_adapted(part))


@contextmanager
def adapters_off(part: nn.Module) -> Iterator[None]:
    """The part as it was before its adapters learnt, for as long as the block lasts."""
    layers = [layer for layer in _adapted(part) if not layer.disable_adapters]
    learning = [parameter for parameter in part.parameters() if parameter.requires_grad]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        # peft switches gradients with the adapters, also of those that were not learning.
        part.requires_grad_(False)
        for parameter in learning:
            parameter.requires_grad_(True)


def base_state(part: nn.Module) -> dict[str, torch.Tensor]:
    """The part's `state_dict` without its adapters."""
    adapters = {
        id(value)
        for layer in _adapted(part)
        for name in layer.adapter_layer_names
        for value in getattr(layer, name).parameters()
    }
    return {key: value for key, value in part.state_dict(keep_vars=True).items() if id(value) not in adapters}


def train_adapters(part: nn.Module, mode: bool) -> None:
    """Keeps a part with adapters in evaluation mode, with running batch statistics, but for the adapters' dropout."""
    part.eval()
    for layer in _adapted(part):
        for child in cast("nn.Module", layer).children():
            if child is not layer.get_base_layer():
                child.train(mode)


def _adapted(part: nn.Module) -> "list[BaseTunerLayer]":
    """The layers of a part that have adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in part.modules() if isinstance(module, BaseTunerLayer)]


def _targets(part: nn.Module, keep: Sequence[nn.Module]) -> list[str]:
    layers = [(name, module) for name, module in part.named_modules() if module not in keep]
    linear = [name for name, module in layers if isinstance(module, nn.Linear)]
    return linear or [name for name, module in layers if isinstance(module, nn.Conv2d) and module.groups == 1]
