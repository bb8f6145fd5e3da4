"""Top-1 accuracy of a classifier that answers in text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from unirs.errors import DataError, did_you_mean
from unirs.metrics.base import Evaluation, Prediction
from unirs.metrics.scorer import Scorer
from unirs.metrics.text import fold, words


@dataclass(frozen=True)
class Top1(Scorer):
    """Whether the class named in the answer is the row's class (its `category`).

    The answer may be a sentence, such as `This is a video about police chase.`: its class is the longest one, in words,
    whose words occur in it consecutively. An answer with no class, or with several of the greatest length, is wrong.
    Case and punctuation are ignored, but not signs of numbers: `Parade, protest` names `parade/protest`, and `10` does
    not name `<10`.

    Statistics: `top1` over all rows, `top1_macro` (the mean over the classes that occur) and `top1/<class>`.

    Attributes:
        classes: All classes.

    Raises:
        DataError: Two classes have the same words, or one has none.
    """

    classes: tuple[str, ...]
    _by_words: dict[str, str] = field(init=False, repr=False, compare=False)

    name = "top1"
    is_exact = True

    def __post_init__(self) -> None:
        by_words: dict[str, str] = {}
        for name in self.classes:
            key = _words(name)
            if not key:
                raise DataError(f"Class {name!r} has no letter or digit, so no answer can name it. Rename it.")
            if key in by_words:
                raise DataError(f"Classes {by_words[key]!r} and {name!r} have the same words. Rename one.")
            by_words[key] = name
        object.__setattr__(self, "_by_words", by_words)

    def mismatch(self, rows: Sequence[Prediction]) -> str:
        """Each row's category must be a class, which its reference names."""
        others = sum(
            not row.category or not row.references or self._class_in(_words(row.references[0])) != row.category
            for row in rows
        )
        return f"the references of {others} of {len(rows)} rows do not name their category, the class" if others else ""

    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:  # noqa: ARG002 (nothing is slow)
        """Scores rows 1 (right) or 0; `slow` has no effect.

        Raises:
            DataError: A row's class is none of `classes`.
        """
        from unirs.metrics.statistics import accuracies

        truths = [self._truth(row) for row in rows]
        answers = [_words(row.answer) for row in rows]
        found = [self._class_in(answer) for answer in answers]
        correct = [guess == truth for guess, truth in zip(found, truths, strict=True)]
        return Evaluation(
            normalized=[guess or answer for guess, answer in zip(found, answers, strict=True)],
            scores=[float(hit) for hit in correct],
            statistics=accuracies("top1", correct, truths, self.classes),
        )

    def _truth(self, row: Prediction) -> str:
        name = self._by_words.get(_words(row.category))
        if name is None:
            hint = did_you_mean(row.category, self.classes)
            raise DataError(f"Row {row.id} is of class {row.category!r}, which is unknown. {hint}")
        return name

    def _class_in(self, answer: str) -> str | None:
        lengths = {key: len(key.split()) for key in self._by_words if f" {key} " in f" {answer} "}
        longest = [key for key, length in lengths.items() if length == max(lengths.values())]
        return self._by_words[longest[0]] if len(longest) == 1 else None


def _words(text: str) -> str:
    return " ".join(words(fold(text)))
