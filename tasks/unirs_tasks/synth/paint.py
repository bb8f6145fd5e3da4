"""Drawing of aerial images: land covers, and the objects that stand on them.

A canvas is float32 `[H, W, 3]` with colours in 0..1 and is drawn on in place. Textures lie plane by plane in memory
(arithmetic on whole rows is several times faster than on triples), so a texture is the best canvas to start from.
Points are `(x, y)` in pixels, x to the right and y down, pixel i covering i..i+1; angles are radians, clockwise from
the x axis as displayed. All randomness comes from the generator passed in. Objects touch only their bounding
box.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from unirs_tasks.synth.covers import Cover, Season, grain, mean_colour, noise, texture
from unirs_tasks.synth.objects import (
    Drawing,
    Sun,
    building,
    building_drawing,
    corners_of,
    darken,
    draw,
    tree,
    tree_drawing,
    vehicle,
    vehicle_drawing,
)
from unirs_tasks.synth.raster import (
    Array,
    Box,
    Colour,
    Points,
    Ring,
    band,
    blend,
    box_around,
    fill,
    fill_coloured,
    finish,
    mix,
    overlay,
    polygon_mask,
    ring,
    size,
    stroke_mask,
)

__all__ = [
    "Array",
    "Colour",
    "Cover",
    "Drawing",
    "Points",
    "Season",
    "Sun",
    "area",
    "area_of_colour",
    "blend",
    "building",
    "building_drawing",
    "darken_area",
    "draw",
    "finish",
    "mean_colour",
    "noise",
    "polygon_mask",
    "rectangle",
    "road",
    "roads",
    "shadow",
    "stroke_mask",
    "texture",
    "tree",
    "tree_drawing",
    "vehicle",
    "vehicle_drawing",
]


# Road markings, worn.
_PAINT = (180, 178, 166)


def shadow(canvas: Array, mask: Array, height_px: float, sun: Sun) -> None:
    """Darkens the ground in the shadow of an object.

    Args:
        canvas: `[H, W, 3]`, changed in place.
        mask: `[H, W]`, footprint of the object; draw the object after its shadow.
        height_px: height of the object in pixels.
        sun: where the light comes from.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    dx, dy = sun.offset(height_px)
    corners = (complex(columns[0], rows[0]), complex(columns[-1] + 1, rows[-1] + 1))
    box = box_around([*corners, *(corner + complex(dx, dy) for corner in corners)], 1, mask.shape)
    footprint = mask[box]
    shade = footprint.copy()
    steps = max(1, round(max(abs(dx), abs(dy))))
    for step in range(1, steps + 1):
        _max_shifted(shade, footprint, round(dx * step / steps), round(dy * step / steps))
    darken(canvas[box], shade)


def road(canvas: Array, rng: np.random.Generator, points: Points, width: float) -> None:
    """A road of `width` px through `points` `[n, 2]`; see `roads`."""
    roads(canvas, rng, [(points, width)])


def roads(canvas: Array, rng: np.random.Generator, paths: Sequence[tuple[Points, float]]) -> None:
    """Asphalt roads with kerbs and dashed middle lines, which meet in junctions.

    Args:
        canvas: `[H, W, 3]`, changed in place.
        rng: picks tone and wear.
        paths: the middle line `[n, 2]`, bent gently if at all, and the width in pixels of each.
    """
    lines = [(ring(points), width) for points, width in paths]
    if not lines:
        return
    widest = max(width for _, width in lines)
    box = box_around((point for path, _ in lines for point in path), widest / 2 + 2, canvas.shape)
    if 0 in size(box):
        return
    asphalt = 255 * mean_colour("asphalt") * rng.normal(1, 0.06)
    kerb, paved = (tuple((asphalt * light).astype(int).tolist()) for light in (1.3, 1.0))
    dashes = [dash for path, width in lines if width >= 8 for dash in _dashes(path, 7, 5) if _meets(dash, box)]
    layer = fill_coloured(
        [
            *((band(path, width + 2.4), kerb) for path, width in lines),
            *((band(path, width), paved) for path, width in lines),
            *((band(dash, 1.0), _PAINT) for dash in dashes),
        ],
        box,
    )
    # Sampled for the whole canvas, so that a road's appearance does not depend on the other roads.
    height, width = canvas.shape[:2]
    wear = noise(rng, height, width, 60)[box] * np.float32(0.26)
    wear += grain(rng, height, width, 0.09)[box]
    wear += np.float32(0.83)
    overlay(canvas[box], layer, wear)


def area(
    canvas: Array,
    rng: np.random.Generator,
    points: Points,
    cover: Cover,
    season: Season = "summer",
    tone: Colour = (1.0, 1.0, 1.0),
) -> None:
    """A polygon `[n, 2]` of one land cover, its colours multiplied by `tone`; draws only in its bounding box."""
    corners = ring(points)
    box = box_around(corners, 0, canvas.shape)
    if 0 in size(box):
        return
    mix(canvas[box], fill([corners], box), texture(rng, cover, *size(box), season, tone))


def area_of_colour(canvas: Array, points: Points, colour: Array) -> None:
    """A polygon `[n, 2]` of one colour `[3]`."""
    corners = ring(points)
    box = box_around(corners, 0, canvas.shape)
    mix(canvas[box], fill([corners], box), colour)


def darken_area(canvas: Array, points: Points) -> None:
    """A polygon `[n, 2]` in the shade."""
    corners = ring(points)
    box = box_around(corners, 0, canvas.shape)
    darken(canvas[box], fill([corners], box))


def rectangle(center: tuple[float, float], length: float, width: float, angle: float) -> npt.NDArray[np.float64]:
    """Corners `[4, 2]` of a turned rectangle; corner 0 to 1 runs along `angle`."""
    return np.array([(point.real, point.imag) for point in corners_of(complex(*center), length, width, angle)])


def _max_shifted(target: Array, mask: Array, dx: int, dy: int) -> None:
    """Raises `target` to `mask` moved by `(dx, dy)`."""
    height, width = mask.shape
    if abs(dx) >= width or abs(dy) >= height:
        return
    to = (slice(max(0, dy), height + min(0, dy)), slice(max(0, dx), width + min(0, dx)))
    source = (slice(max(0, -dy), height + min(0, -dy)), slice(max(0, -dx), width + min(0, -dx)))
    np.maximum(target[to], mask[source], out=target[to])


def _meets(points: Ring, box: Box) -> bool:
    """Whether any of the points lies in the box."""
    rows, columns = box
    return any(rows.start <= p.imag < rows.stop and columns.start <= p.real < columns.stop for p in points)


def _dashes(path: Ring, length: float, gap: float) -> list[Ring]:
    """Pieces of the path, `length` long and `gap` apart."""
    points = np.array(path)
    walked = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(points)))])
    starts = np.arange(gap, walked[-1] - length, length + gap)
    ends = np.interp(np.stack([starts, starts + length], axis=1), walked, points)
    dashes: list[Ring] = ends.tolist()
    return dashes
