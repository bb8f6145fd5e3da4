"""Baselines that need no model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from unirs.metrics.base import Prediction
from unirs.tasks.sample import TaskSplit


def most_frequent(train: TaskSplit, rows: Sequence[Prediction], *, by_category: bool) -> tuple[Prediction, ...]:
    """Answers each row with the training split's most frequent answer.

    Args:
        train: training split; of equally frequent answers the alphabetically first counts.
        rows: the questions.
        by_category: count each category separately. Only valid if the category is known from the question.
    """
    counts: dict[str, Counter[str]] = {}
    for sample in train:
        for turn in sample.turns:
            counts.setdefault(turn.category if by_category else "", Counter()).update(turn.targets)
    answers = {category: min(count, key=lambda answer: (-count[answer], answer)) for category, count in counts.items()}
    return tuple(replace(row, text=answers.get(row.category if by_category else "", "")) for row in rows)
