"""How a pretrained component is tuned: all of its weights, none, or low-rank adapters beside frozen weights (LoRA)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from unirs.errors import ModelError, did_you_mean
from unirs.ranges import HalfOpenUnitInterval, PositiveInt, check_ranges

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTunerLayer


TuningMode = Literal["full", "frozen", "lora"]

_ADAPTER = "default"


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al., arXiv 2106.09685), with the option names of PEFT.

    Attributes:
        r: rank of the update matrices.
        lora_alpha: the adapters' output is scaled by lora_alpha / r.
        lora_dropout: dropout of the adapters' input, 0..1 without 1.
        target_modules: names, or suffixes of names, of the layers that get an adapter. Default: all linear layers, or
            all convolutions of a component that has no linear layer.
    """

    r: PositiveInt = 16
    lora_alpha: PositiveInt = 32
    lora_dropout: HalfOpenUnitInterval = 0.0
    target_modules: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_ranges(Lora, self, "lora.")

    @classmethod
    def parse(cls, options: dict[str, Any]) -> "Lora":
        """Reads the options of a config, and names an unknown one in a `ModelError`."""
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
    component: nn.Module,
    mode: TuningMode,
    lora: Lora,
    *,
    exclude: Sequence[nn.Module] = (),
    new_tokens: Sequence[int] = (),
) -> None:
    """Sets which weights are trainable. `lora` inserts float32 adapters, which do not change the output at first.

    Args:
        component: encoder or language model, without adapters.
        mode: `full` leaves `requires_grad` as it is; `frozen` and `lora` freeze all weights.
        lora: the adapters of mode `lora`.
        exclude: layers that get no adapter unless `lora.target_modules` names them, such as the output layer.
        new_tokens: ids of added tokens, whose embeddings are trained beside the adapters.

    Raises:
        ModelError: a target matches no layer, or the adapters' options are invalid.
    """
    if mode == "full":
        return
    component.requires_grad_(False)
    if mode == "frozen":
        return
    for target in lora.target_modules or ():
        # peft accepts a list of targets if any of them matches.
        if not any(f".{name}".endswith(f".{target}") for name, _ in component.named_modules()):
            layers = {name.rpartition(".")[2] for name in _default_targets(component, exclude)}
            problem = f"lora.target_modules: {type(component).__name__} has no layer '{target}'."
            raise ModelError(f"{problem} {did_you_mean(target, layers)}")
    # Imported in functions: peft takes a second to import.
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.tuners_utils import cast_adapter_dtype

    targets = list(lora.target_modules or _default_targets(component, exclude))
    options = lora.as_options() | {"target_modules": targets, "trainable_token_indices": list(new_tokens) or None}
    try:
        inject_adapter_in_model(LoraConfig(**options), component, _ADAPTER)
    except ValueError as error:
        raise ModelError(f"No LoRA for {type(component).__name__}: {error}") from error
    # bfloat16 would round small optimizer steps to zero.
    cast_adapter_dtype(component, _ADAPTER)


def has_adapters(component: nn.Module) -> bool:
    """Whether any layer of a component has a LoRA adapter."""
    return bool(_adapted_layers(component))


@contextmanager
def adapters_off(component: nn.Module) -> Iterator[None]:
    """Disables the adapters inside the `with` block: the component computes as before their training."""
    layers = [layer for layer in _adapted_layers(component) if not layer.disable_adapters]
    trainable = [parameter for parameter in component.parameters() if parameter.requires_grad]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        # peft sets `requires_grad` of all adapters, also of those that were frozen before.
        component.requires_grad_(False)
        for parameter in trainable:
            parameter.requires_grad_(True)


def merge_adapters(component: nn.Module) -> None:
    """Adds the adapters to the weights, in place and in the weights' dtype, and removes the adapter layers."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import TrainableTokensWrapper

    for name, module in list(component.named_modules()):
        layer = module.token_adapter if isinstance(module, TrainableTokensWrapper) else module
        # The adapter of a wrapper that was replaced is no longer part of the component.
        if isinstance(layer, BaseTunerLayer) and not name.endswith(".token_adapter"):
            layer.merge()
            component.set_submodule(name, layer.get_base_layer())
    if hasattr(component, "peft_config"):
        del component.peft_config


def write_adapter(folder: Path, llm: PreTrainedModel) -> None:
    """Writes the adapters of a language model for `peft.PeftModel.from_pretrained(base, folder)`.

    The embedding and output layers of a model with added tokens are written too; `base` needs rows for these tokens:
    `base.resize_token_embeddings(len(tokenizer))`.
    """
    if not has_adapters(llm):
        raise ModelError("The language model has no LoRA adapters: only a model with 'llm.tune: lora' exports them.")
    from peft import LoraConfig
    from peft.utils.save_and_load import get_peft_model_state_dict

    config = cast("LoraConfig", llm.peft_config[_ADAPTER])
    state = get_peft_model_state_dict(llm, save_embedding_layers=config.trainable_token_indices is not None)
    weights = {f"base_model.model.{key}": value.detach().contiguous().clone() for key, value in state.items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    base = llm.name_or_path or None
    exported = replace(config, task_type="CAUSAL_LM", base_model_name_or_path=base, inference_mode=True)
    exported.save_pretrained(str(folder))


def base_state(component: nn.Module) -> dict[str, torch.Tensor]:
    """The component's `state_dict` without its adapters."""
    layers = [getattr(layer, name) for layer in _adapted_layers(component) for name in layer.adapter_layer_names]
    adapters = {id(value) for layer in layers for value in layer.parameters()}
    return {key: value for key, value in component.state_dict(keep_vars=True).items() if id(value) not in adapters}


def train_adapters(component: nn.Module, mode: bool) -> None:
    """Sets evaluation mode for the component, and training mode `mode` for the dropout of its adapters."""
    component.eval()
    for layer in _adapted_layers(component):
        for child in cast("nn.Module", layer).children():
            if child is not layer.get_base_layer():
                child.train(mode)


def _adapted_layers(component: nn.Module) -> "list[BaseTunerLayer]":
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in component.modules() if isinstance(module, BaseTunerLayer)]


def _default_targets(component: nn.Module, exclude: Sequence[nn.Module]) -> list[str]:
    layers = [(name, module) for name, module in component.named_modules() if module not in exclude]
    linear = [name for name, module in layers if isinstance(module, nn.Linear)]
    # Without depthwise convolutions.
    return linear or [name for name, module in layers if isinstance(module, nn.Conv2d) and module.groups == 1]
