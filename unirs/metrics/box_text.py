"""Boxes in texts: the three ways in which benchmarks write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Literal, NamedTuple

BoxRule = Literal["vrsbench", "dior_rsvg", "rotated"]

BoxScale = Literal["percent", "pixels"]
"""What coordinates are: percent of the image's width and height, or pixels; from the upper left corner."""

BOX_FORMATS: Mapping[BoxScale, str] = {
    "percent": "{{<x1><y1><x2><y2>}} in percent of the image's width and height",
    "pixels": "[x1, y1, x2, y2] in pixels of the image, which has {width}x{height}",
}
"""How a prompt describes boxes: a `str.format` template, for pixels over the image's width and height."""

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_ANGLED = r"\{<\d+><\d+><\d+><\d+>\|<\d+>\}"
_SYNTAX: dict[BoxRule, re.Pattern[str]] = {
    "vrsbench": re.compile(r"\{<\d+><\d+><\d+><\d+>\}"),
    "dior_rsvg": re.compile(rf"\[\s*{_NUMBER}(?:\s*,\s*{_NUMBER}){{3}}\s*\]"),
    "rotated": re.compile(rf"(?:[\[,\s]*\[\s*\d+(?:\s*,\s*\d+){{4}}\s*\]\]?|\s*{_ANGLED})+\]?"),
}
_GROUP = re.compile(r"\[\s*(\d+(?:\s*,\s*\d+)*)\s*\]|\{((?:<\d+>)+\|?(?:<\d+>)?)\}")

_LARGEST = 10.0**9
"""Greatest coordinate; a text with a larger one holds no box."""


class Box(NamedTuple):
    """Two corners of a box, and the angle in degrees by which it is rotated about its center."""

    x1: float
    y1: float
    x2: float
    y2: float
    angle: float = 0.0


def box_syntax(texts: Sequence[str]) -> BoxRule | None:
    """The rule whose syntax all texts have; None if there is none. No text has the syntax of two.

    `vrsbench`: `{<x1><y1><x2><y2>}`; `dior_rsvg`: `[x1, y1, x2, y2]`; `rotated`: `[[x1, y1, x2, y2, angle]]`, several
    one after the other, or GeoChat's `{<x1><y1><x2><y2>|<angle>}`.
    """
    return next((rule for rule, syntax in _SYNTAX.items() if texts and all(map(syntax.fullmatch, _strip(texts)))), None)


def first_box(text: str, rule: BoxRule) -> Box | None:
    """The box of the first four numbers in a text: integers for `vrsbench`, also decimals for `dior_rsvg`."""
    return _box([number[0] for number in box_numbers(text, "percent" if rule == "vrsbench" else "pixels")])


def box_numbers(text: str, scale: BoxScale) -> list[re.Match[str]]:
    """The first four numbers of a text: integers for percent, also decimals for pixels."""
    return list(islice(re.finditer(r"\d+" if scale == "percent" else _NUMBER, text), 4))


def rotated_boxes(text: str) -> list[Box | None]:
    """Every group of numbers in brackets or braces; None for a group that does not have five numbers."""
    groups = (re.findall(r"\d+", square or curly) for square, curly in _GROUP.findall(text))
    return [_box(numbers) if len(numbers) == 5 else None for numbers in groups]


def _strip(texts: Sequence[str]) -> list[str]:
    return [text.strip() for text in texts]


def _box(numbers: Sequence[str]) -> Box | None:
    values = [float(number[:400]) for number in numbers]
    return Box(*values) if len(values) >= 4 and max(map(abs, values)) <= _LARGEST else None
