"""Normalization of answers, which all scorers share."""

import re
import unicodedata
from collections.abc import Callable
from functools import cache

_THINK_TAG = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_DIGIT = re.compile(r"[0-9]")
_SPACED_SIGN = re.compile(r"([<>]=?|[≤≥±])\s+(?=\.?\d)")
_SIGNED_NUMBER = r"(?:(?<![^\W_])(?:(?:[<>]=?|[≤≥±])\s*|[-+\N{MINUS SIGN}]))?(?:(?<![\w.])\.)?(?=\d)"
"""What may precede the first digit of a number: a sign, and a decimal point. `2-3` and `<b>3` have no sign."""


def strip_thinking(text: str) -> str:
    """A model's output without its blocks of reasoning, `<think>…</think>`.

    A prompt may contain the opening tag: then all text up to the closing one is reasoning. A block that does not end
    extends to the end of the text.
    """
    answer: list[str] = []
    start, thinking = 0, False
    for tag in _THINK_TAG.finditer(text):
        if tag[1] and not thinking:
            answer.clear()
        elif not tag[1] and not thinking:
            answer.append(text[start : tag.start()])
        start, thinking = tag.end(), not tag[1]
    if not thinking:
        answer.append(text[start:])
    return "".join(answer).strip() if start else text


def fold(text: str, fold_case: Callable[[str], str] = str.casefold) -> str:
    """A text without case, in Unicode's normalization form C: canonically equivalent texts become equal."""
    return unicodedata.normalize("NFC", fold_case(unicodedata.normalize("NFC", text)))


def words(text: str, joints: str = "") -> list[str]:
    """The words of a text: letters, digits and their combining marks. A number contains its sign, as in `<10` and `-5`.

    Characters of `joints` between two letters or digits do not separate words.
    """
    # Most texts have neither combining marks nor numbers, and looking for these takes most of the time.
    plain = text.isascii() and _DIGIT.search(text) is None
    found = _pattern(joints, plain).findall(text)
    return found if plain else ["".join(word.split()) for word in found]


def strip_punctuation(text: str) -> str:
    """A text without surrounding punctuation and space; empty without a letter or digit. Signs of numbers remain."""
    found = _answer_pattern().search(text)
    return _SPACED_SIGN.sub(r"\1", found[0]) if found else ""


@cache
def _marks() -> str:
    """All combining marks, for a character class of a regular expression; `re` has no class of them."""
    return "".join(
        character for character in map(chr, range(0x300, 0x20000)) if unicodedata.category(character).startswith("M")
    )


@cache
def _pattern(joints: str, plain: bool) -> re.Pattern[str]:
    """Matches a word; of `plain` texts, which are ASCII without digits."""
    sign, letters = ("", "[A-Za-z]+") if plain else (f"(?:{_SIGNED_NUMBER})?", rf"(?:[^\W_][{_marks()}]*)+")
    more = rf"(?:[{re.escape(joints)}]{letters})*" if joints else ""
    return re.compile(sign + letters + more)


@cache
def _answer_pattern() -> re.Pattern[str]:
    return re.compile(rf"(?:{_SIGNED_NUMBER})?[^\W_](?:.*[^\W_])?[{_marks()}]*", re.DOTALL)
