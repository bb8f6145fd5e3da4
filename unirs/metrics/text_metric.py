"""Text metrics of torchmetrics as scorers. Imports torch only to score."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import UnionType
from typing import TYPE_CHECKING, Any, Union

from unirs.errors import DataError, PluginError
from unirs.metrics.base import Evaluation, Prediction, Statistic
from unirs.metrics.scorer import Scorer

if TYPE_CHECKING:
    import torchmetrics

    from unirs.metrics.scorer import MetricFactory

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class TextMetric(Scorer):
    """Scores rows by a metric with `update(preds, target)` and `compute()`.

    `preds` are the answers, `target` is a list of references for each of them. If the metric annotates `target` as a
    flat list of texts, as `WordErrorRate` does, it gets the only reference of each row.

    `compute()` returns

    - a number: a statistic named after the class (`CHRFScore`: `chrf_score`),
    - one number per row: their mean, with an interval, and the scores of the rows,
    - a pair of both: the statistic and the scores of the rows,
    - or a dictionary of these by name. The first is the primary metric, unless the metric has an attribute
      `primary_metric` that names another.

    A number for all rows together has no interval.

    Attributes:
        factory: Makes a new metric. Its state is never synchronized: the rows are gathered before.
    """

    factory: MetricFactory

    @property
    def name(self) -> str:
        """Name of the metric's class in snake case."""
        factory: Any = self.factory
        while isinstance(factory, partial):
            factory = factory.func
        return _snake_case(getattr(factory, "__name__", type(factory).__name__))

    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:  # noqa: ARG002 (one speed)
        """Scores rows; `slow` has no effect.

        Raises:
            DataError: A row has no references, or several for a metric that takes one.
            PluginError: The metric needs a package that is not installed, takes no texts, or returns no numbers.
        """
        metric = self._build()
        texts = [row.answer for row in rows]
        metric.update(texts, self._targets(metric, rows))
        name = _snake_case(type(metric).__name__)
        computed = metric.compute()
        values = computed if isinstance(computed, Mapping) else {name: computed}
        statistics: dict[str, Statistic] = {}
        scores = dict.fromkeys(values, [math.nan] * len(rows))
        for key, value in values.items():
            statistics[key], scores[key] = self._read(key, value, len(rows))
        primary = getattr(metric, "primary_metric", next(iter(statistics), ""))
        if primary not in statistics:
            raise PluginError(f"The metric '{self.name}' computes {list(statistics)}, without its primary '{primary}'.")
        return Evaluation(texts, scores[primary], statistics, primary)

    def _build(self) -> torchmetrics.Metric | torchmetrics.MetricCollection:
        import torchmetrics

        try:
            metric = self.factory()
        except ModuleNotFoundError as error:
            raise PluginError(f"The metric '{self.name}' cannot be used: {error}") from error
        if not isinstance(metric, torchmetrics.Metric | torchmetrics.MetricCollection):
            made = type(metric).__name__
            raise PluginError(
                f"The metric '{self.name}' made a {made}. Pass a scorer, or a class of torchmetrics.Metric."
            )
        for module in metric.modules():
            if isinstance(module, torchmetrics.Metric):
                module.distributed_available_fn = lambda: False  # the rows are gathered before
        return metric

    def _targets(self, metric: torchmetrics.Metric | torchmetrics.MetricCollection, rows: Sequence[Prediction]) -> Any:  # noqa: ANN401 (what the metric takes)
        try:
            hints = typing.get_type_hints(metric.update)
        except NameError:  # its module imports types for type checkers only
            hints = {}
        # Incomplete annotations are accepted.
        hints = {name: hint for name, hint in hints.items() if hint not in (Any, list, Sequence)}
        if _depth(hints.get("preds", list[str])) != 1:
            raise PluginError(f"The metric '{self.name}' takes no list of texts. Choose one of torchmetrics.text.")
        flat = _depth(hints.get("target", list[list[str]])) == 1
        for row in rows:
            if not row.references or (flat and len(row.references) > 1):
                wanted = f"the metric '{self.name}' takes {'exactly' if flat else 'at least'} one"
                raise DataError(
                    f"Row {row.id} has {len(row.references)} references; {wanted}. Change the metric or the data."
                )
        return [row.references[0] if flat else list(row.references) for row in rows]

    def _read(self, key: str, value: object, count: int) -> tuple[Statistic, list[float]]:
        """A computed value as a statistic, and the scores of the rows."""
        import torch

        from unirs.metrics.statistics import constant, mean

        total, per_row = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
        try:
            number, rows = torch.as_tensor(total).double(), torch.as_tensor([] if per_row is None else per_row).double()
        except (TypeError, ValueError, RuntimeError):
            number, rows = torch.zeros(2, 0), torch.zeros(0)
        scores = rows.tolist() if rows.shape == (count,) else [math.nan] * count
        if number.ndim == 0:
            return constant(float(number), count), scores
        if number.shape == (count,):
            return mean(number.tolist()), number.tolist()
        raise PluginError(
            f"Metric '{self.name}' computes {value!r} as '{key}'. Return a number, or one number per row."
        )


def as_scorer(metric: MetricFactory) -> Scorer:
    """The metric itself if it is a scorer, else a `TextMetric` of it."""
    return metric if isinstance(metric, Scorer) else TextMetric(metric)


def _snake_case(name: str) -> str:
    return _WORD_START.sub("_", name).lower()


def _depth(hint: object) -> int:
    """Depth of `str` in nested sequences, in the deepest alternative: 2 for `list[list[str]]`; -1 if absent."""
    if hint is str:
        return 0
    alternatives = [_depth(argument) for argument in typing.get_args(hint)]
    deepest = max(alternatives, default=-1)
    origin: Any = typing.get_origin(hint)
    if origin in (Union, UnionType) or deepest < 0:
        return deepest
    return deepest + 1 if issubclass(origin, Sequence) else -1
