"""Metrics by the names that people type."""

from collections.abc import Sequence

from unirs.errors import UniRSError, did_you_mean
from unirs.metrics.base import Metric

NAMES = ("vqa", "caption", "top1")


def named_metric(name: str, classes: Sequence[str] = ()) -> Metric:
    """A metric with its default options.

    Args:
        name: `vqa` (`VqaAccuracy`), `caption` (`CaptionMetrics`) or `top1` (`Top1`).
        classes: what `top1` tells apart; the others need none.

    Raises:
        UniRSError: the name is unknown.
        DataError: two classes have the same words, or one has none.
    """
    if name == "vqa":
        from unirs.metrics.vqa import VqaAccuracy

        return VqaAccuracy()
    if name == "caption":
        from unirs.metrics.caption import CaptionMetrics

        return CaptionMetrics()
    if name == "top1":
        from unirs.metrics.classification import Top1

        return Top1(classes=tuple(dict.fromkeys(classes)))
    raise UniRSError(f"Unknown metric '{name}'. {did_you_mean(name, NAMES)}")
