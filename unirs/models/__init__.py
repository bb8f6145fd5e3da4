"""What an encoder plugin may use: dtypes, tuning modes, sources of weights, and checks of loaded weights."""

from typing import TYPE_CHECKING

from unirs.utils.lazy import lazy_names

if TYPE_CHECKING:
    from unirs.models.dtypes import Dtype, resolve_dtype
    from unirs.models.llm import check_loaded
    from unirs.models.tuning import Lora, TuningMode, merge_adapters, set_tuning, train_adapters
    from unirs.utils.sources import resolve_source

__all__ = [
    "Dtype",
    "Lora",
    "TuningMode",
    "check_loaded",
    "merge_adapters",
    "resolve_dtype",
    "resolve_source",
    "set_tuning",
    "train_adapters",
]

__getattr__ = lazy_names(
    __name__,
    {
        "unirs.models.dtypes": "Dtype resolve_dtype",
        "unirs.models.llm": "check_loaded",
        "unirs.models.tuning": "Lora TuningMode merge_adapters set_tuning train_adapters",
        "unirs.utils.sources": "resolve_source",
    },
)
