"""Letters of options in answers to multiple-choice questions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from unirs.metrics.answer_rules import AnswerRule
from unirs.metrics.base import Prediction

_PREFIX = re.compile(
    r"\b(?:the )?(?:(?:best|correct|right|final) )?(?:answers?|options?|choices?)\b(?: (?:is|are)\b)?\s*:?",
    re.IGNORECASE,
)
_IN_BRACKETS = re.compile(r"[(\[]\s*([A-Ja-j])\s*[)\]]")
_ALONE = re.compile(r"(?<![^\W_])([A-J])(?![^\W_]|'[a-z])")
_SEPARATOR = r"(?:\s*(?:[,;/&]|\band\b)\s*|\s+)"
_LETTERS = re.compile(rf"[A-J]+|[A-Ja-j](?:{_SEPARATOR}[A-Ja-j])*")


def choice_letters(text: str) -> frozenset[str]:
    """The letters, A to J, of the options that an answer names, as capitals.

    Prefixes such as `The best answer is` are removed. A text of letters alone names them all (`b`, `AC`, `A, C and D`).
    Otherwise the letters in brackets count (`(B) a bridge`), or else the capitals that stand alone (`B. a bridge`); the
    capital of a sentence's `A` or `I` before a word in small letters is no option, unless nothing else is.
    """
    text = _PREFIX.sub(" ", text).strip()
    if _is_letters(text):
        return frozenset(re.sub(r"and|[^A-Ja-j]", "", text).upper())
    letters = (
        _IN_BRACKETS.findall(text) or _ALONE.findall(re.sub(r"\b[AI](?= [a-z])", "", text)) or _ALONE.findall(text)
    )
    return frozenset(letter.upper() for letter in letters)


def _is_letters(text: str) -> bool:
    return _LETTERS.fullmatch(text.strip().rstrip(".")) is not None


@dataclass(frozen=True)
class ChoiceAccuracy(AnswerRule):
    """Multiple choice: the set of letters in the answer must equal that of the reference.

    `accuracy` is over all questions (micro), `accuracy_macro` the mean over categories. An answer without letters is
    wrong.

    Source: the evaluation of XLRS-Bench (Wang et al., 2025), MME-RealWorld (Zhang et al., 2025) and GEOBench-VLM
    (Danish et al., 2025).
    """

    name = "choice"

    def match(self, answer: str, reference: str) -> float:
        """1 if both name the same letters, else 0."""
        wanted = choice_letters(reference)
        return float(bool(wanted) and choice_letters(answer) == wanted)

    def mismatch(self, rows: Sequence[Prediction]) -> str:
        """All references must be letters."""
        others = [row for row in rows if len(row.references) != 1 or not _is_letters(row.references[0])]
        return f"{len(others)} of {len(rows)} references are no letters of options" if others else ""
