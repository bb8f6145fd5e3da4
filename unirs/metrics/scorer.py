"""Scorers: what turns the rows of a task into an `Evaluation`. A scorer is also a factory of a torchmetrics metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from unirs.metrics.base import Evaluation, Prediction

if TYPE_CHECKING:
    import torchmetrics

    from unirs.metrics.gather import PredictionMetric

    MetricFactory = Callable[[], torchmetrics.Metric | torchmetrics.MetricCollection]
    """Makes a new metric: a `Scorer`, or a class or partial of torchmetrics."""


class Scorer(ABC):
    """Scores the answers of a task. Subclasses are frozen dataclasses that import no torch.

    Attributes:
        category_is_given: Whether a row's category is known from the question, as a question type is. False if the
            model has to find it out, as it does a class.
        is_exact: Whether a row's score is 1 for a right and 0 for a wrong answer.
    """

    category_is_given: bool = False
    is_exact: bool = False

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in listings and messages. A class attribute `name = "..."` overrides it."""

    @abstractmethod
    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:
        """Scores all rows of one task, at least one, in a fixed order.

        Training sets `slow` to false, which omits statistics that are slow to compute.
        """

    def mismatch(self, rows: Sequence[Prediction]) -> str:  # noqa: ARG002 (for subclasses)
        """Why the references of these rows are not those that the rule is for; empty if they are.

        Decides which protocols `unirs score --as all` applies. `evaluate` scores such rows nevertheless.
        """
        return ""

    def __call__(self, *, slow: bool = True) -> PredictionMetric:
        """Makes a torchmetrics metric that gathers rows from all processes and scores them by `evaluate`."""
        from unirs.metrics.gather import PredictionMetric

        return PredictionMetric(partial(self.evaluate, slow=slow))


def unparsed_note(unparsed: int, rows: int, meaning: str) -> tuple[str, ...]:
    """A remark on the number of answers that a rule cannot parse; none if there are none."""
    return (f"{unparsed} of {rows} answers {meaning}.",) if unparsed else ()
