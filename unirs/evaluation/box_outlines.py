"""Boxes in texts as outlines over an image."""

from __future__ import annotations

from unirs.metrics.box_geometry import Point, box_corners
from unirs.metrics.box_text import BoxRule, first_box, rotated_boxes


def box_outlines(text: str, rule: BoxRule, size: tuple[int, int]) -> list[list[Point]]:
    """The four corners of each box in a text, in shares of the image's width and height.

    Args:
        text: An answer or a reference.
        rule: The rule by which it is read.
        size: Width and height in pixels of the image that the boxes refer to.

    Returns:
        Corners in -1..2, since drawing programs take minutes for edges of millions of pixels.
    """
    width, height = size if rule == "dior_rsvg" else (100, 100)
    boxes = rotated_boxes(text) if rule == "rotated" else [first_box(text, rule)]
    return [[(_clip(x / width), _clip(y / height)) for x, y in box_corners(box)] for box in boxes if box is not None]


def _clip(share: float) -> float:
    return min(max(share, -1.0), 2.0)
