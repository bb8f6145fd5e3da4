"""Errors of counts in answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from unirs.errors import DataError
from unirs.metrics.base import Evaluation, Prediction, Statistic
from unirs.metrics.scorer import Scorer, unparsed_note

if TYPE_CHECKING:
    import numpy as np

_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_VALUES = {word: float(value) for value, word in enumerate(_WORDS)} | {"no": 0.0, "none": 0.0}
_NUMBER = rf"(?<![\w.])-?\d+(?:,\d{{3}})*(?:\.\d+)?(?!\w)|\b(?:{'|'.join(_VALUES)})\b"
_ANY = re.compile(_NUMBER, re.IGNORECASE)

_LARGEST = 10.0**12
"""Greatest count; a larger number is none, so that squares stay finite."""


def find_count(text: str, noun: str = "") -> float | None:
    """The first number in a text, in digits or as a word up to `twelve`; `no` is 0. None if there is none.

    With `noun` the number must precede it, or its plural, with at most two words between: `3 new roads` for `road`.
    `no changes in roads or buildings` has none of either.
    """
    match = _of_noun(noun).search(text) if noun else _ANY.search(text)
    if match is None:
        return None
    token = next(filter(None, match.groups()), match[0]).lower().replace(",", "")
    value = _VALUES[token] if token in _VALUES else float(token[:400])
    return value if abs(value) <= _LARGEST else None


@cache
def _of_noun(noun: str) -> re.Pattern[str]:
    name = rf"{re.escape(noun)}s?\b"
    return re.compile(rf"({_NUMBER})(?: \w+){{0,2}} {name}|\b(no)(?: \w+){{1,4}} n?or (?:new )?{name}", re.IGNORECASE)


@dataclass(frozen=True)
class CountError(Scorer):
    """Mean absolute error (`mae`) and root mean squared error (`rmse`) of numbers, and the share that is exact.

    An answer without a number is wrong for `accuracy` and counts in `unparsed`; `mae` and `rmse` are over the others.
    All are also given by category. A row's score is 1 if its numbers are exact, else 0.

    Source: EarthVQA (Wang et al., 2024) reports RMSE of counts; ChangeChat (Deng et al., 2025) and DeltaVLM (Deng et
    al., 2025) report MAE and RMSE of roads and buildings, which one answer names together.

    Attributes:
        nouns: Things whose numbers one answer names, e.g. `[road, building]`: errors are then `mae/road` ...
    """

    nouns: tuple[str, ...] = ()

    name = "count"
    category_is_given = True
    is_exact = True

    def mismatch(self, rows: Sequence[Prediction]) -> str:
        """All references must hold a number (of each noun); without `nouns` they must be one."""
        others = [row for row in rows if len(row.references) != 1 or not self._is_count(row.references[0])]
        return f"{len(others)} of {len(rows)} references are no numbers" if others else ""

    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:  # noqa: ARG002 (nothing is slow)
        """Scores rows; `slow` has no effect.

        Raises:
            DataError: A reference holds no number.
        """
        import numpy as np

        from unirs.metrics.statistics import accuracies, total

        statistics: dict[str, Statistic] = {}
        nouns = self.nouns or ("",)
        errors = np.array([[_error(row, noun) for noun in nouns] for row in rows])
        known = ~np.isnan(errors)
        exact = (errors == 0).all(axis=1)
        for index, noun in enumerate(nouns):
            label = f"/{noun}" if noun else ""
            statistics |= _errors(errors[:, index], known[:, index], label)
        categories = sorted({row.category for row in rows} - {""})
        for category in [] if self.nouns else categories:
            mask = np.array([row.category == category for row in rows])
            statistics |= _errors(errors[:, 0], known[:, 0] & mask, f"/{category}")
        unparsed = ~known.all(axis=1)
        statistics |= accuracies("accuracy", exact.tolist(), [row.category for row in rows])
        statistics["unparsed"] = total(unparsed)
        notes = unparsed_note(int(unparsed.sum()), len(rows), "hold no number: they are wrong, and not in mae and rmse")
        return Evaluation([row.answer.strip() for row in rows], exact.astype(float).tolist(), statistics, notes=notes)

    def _is_count(self, reference: str) -> bool:
        if self.nouns:
            return all(find_count(reference, noun) is not None for noun in self.nouns)
        return _ANY.fullmatch(reference.strip()) is not None and find_count(reference) is not None


def _error(row: Prediction, noun: str) -> float:
    """Answer minus reference; nan if the answer holds no number."""
    wanted = find_count(" ".join(row.references), noun)
    if wanted is None:
        of_noun = f" of '{noun}'" if noun else ""
        raise DataError(f"Row {row.id}: the reference {row.references} holds no number{of_noun}. Correct the row.")
    found = find_count(row.answer, noun)
    return float("nan") if found is None else found - wanted


def _errors(errors: np.ndarray, mask: np.ndarray, label: str) -> dict[str, Statistic]:
    import numpy as np

    from unirs.metrics.statistics import mean

    known = np.where(mask, errors, 0.0)
    squares = mean(known**2, mask)
    return {
        f"mae{label}": mean(np.abs(known), mask),
        f"rmse{label}": Statistic(squares.row_sums, lambda sums: np.sqrt(squares.from_sums(sums)), squares.n),
    }
