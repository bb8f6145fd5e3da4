"""Tokens of the Penn Treebank: punctuation and English contractions are tokens of their own."""

import re
from functools import lru_cache

# Applied in this order. NLTK's `word_tokenize` gives the same tokens for a text of one sentence; a test compares them.
_RULES = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"[«\u201c\u2018„]|`+", r" \g<0> "),
        (r'^"', "``"),
        (r"``", r" \g<0> "),
        (r"(?<=[ (\[{<])(?:\"|'')", " `` "),
        (r"(?<!\w)'(?!(?:re|ve|ll|[mtsdn])\b)(?=\w)", "' "),
        # The last full stop, which brackets and quotes may follow.
        (r"(?<=[^.])\.([])}>\"'»\u201d\u2019 ]*+)\s*$", r" . \1 "),
        (r"([:,])(\D)", r" \1 \2"),
        (r"[:,]$", r" \g<0> "),
        (r"\.{2,}|[;@#$%&\u2012-\u2015]", r" \g<0> "),
        (r"[?!]", r" \g<0> "),
        (r"(?<=[^'])' ", " ' "),
        (r"\*|[][(){}<>]|--", r" \g<0> "),
        (r"^|$", " "),
        (r"[»\u201d\u2019]", r" \g<0> "),
        (r"''|\"", " '' "),
        (r"\s+", " "),
        (r"(?<=[^' ])('[smd]|') ", r" \1 "),
        (r"(?<=[^' ])('ll|'re|'ve|n't) ", r" \1 "),
        (r"\b(can)(not)\b", r" \1 \2 "),
        (r"\b(d)('ye)\b", r" \1 \2 "),
        (r"\b(gim|lem)(me)\b", r" \1 \2 "),
        (r"\b(gon)(na)\b", r" \1 \2 "),
        (r"\b(got)(ta)\b", r" \1 \2 "),
        (r"\b(more)('n)\b", r" \1 \2 "),
        (r"\b(wan)(na)(?=\s)", r" \1 \2 "),
        (r" ('t)(is)\b", r" \1 \2 "),
        (r" ('t)(was)\b", r" \1 \2 "),
    )
)


@lru_cache(maxsize=1 << 16)
def treebank_tokens(text: str) -> tuple[str, ...]:
    """The tokens of one sentence: `it's 5.` becomes `it`, `'s`, `5`, `.`."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return tuple(text.split())
