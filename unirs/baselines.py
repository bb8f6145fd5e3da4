"""What a model must beat: answers that need no model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from unirs.metrics.base import Prediction
from unirs.sample import Split


def most_frequent(train: Split, rows: Sequence[Prediction], *, by_kind: bool) -> tuple[Prediction, ...]:
    """Answers each row with the training split's most frequent answer.

    Args:
        train: where answers are counted; of equally frequent ones the first in the alphabet counts.
        rows: the questions.
        by_kind: count each kind apart. Only right where the kind is known from the question and is no label.
    """
    counts: dict[str, Counter[str]] = {}
    for sample in train:
        for turn in sample.turns:
            counts.setdefault(turn.kind if by_kind else "", Counter()).update(turn.targets)
    answers = {kind: min(count, key=lambda answer: (-count[answer], answer)) for kind, count in counts.items()}
    return tuple(replace(row, prediction=answers.get(row.kind if by_kind else "", "")) for row in rows)
