"""Metrics by the names that configs and command lines use."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from unirs import plugins
from unirs.errors import UniRSError, did_you_mean
from unirs.metrics.scorer import Scorer
from unirs.options import check_options

if TYPE_CHECKING:
    from unirs.metrics.scorer import MetricFactory

PROTOCOLS = {
    "exact": "unirs.metrics.vqa:VqaAccuracy",
    "earthdial": "unirs.metrics.answer_rules:EarthDialRecall",
    "contains": "unirs.metrics.answer_rules:Contains",
    "vrsbench": "unirs.metrics.answer_rules:VrsBenchVqa",
    "lrsvqa": "unirs.metrics.answer_rules:LrsVqa",
    "choice": "unirs.metrics.choice:ChoiceAccuracy",
    "top1": "unirs.metrics.classification:Top1",
    "count": "unirs.metrics.count:CountError",
    "binary": "unirs.metrics.change_questions:BinaryQuestions",
    "locations": "unirs.metrics.change_questions:GridLocations",
    "boxes": "unirs.metrics.boxes:Boxes",
    "caption": "unirs.metrics.caption:CaptionMetrics",
    "rsicc": "unirs.metrics.rsicc:RsiccCaptions",
}
"""Dotted paths of the scorers by name, in the order of tables."""

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
METRICS = PROTOCOLS | {name: f"torchmetrics.text:{target}" for name, target in _TORCHMETRICS.items()}
"""Dotted paths of metrics by name."""


def named_metric(name: str, classes: Sequence[str] = (), options: Mapping[str, Any] | None = None) -> "MetricFactory":
    """A metric with `options`, and with `classes` if it takes them, as `top1` does.

    `name` is a key of `METRICS`, or the dotted path `package.module:attribute` or file `folder/file.py:attribute` of a
    scorer, a class of torchmetrics, or a function that makes an object of one.

    Raises:
        UniRSError: The name is unknown, its module does not import, or an option is unknown or wrong.
        DataError: Two classes have the same words, or one has none.
    """
    metric: Any = _load(name)
    checked = check_options(f"Metric '{name}'", metric, options or {}) if options else {}
    if isinstance(metric, type) and issubclass(metric, Scorer):
        scorer: Callable[..., Scorer] = metric
        if "classes" in metric_options(name):
            checked = {"classes": tuple(dict.fromkeys(classes)), **checked}
        return scorer(**checked)
    return partial(metric, **checked) if checked else metric


def metric_options(name: str) -> list[str]:
    """Names of a metric's options; errors are those of `named_metric`."""
    return list(inspect.signature(_load(name)).parameters)


def _load(name: str) -> Callable[..., Any]:
    if name not in METRICS and ":" not in name:
        raise UniRSError(
            f"Unknown metric '{name}'. {did_you_mean(name, METRICS)} A dotted path 'package.module:Metric' also works."
        )
    return plugins.load_attribute(METRICS.get(name, name), trusted=name in METRICS)
