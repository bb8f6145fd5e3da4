"""What a metric is: from rows of predictions to a score per row and corpus statistics with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answered turn: a row of `predictions/<task>.jsonl`, before scoring.

    Attributes:
        id: the turn's id.
        task: the task's name.
        media: the files shown. Rows with equal media are resampled together.
        kind: question type, class, or `changed` / `unchanged`.
        prompt: the text the model was given.
        prediction: the text the model said.
        references: the texts to score against.
        clue: the clue in the prompt; empty where none was used.
    """

    id: str
    task: str
    media: tuple[str, ...]
    category: str
    prompt: str
    text: str
    references: tuple[str, ...]
    clue: str = ""


@dataclass(frozen=True)
class Statistic:
    """A corpus metric written as a function of sums over rows, so that resampling it is a matrix product.

    Accuracy is `sums[0] / sums[1]` over rows `(correct, 1)`; BLEU is a function of summed n-gram counts.

    Attributes:
        rows: float64 `[n, k]`, what each row adds; n counts all rows of the task.
        value: maps sums `[..., k]` to values `[...]`.
        n: how many rows this metric speaks of, e.g. the questions of one kind.
    """

    row_sums: np.ndarray
    from_sums: Callable[[np.ndarray], np.ndarray]
    n: int


@dataclass(frozen=True)
class Evaluation:
    """A metric's view of one task's rows.

    Attributes:
        normalized: each prediction as it was compared, in the order of the rows.
        scores: each row's own score (1/0 for accuracies, the row's CIDEr-D for captions).
        statistics: corpus metrics by name, in the order to print.
    """

    normalized: Sequence[str]
    scores: Sequence[float]
    statistics: Mapping[str, Statistic]


class Metric(Protocol):
    """Scores the answers of a task."""

    @property
    def name(self) -> str:
        """Shown by `unirs tasks`."""
        ...

    @property
    def primary_metric(self) -> str:
        """The statistic that stands for the task in the mean validation score."""
        ...

    @property
    def category_is_given(self) -> bool:
        """Whether a row's kind is known from the question, as a question type is, and no label to find out."""
        ...

    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:
        """Scores rows.

        Args:
            rows: all rows of one task, in a fixed order; at least one.
            slow: False during training: leave out statistics that are slow to compute.
        """
        ...
