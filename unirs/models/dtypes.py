"""`auto` as dtype or precision: bfloat16 on devices with instructions for its matrix products, else float32.

The choice depends on the device, not on a measurement: one near its threshold would differ between runs of one machine,
and results with it.
"""

import inspect
import os
from collections.abc import Mapping
from typing import Any, Literal

import torch

from unirs import plugins
from unirs.models.tuning import TuningMode

FixedDtype = Literal["float32", "bfloat16"]
Dtype = Literal["auto", "float32", "bfloat16"]

_ISA_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that limit the instructions of oneDNN, which computes matrix products on CPUs."""


def bfloat16_unit(accelerator: object = "auto") -> str | None:
    """What computes bfloat16 matrix products on the device of a trainer's `accelerator`; None if float32 is faster.

    Older GPUs and processors emulate them, several times slower than float32.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.cuda.get_device_name() if supported else None
    supports = torch.cpu.get_capabilities()
    limit = next((os.environ[name].upper() for name in _ISA_LIMITS if name in os.environ), "DEFAULT")
    if supports.get("amx_bf16") and ("AMX" in limit or limit in ("ALL", "DEFAULT")):
        return "AMX"
    without = ("SSE", "AVX2", "AVX512_CORE_VNNI")
    if supports.get("avx512_bf16") and limit not in ("AVX", "AVX512_CORE") and not limit.startswith(without):
        return "AVX512-BF16"
    return None


def resolve_dtype(dtype: Dtype, tune: TuningMode, accelerator: object = "auto") -> FixedDtype:
    """The dtype of a component's weights; `auto` is float32 if they are trained: bfloat16 rounds small steps away."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if tune != "full" and bfloat16_unit(accelerator) else "float32"


def resolve_encoder(options: Mapping[str, Any] | None, accelerator: object = "auto") -> dict[str, Any] | None:
    """Options of an encoder plugin with its `dtype`, if it has this option."""
    if options is None or "name" not in options:
        return None if options is None else dict(options)
    parameters = inspect.signature(plugins.load("unirs.encoders", options["name"])).parameters
    if "dtype" not in parameters:
        return dict(options)
    dtype, tune = (options.get(name, parameters[name].default) for name in ("dtype", "tune"))
    return {**options, "dtype": resolve_dtype(dtype, tune, accelerator)}


def resolve_precision(precision: Any, accelerator: object = "auto") -> Any:  # noqa: ANN401 - Lightning's type
    """The precision of a Lightning trainer: with `auto`, mixed if there are units for it."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if bfloat16_unit(accelerator) else "32-true"
