"""Accuracy of short answers to questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from sys import intern

from unirs.metrics.answer_rules import not_short_answers
from unirs.metrics.base import Evaluation, Prediction
from unirs.metrics.scorer import Scorer
from unirs.metrics.text import fold, strip_punctuation


@lru_cache(maxsize=10_000)
def normalize_answer(text: str) -> str:
    """An answer without case, surrounding space and surrounding punctuation: `" Yes. "` becomes `"yes"`.

    Signs of numbers and combining marks are no punctuation: `<10` differs from `>10`, and `-5` from `5`. Canonically
    equivalent Unicode texts are equal.
    """
    return strip_punctuation(fold(text))


@dataclass(frozen=True)
class VqaAccuracy(Scorer):
    """Exact match of the normalized answer with any normalized reference.

    Statistics: `accuracy` over all questions, `accuracy_macro` (the mean over the question types that occur) and
    `accuracy/<category>`. An answer without a letter or digit is wrong.

    Source: RSVQA (Lobry et al., 2020), section V, reports accuracy by question type, its average (macro) and over all
    questions (micro).

    Attributes:
        categories: Question types to print first, in this order; others follow by name.
    """

    categories: tuple[str, ...] = ()

    name = "exact"
    category_is_given = True
    is_exact = True

    def mismatch(self, rows: Sequence[Prediction]) -> str:
        """Each row must have one reference, which is no box."""
        return not_short_answers(rows)

    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:  # noqa: ARG002 (nothing is slow)
        """Scores rows 1 (right) or 0; `slow` has no effect."""
        from unirs.metrics.statistics import accuracies

        # Of their final size, since lists that grow side by side leave holes in memory: a task may have a million rows.
        answers, scores, categories = [""] * len(rows), [0.0] * len(rows), [""] * len(rows)
        for index, row in enumerate(rows):
            answer = normalize_answer(row.answer)
            hit = answer != "" and any(answer == normalize_answer(reference) for reference in row.references)
            answers[index], scores[index], categories[index] = answer, 1.0 if hit else 0.0, intern(row.category)
        return Evaluation(answers, scores, accuracies("accuracy", scores, categories, self.categories))
