"""Metrics by the names that configs and command lines use."""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from unirs import plugins
from unirs.errors import UniRSError, did_you_mean
from unirs.metrics.scorer import Scorer

if TYPE_CHECKING:
    from unirs.metrics.scorer import MetricFactory

_SCORERS = {
    "vqa": "unirs.metrics.vqa:VqaAccuracy",
    "caption": "unirs.metrics.caption:CaptionMetrics",
    "top1": "unirs.metrics.classification:Top1",
}
_TORCHMETRICS = {
    "bertscore": "BERTScore",
    "bleu": "BLEUScore",
    "cer": "CharErrorRate",
    "chrf": "CHRFScore",
    "eed": "ExtendedEditDistance",
    "rouge": "ROUGEScore",
    "sacrebleu": "SacreBLEUScore",
    "ter": "TranslationEditRate",
    "wer": "WordErrorRate",
}
METRICS = _SCORERS | {name: f"torchmetrics.text:{target}" for name, target in _TORCHMETRICS.items()}
"""Dotted paths of metrics by name."""


def named_metric(name: str, classes: Sequence[str] = ()) -> "MetricFactory":
    """A metric with its default options, and with `classes` if it takes them, as `top1` does.

    `name` is a key of `METRICS`, or the dotted path `package.module:attribute` or file `folder/file.py:attribute` of a
    scorer, a class of torchmetrics, or a function that makes an object of one.

    Raises:
        UniRSError: The name is unknown, or its module does not import.
        DataError: Two classes have the same words, or one has none.
    """
    if name not in METRICS and ":" not in name:
        raise UniRSError(
            f"Unknown metric '{name}'. {did_you_mean(name, METRICS)} A dotted path 'package.module:Metric' also works."
        )
    metric: Any = plugins.load_attribute(METRICS.get(name, name), trusted=name in METRICS)
    if isinstance(metric, type) and issubclass(metric, Scorer):
        scorer: Callable[..., Scorer] = metric
        takes_classes = "classes" in inspect.signature(scorer).parameters
        return scorer(classes=tuple(dict.fromkeys(classes))) if takes_classes else scorer()
    return metric  # type: ignore[no-any-return]
