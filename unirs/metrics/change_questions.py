"""Questions about changes with closed answers: yes or no, and the cells of a 3 x 3 grid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unirs.errors import DataError
from unirs.metrics.base import Evaluation, Prediction, Statistic
from unirs.metrics.scorer import Scorer, unparsed_note
from unirs.metrics.text import fold, words

if TYPE_CHECKING:
    import numpy as np

_CELL = re.compile(r"\b(top|center|middle|bottom)[- _]?(left|center|middle|right)\b|\b(center|middle)\b", re.IGNORECASE)
_CELLS = 9


def _yes_or_no(text: str) -> bool | None:
    first = words(fold(text))[:1]
    return {"yes": True, "no": False}.get(first[0]) if first else None


def _confusion(pairs: np.ndarray, n: int, label: str = "") -> dict[str, Statistic]:
    """Micro precision, recall and F1 of `[rows, 3]`: true positives, false positives, false negatives."""
    import numpy as np

    from unirs.metrics.statistics import ratio

    hits, extra, missed = pairs.T
    return {
        f"precision{label}": ratio(np.stack([hits, hits + extra], axis=1), n),
        f"recall{label}": ratio(np.stack([hits, hits + missed], axis=1), n),
        f"f1{label}": ratio(np.stack([2 * hits, 2 * hits + extra + missed], axis=1), n),
    }


@dataclass(frozen=True)
class BinaryQuestions(Scorer):
    """Yes or no, by the first word of the answer: `accuracy`, and `precision`, `recall` and `f1` of `yes`.

    An answer of another first word is wrong: a missed `yes` if the reference is yes. `unparsed` is their number.

    Source: ChangeChat (Deng et al., 2025) and DeltaVLM (Deng et al., 2025), public code, `test-cls.ipynb`.
    """

    name = "binary"
    category_is_given = True
    is_exact = True

    def mismatch(self, rows: Sequence[Prediction]) -> str:
        """All references must be yes or no."""
        others = [
            row for row in rows if len(row.references) != 1 or fold(row.references[0]).strip(" .") not in ("yes", "no")
        ]
        return f"{len(others)} of {len(rows)} references are neither yes nor no" if others else ""

    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:  # noqa: ARG002 (nothing is slow)
        """Scores rows 1 (right) or 0; `slow` has no effect.

        Raises:
            DataError: A reference is neither yes nor no.
        """
        import numpy as np

        from unirs.metrics.statistics import accuracies, total

        truths = [_yes_or_no(row.references[0]) if row.references else None for row in rows]
        if None in truths:
            row = rows[truths.index(None)]
            raise DataError(f"Row {row.id}: the reference {row.references} is neither yes nor no. Correct the row.")
        answers = [_yes_or_no(row.answer) for row in rows]
        correct = [answer == truth for answer, truth in zip(answers, truths, strict=True)]
        truth, yes = np.array(truths, bool), np.array([answer is True for answer in answers])
        pairs = np.stack([truth & yes, ~truth & yes, truth & ~yes], axis=1).astype(float)
        unparsed = [answer is None for answer in answers]
        by_category = accuracies("accuracy", correct, [row.category for row in rows])
        statistics = {"accuracy": by_category["accuracy"], **_confusion(pairs, len(rows)), **by_category}
        statistics["unparsed"] = total(unparsed)
        notes = unparsed_note(sum(unparsed), len(rows), "begin with neither yes nor no and are wrong")
        texts = [{True: "yes", False: "no", None: ""}[answer] for answer in answers]
        return Evaluation(texts, [float(hit) for hit in correct], statistics, notes=notes)


@dataclass(frozen=True)
class GridLocations(Scorer):
    """Cells of a 3 x 3 grid in which something changed, such as `roads ['top-left'] buildings []`.

    Cells are `top-left`, `top-center`, ... `bottom-right`; the central one is `center-center` or `center`. Of each
    thing: `hamming`, the share of the nine cells that are wrong; micro `precision`, `recall` and `f1`; `jaccard`, the
    mean over rows, which is 0 for a row in which neither names a cell, as in scikit-learn; and `subset_accuracy`, the
    share of rows in which all cells are right. An answer that names none of the things is wrong and counts in
    `unparsed`. A row's score is 1 if all its cells are right, else 0.

    Source: ChangeChat (Deng et al., 2025) and DeltaVLM (Deng et al., 2025), public code, `test-loc.ipynb`.

    Attributes:
        nouns: The things; the cells of one follow its name. Empty: all cells in a text are of one thing.
    """

    nouns: tuple[str, ...] = ("roads", "buildings")

    name = "locations"
    category_is_given = True
    is_exact = True

    def mismatch(self, rows: Sequence[Prediction]) -> str:
        """All references must name each thing, with or without cells."""
        others = [row for row in rows if len(row.references) != 1 or not self._is_listing(row.references[0])]
        return (
            f"{len(others)} of {len(rows)} references do not list cells of {' and '.join(self.nouns)}" if others else ""
        )

    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:  # noqa: ARG002 (nothing is slow)
        """Scores rows; `slow` has no effect.

        Raises:
            DataError: A reference does not name one of the things.
        """
        import numpy as np

        from unirs.metrics.statistics import mean, total

        for row in rows:
            if not all(self._names(row.references[0] if row.references else "", noun) for noun in self.nouns):
                raise DataError(
                    f"Row {row.id}: the reference {row.references} does not list cells of {' and '.join(self.nouns)}."
                )
        statistics: dict[str, Statistic] = {}
        exact = np.ones(len(rows), bool)
        for noun in self.nouns or ("",):
            sets = [(self._cells(row.answer, noun), self._cells(row.references[0], noun)) for row in rows]
            # A text without the noun names no cells, but is not right even if there are none.
            named = np.array([self._names(row.answer, noun) for row in rows])
            pairs = np.array([(len(a & b), len(a - b), len(b - a)) for a, b in sets], dtype=float)
            label, wrong = f"/{noun}" if noun else "", pairs[:, 1] + pairs[:, 2]
            right = (wrong == 0) & named
            exact &= right
            statistics[f"hamming{label}"] = mean(wrong / _CELLS)
            statistics |= _confusion(pairs, len(rows), label)
            statistics[f"jaccard{label}"] = mean(pairs[:, 0] / np.maximum(pairs.sum(axis=1), 1))
            statistics[f"subset_accuracy{label}"] = mean(right)
        unparsed = [not all(self._names(row.answer, noun) for noun in self.nouns) for row in rows]
        statistics["unparsed"] = total(unparsed)
        notes = unparsed_note(sum(unparsed), len(rows), f"do not name {' and '.join(self.nouns)} and are wrong")
        texts = [row.answer.strip() for row in rows]
        primary = f"f1/{self.nouns[0]}" if self.nouns else "f1"
        return Evaluation(texts, exact.astype(float).tolist(), statistics, primary, notes)

    def _is_listing(self, text: str) -> bool:
        """Whether a text consists of the things and cells alone."""
        names = [rf"\b{re.escape(noun)}\b" for noun in self.nouns]
        rest = re.sub("|".join([*names, _CELL.pattern]), "", text, flags=re.IGNORECASE)
        cells = bool(self.nouns) or _CELL.search(text) is not None
        return cells and all(self._names(text, noun) for noun in self.nouns) and not words(rest.replace("and", ""))

    def _names(self, text: str, noun: str) -> bool:
        return re.search(rf"\b{re.escape(noun)}\b", text, re.IGNORECASE) is not None if noun else True

    def _cells(self, text: str, noun: str) -> frozenset[str]:
        """The cells between a noun and the next one."""
        if noun:
            others = "|".join(re.escape(other) for other in self.nouns)
            match = re.search(rf"\b{re.escape(noun)}\b(.*?)(?=\b(?:{others})\b|\Z)", text, re.IGNORECASE | re.DOTALL)
            text = match[1] if match else ""
        found = (tuple(part.lower().replace("middle", "center") for part in cell) for cell in _CELL.findall(text))
        return frozenset(f"{row or alone}-{column or alone}" for row, column, alone in found)
