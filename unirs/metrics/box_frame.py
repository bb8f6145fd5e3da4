"""Boxes in texts, converted between an image and the frame of it that an encoder gets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from unirs.metrics.box_text import BoxScale, box_numbers


class Window(NamedTuple):
    """The part of an image that a frame shows, in pixels of the image; padding extends beyond the image."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class BoxFrame:
    """An image and the window of it that the encoder's frame shows.

    References and results have boxes of the image; the model reads and writes boxes of the frame. In percent they refer
    to the window's width and height. In pixels they are those of the image, counted from the window's corner.

    Attributes:
        scale: Of the boxes in texts.
        image: The whole image.
        window: What the frame shows.
    """

    scale: BoxScale
    image: Window
    window: Window

    def to_frame(self, text: str) -> str:
        """Converts the first box of a text about the image, clipped to the frame; other texts are unchanged."""
        return self._convert(text, self.image, self.window)

    def to_image(self, text: str) -> str:
        """Converts the first box of a text about the frame, clipped to the image; other texts are unchanged."""
        return self._convert(text, self.window, self.image)

    def _convert(self, text: str, source: Window, target: Window) -> str:
        numbers = box_numbers(text, self.scale)
        if len(numbers) < 4:
            return text
        parts, end = [], 0
        for index, number in enumerate(numbers):
            axis = index % 2
            parts += [text[end : number.start()], self._number(number, source, target, axis)]
            end = number.end()
        return "".join([*parts, text[end:]])

    def _number(self, number: re.Match[str], source: Window, target: Window, axis: int) -> str:
        # The rule for percent reads integers. Pixels keep a fraction, since crops may start between two of them.
        size, digits = (100.0, 0) if self.scale == "percent" else (target[axis + 2], 2)
        unit = source[axis + 2] / 100 if self.scale == "percent" else 1.0
        pixels = source[axis] + float(number[0][:400]) * unit
        value = (pixels - target[axis]) * (100 / target[axis + 2] if self.scale == "percent" else 1.0)
        return f"{round(min(max(value, 0.0), size), digits) + 0.0:.15g}"
