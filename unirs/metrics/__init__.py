"""Metrics: plain Python on numpy; `unirs.metrics.gather` makes them torchmetrics that are correct when sharded."""

from typing import TYPE_CHECKING

from unirs.utils.lazy import lazy_names

if TYPE_CHECKING:
    from unirs.metrics.caption import CaptionMetrics, tokenize
    from unirs.metrics.classification import Top1
    from unirs.metrics.registry import named_metric
    from unirs.metrics.vqa import VqaAccuracy

__all__ = [
    "CaptionMetrics",
    "Top1",
    "VqaAccuracy",
    "named_metric",
    "tokenize",
]

__getattr__ = lazy_names(
    __name__,
    {
        "unirs.metrics.caption": "CaptionMetrics tokenize",
        "unirs.metrics.classification": "Top1",
        "unirs.metrics.registry": "named_metric",
        "unirs.metrics.vqa": "VqaAccuracy",
    },
)
