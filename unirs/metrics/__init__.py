"""Metrics: scorers on numpy, and the torchmetrics metrics around them, which are correct when sharded."""

from typing import TYPE_CHECKING

from unirs.utils.lazy import lazy_names

if TYPE_CHECKING:
    from unirs.metrics.answer_rules import Contains, EarthDialRecall, LrsVqa, VrsBenchVqa
    from unirs.metrics.base import Evaluation, Prediction, Statistic
    from unirs.metrics.boxes import Boxes
    from unirs.metrics.by_category import ByCategory
    from unirs.metrics.caption import CaptionMetrics, tokenize
    from unirs.metrics.change_questions import BinaryQuestions, GridLocations
    from unirs.metrics.choice import ChoiceAccuracy
    from unirs.metrics.classification import Top1
    from unirs.metrics.count import CountError
    from unirs.metrics.gather import PredictionMetric
    from unirs.metrics.registry import named_metric
    from unirs.metrics.rsicc import RsiccCaptions
    from unirs.metrics.scorer import Scorer
    from unirs.metrics.statistics import accuracies, constant, mean
    from unirs.metrics.text import fold, words
    from unirs.metrics.text_metric import TextMetric
    from unirs.metrics.vqa import VqaAccuracy

__all__ = ["Evaluation", "Prediction", "PredictionMetric", "Scorer", "Statistic", "TextMetric", "named_metric"]
__all__ += ["CaptionMetrics", "Top1", "VqaAccuracy", "accuracies", "constant", "fold", "mean", "tokenize", "words"]
__all__ += [
    "BinaryQuestions",
    "Boxes",
    "ByCategory",
    "ChoiceAccuracy",
    "Contains",
    "CountError",
    "EarthDialRecall",
    "GridLocations",
]
__all__ += ["LrsVqa", "RsiccCaptions", "VrsBenchVqa"]

__getattr__ = lazy_names(
    __name__,
    {
        "unirs.metrics.answer_rules": "Contains EarthDialRecall LrsVqa VrsBenchVqa",
        "unirs.metrics.base": "Evaluation Prediction Statistic",
        "unirs.metrics.boxes": "Boxes",
        "unirs.metrics.by_category": "ByCategory",
        "unirs.metrics.caption": "CaptionMetrics tokenize",
        "unirs.metrics.change_questions": "BinaryQuestions GridLocations",
        "unirs.metrics.choice": "ChoiceAccuracy",
        "unirs.metrics.classification": "Top1",
        "unirs.metrics.count": "CountError",
        "unirs.metrics.gather": "PredictionMetric",
        "unirs.metrics.registry": "named_metric",
        "unirs.metrics.rsicc": "RsiccCaptions",
        "unirs.metrics.scorer": "Scorer",
        "unirs.metrics.statistics": "accuracies constant mean",
        "unirs.metrics.text": "fold words",
        "unirs.metrics.text_metric": "TextMetric",
        "unirs.metrics.vqa": "VqaAccuracy",
    },
)
