"""Metrics: scorers on numpy, and the torchmetrics metrics around them, which are correct when sharded."""

from typing import TYPE_CHECKING

from unirs.utils.lazy import lazy_names

if TYPE_CHECKING:
    from unirs.metrics.base import Evaluation, Prediction, Statistic
    from unirs.metrics.caption import CaptionMetrics, tokenize
    from unirs.metrics.classification import Top1
    from unirs.metrics.gather import PredictionMetric
    from unirs.metrics.registry import named_metric
    from unirs.metrics.scorer import Scorer
    from unirs.metrics.statistics import accuracies, constant, mean
    from unirs.metrics.text import fold, words
    from unirs.metrics.text_metric import TextMetric
    from unirs.metrics.vqa import VqaAccuracy

__all__ = ["Evaluation", "Prediction", "PredictionMetric", "Scorer", "Statistic", "TextMetric", "named_metric"]
__all__ += ["CaptionMetrics", "Top1", "VqaAccuracy", "accuracies", "constant", "fold", "mean", "tokenize", "words"]

__getattr__ = lazy_names(
    __name__,
    {
        "unirs.metrics.base": "Evaluation Prediction Statistic",
        "unirs.metrics.caption": "CaptionMetrics tokenize",
        "unirs.metrics.classification": "Top1",
        "unirs.metrics.gather": "PredictionMetric",
        "unirs.metrics.registry": "named_metric",
        "unirs.metrics.scorer": "Scorer",
        "unirs.metrics.statistics": "accuracies constant mean",
        "unirs.metrics.text": "fold words",
        "unirs.metrics.text_metric": "TextMetric",
        "unirs.metrics.vqa": "VqaAccuracy",
    },
)
