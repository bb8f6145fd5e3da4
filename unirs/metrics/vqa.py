"""Accuracy of short answers to questions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from unirs.metrics.base import Evaluation, Prediction
from unirs.metrics.statistics import accuracies

_SURROUNDING = re.compile(r"^[\W_]+|[\W_]+$")


def normalize_answer(text: str) -> str:
    """An answer without case, surrounding space and surrounding punctuation: `" Yes. "` becomes `"yes"`."""
    return _SURROUNDING.sub("", text.casefold())


@dataclass(frozen=True)
class VqaAccuracy:
    """Exact match of the normalized answer with any normalized reference.

    Statistics: `accuracy` over all questions, `accuracy_macro` (the mean over the question types that occur) and
    `accuracy/<kind>`. An answer without a letter or digit is wrong.

    Source: RSVQA (Lobry et al., 2020), section V, reports accuracy by question type, its average (macro) and over all
    questions (micro).

    Attributes:
        kinds: question types to print first, in this order; others follow by name.
    """

    categories: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`"vqa_accuracy"`."""
        return "vqa_accuracy"

    @property
    def primary_metric(self) -> str:
        """`"accuracy"`."""
        return "accuracy"

    @property
    def category_is_given(self) -> bool:
        """`True`: the question type is known from the question."""
        return True

    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:  # noqa: ARG002 (all is fast)
        """Scores rows 1 (right) or 0.

        Args:
            rows: all rows of one task.
            slow: no statistic here is slow, so it makes no difference.
        """
        answers = [normalize_answer(row.text) for row in rows]
        correct = [
            answer != "" and any(answer == normalize_answer(reference) for reference in row.references)
            for answer, row in zip(answers, rows, strict=True)
        ]
        statistics = accuracies("accuracy", correct, [row.category for row in rows], self.categories)
        return Evaluation(normalized=answers, scores=[float(hit) for hit in correct], statistics=statistics)
