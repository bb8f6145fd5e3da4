"""Overlap of boxes: upright ones with and without the pixel of their far edge, and rotated ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from unirs.metrics.box_text import Box

Point = tuple[float, float]


def upright_overlap(first: Box, second: Box, *, edge: float) -> tuple[float, float]:
    """Areas of the intersection and the union of two upright boxes.

    Args:
        first: A box; its angle is ignored.
        second: Another one.
        edge: Added to widths and heights: 1 if the corners are pixels that belong to the box, else 0.
    """
    width = min(first.x2, second.x2) - max(first.x1, second.x1) + edge
    height = min(first.y2, second.y2) - max(first.y1, second.y1) + edge
    common = max(0.0, width) * max(0.0, height)
    areas = [(box.x2 - box.x1 + edge) * (box.y2 - box.y1 + edge) for box in (first, second)]
    return common, sum(areas) - common


def rotated_iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes that are rotated about their centers; 0 if one has no area."""
    if math.dist(_center(first), _center(second)) > _radius(first) + _radius(second):
        return 0.0
    corners, others = box_corners(first), box_corners(second)
    areas = _area(corners) + _area(others)
    common = _area(_clip(corners, others)) if _area(corners) and _area(others) else 0.0
    return common / (areas - common) if common else 0.0


def _center(box: Box) -> Point:
    return (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2


def _radius(box: Box) -> float:
    return math.hypot(box.x2 - box.x1, box.y2 - box.y1) / 2


def box_corners(box: Box) -> list[Point]:
    """Corners, with positive orientation; a positive angle turns x towards -y, as in EarthDial's code."""
    (x, y), angle = _center(box), math.radians(box.angle)
    cosine, sine = math.cos(angle), math.sin(angle)
    half, tall = abs(box.x2 - box.x1) / 2, abs(box.y2 - box.y1) / 2
    offsets = ((-half, -tall), (half, -tall), (half, tall), (-half, tall))
    return [(x + across * cosine + down * sine, y - across * sine + down * cosine) for across, down in offsets]


def _area(points: Sequence[Point]) -> float:
    """Area of a polygon of positive orientation."""
    return sum(_cross(points[0], *edge) for edge in pairwise(points[1:])) / 2 if points else 0.0


def _cross(origin: Point, first: Point, second: Point) -> float:
    """Twice the signed area of a triangle."""
    return (first[0] - origin[0]) * (second[1] - origin[1]) - (first[1] - origin[1]) * (second[0] - origin[0])


def _clip(points: Sequence[Point], window: Sequence[Point]) -> Sequence[Point]:
    """What of a convex polygon lies in another one (Sutherland and Hodgman, 1974)."""
    for start, end in zip(window, [*window[1:], window[0]], strict=True):
        sides = [_cross(start, end, point) for point in points]
        kept: list[Point] = []
        for index, (point, side) in enumerate(zip(points, sides, strict=True)):
            former, former_side = points[index - 1], sides[index - 1]
            if side * former_side < 0:
                share = former_side / (former_side - side)
                kept.append((former[0] + share * (point[0] - former[0]), former[1] + share * (point[1] - former[1])))
            if side >= 0:
                kept.append(point)
        points = kept
    return points
