"""A metric of its own for each category of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from unirs.errors import DataError, did_you_mean
from unirs.metrics.base import Evaluation, Prediction, Statistic
from unirs.metrics.scorer import Scorer


@dataclass(frozen=True)
class ByCategory(Scorer):
    """Scores the rows of each category by another scorer.

    The text before the first `/` of a row's category names its scorer, and the rest is the category that the scorer
    gets. Statistics have the name before theirs: `count/mae/road`, `caption/cider/changed`. The scores of rows are
    those of their scorers, which may have different scales.

    Attributes:
        scorers: Scorer of each category, in the order of the statistics.
    """

    scorers: Mapping[str, Scorer]

    name = "by_category"
    category_is_given = True

    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:
        """Scores rows; `slow` is passed on.

        Raises:
            DataError: A row's category has no scorer, or its scorer cannot score it.
        """
        import numpy as np

        members: dict[str, list[int]] = {name: [] for name in self.scorers}
        for index, row in enumerate(rows):
            name = row.category.partition("/")[0]
            if name not in members:
                raise DataError(f"Row {row.id}: no metric scores '{name}'. {did_you_mean(name, members)}")
            members[name].append(index)
        normalized, scores = [""] * len(rows), [0.0] * len(rows)
        statistics: dict[str, Statistic] = {}
        primary, notes = "", list[str]()
        for name, indices in members.items():
            if not indices:
                continue
            own = [replace(rows[index], category=rows[index].category.partition("/")[2]) for index in indices]
            evaluation = self.scorers[name].evaluate(own, slow=slow)
            for index, text, score in zip(indices, evaluation.normalized, evaluation.scores, strict=True):
                normalized[index], scores[index] = text, score
            for statistic, value in evaluation.statistics.items():
                row_sums = np.zeros((len(rows), value.row_sums.shape[1]))
                row_sums[indices] = value.row_sums
                statistics[f"{name}/{statistic}"] = replace(value, row_sums=row_sums)
            primary = primary or f"{name}/{evaluation.primary_metric}"
            notes += [f"{name}: {note}" for note in evaluation.notes]
        return Evaluation(normalized, scores, statistics, primary, tuple(notes))
