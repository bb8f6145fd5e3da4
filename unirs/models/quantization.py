"""4-bit weights of frozen linear layers (QLoRA, arXiv 2305.14314): NormalFloat, with one scale for 64 weights.

Quantizing a dequantized layer again gives the same weights: the element of the largest magnitude in a block is exact. A
saved model therefore holds dequantized weights, and is quantized again when it is loaded.
"""

from typing import Any, Literal

import torch
from torch import nn

from unirs.errors import ModelError

Quantization = Literal["nf4"]


def quantize(component: nn.Module, quantization: Quantization, exclude: torch.Tensor | None = None) -> None:
    """Quantizes all linear layers that are not trained, in place, except the one with the weight `exclude`.

    Raises:
        ModelError: the package bitsandbytes is missing.
    """
    try:
        import bitsandbytes
    except ImportError as error:
        raise ModelError(
            f"llm.quantize needs the package bitsandbytes, which does not import ({error}): pip install "
            "'unirs[quantize]'."
        ) from error
    library: Any = bitsandbytes.nn
    # Scales that are quantized themselves would not be exact.
    options: dict[str, Any] = {"quant_type": quantization, "compress_statistics": False}
    for name, layer in list(component.named_modules()):
        if not isinstance(layer, nn.Linear) or layer.weight is exclude or layer.weight.requires_grad:
            continue
        dtype, has_bias = layer.weight.dtype, layer.bias is not None
        with torch.device("meta"):
            quantized = library.Linear4bit(layer.in_features, layer.out_features, has_bias, dtype, **options)
        # Quantized when it is moved.
        weight = library.Params4bit(layer.weight.data, requires_grad=False, module=quantized, **options)
        quantized.weight, quantized.bias = weight.to(layer.weight.device), layer.bias
        quantized._register_state_dict_hook(_drop_scales)
        component.set_submodule(name, quantized.train(layer.training))


def dequantize(component: nn.Module) -> None:
    """Replaces quantized layers by linear ones in the dtype that they had, in place."""
    for name, layer in list(component.named_modules()):
        if is_quantized(layer):
            from bitsandbytes.functional import dequantize_4bit

            quantized: Any = layer
            with torch.device("meta"):
                linear = nn.Linear(quantized.in_features, quantized.out_features, quantized.bias is not None)
            # Restores the order of the weights, which inference on a CPU may change.
            quantized.state_dict()
            weight = dequantize_4bit(quantized.weight.data, quantized.weight.quant_state)
            linear.weight, linear.bias = nn.Parameter(weight, requires_grad=False), quantized.bias
            component.set_submodule(name, linear.train(layer.training))


def is_quantized(layer: nn.Module) -> bool:
    """Whether a module is a quantized layer."""
    return isinstance(layer, nn.Linear) and getattr(layer.weight, "quant_state", None) is not None


def _drop_scales(_: nn.Module, state: dict[str, Any], prefix: str, *__: object) -> None:
    """Keeps the scales out of state dicts, which then have the keys of the layer before, and load into this one."""
    for key in [key for key in state if key.startswith(f"{prefix}weight.")]:
        del state[key]
