"""Masks, and painting through them.

A canvas is float32 `[H, W, 3]` with colours in 0..1 and is drawn on in place. Points are `(x, y)` in pixels, x to the
right and y down, pixel i covering i..i+1. Within this package a ring is the corners of a polygon as complex numbers,
x + yj: turning and moving a handful of points is then plain arithmetic, and much faster than on small arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Array = npt.NDArray[np.float32]
Points = npt.NDArray[np.floating] | Sequence[tuple[float, float]]
Colour = tuple[float, float, float]
Ring = Sequence[complex]
Box = tuple[slice, slice]

# Masks are drawn this many times larger and averaged down; large ones coarser, because their cost grows with the area.
_FINE, _COARSE, _COARSE_FROM = 4, 2, 48 * 48


def polygon_mask(points: Points, height: int, width: int) -> Array:
    """Coverage of a polygon.

    Args:
        points: `[n, 2]`, `(x, y)` in pixels; may reach beyond the picture.
        height: rows.
        width: columns.

    Returns:
        float32 `[height, width]` in 0..1, antialiased.
    """
    corners = ring(points)
    box = box_around(corners, 0, (height, width))
    return _full(fill([corners], box), box, height, width)


def stroke_mask(points: Points, width_px: float, height: int, width: int) -> Array:
    """Coverage of a line of `width_px` through `points` `[n, 2]`; float32 `[height, width]` in 0..1, antialiased."""
    path = ring(points)
    box = box_around(path, width_px / 2 + 1, (height, width))
    return _full(strokes([(path, width_px)], box), box, height, width)


def blend(canvas: Array, mask: Array, colour: Array | Colour) -> None:
    """Paints where the mask is set.

    Args:
        canvas: `[H, W, 3]`, changed in place.
        mask: `[H, W]` in 0..1.
        colour: one colour, or a texture `[H, W, 3]`.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    paint = np.asarray(colour, np.float32)
    mix(canvas[box], mask[box], paint[box] if paint.ndim == 3 else paint)


def finish(
    canvas: Array,
    rng: np.random.Generator,
    gain: float = 1.0,
    gamma: float = 1.0,
    tint: Colour = (1.0, 1.0, 1.0),
    haze: float = 0.0,
    noise: float = 0.01,
) -> npt.NDArray[np.uint8]:
    """Light, haze and sensor noise of one acquisition.

    Args:
        canvas: `[H, W, 3]` in 0..1.
        rng: source of the noise.
        gain: exposure; 1 leaves it.
        gamma: tone curve; above 1 darkens the middle.
        tint: gains on red, green and blue.
        haze: share of bright sky in front of the ground, in 0..1.
        noise: its standard deviation, in 0..1.

    Returns:
        uint8 `[H, W, 3]`.
    """
    steps = 1023
    # Uniform noise of the same standard deviation as a Gaussian looks alike and is far cheaper.
    spread = noise * steps / 73.9
    specks = np.frombuffer(rng.bytes(canvas.size), np.uint8).reshape(3, *canvas.shape[:2])
    curve = (np.linspace(0, 1, steps + 1) ** gamma) * gain
    picture = np.empty(canvas.shape, np.uint8)
    for channel, sky in enumerate((0.70, 0.74, 0.79)):
        level = specks[channel] * np.float32(spread)
        level += canvas[..., channel] * np.float32(steps) + np.float32(0.5 - 127.5 * spread)
        table = 255 * ((1 - haze) * curve * tint[channel] + haze * sky) + 0.5
        index = np.clip(level, 0, steps, out=level).astype(np.int16)
        picture[..., channel] = np.clip(table, 0, 255).astype(np.uint8).take(index, mode="clip")
    return picture


def ring(points: Points) -> list[complex]:
    """Points `[n, 2]` as a ring."""
    return [complex(x, y) for x, y in np.asarray(points, np.float64).tolist()]


def box_around(points: Iterable[complex], pad: float, canvas_shape: tuple[int, ...]) -> Box:
    """Rows and columns that the points and `pad` px around them reach, within the picture; may be empty."""
    listed = list(points)
    xs, ys = [point.real for point in listed], [point.imag for point in listed]
    top, bottom = max(0, math.floor(min(ys) - pad)), min(canvas_shape[0], math.ceil(max(ys) + pad))
    left, right = max(0, math.floor(min(xs) - pad)), min(canvas_shape[1], math.ceil(max(xs) + pad))
    return slice(top, max(top, bottom)), slice(left, max(left, right))


def size(box: Box) -> tuple[int, int]:
    """Rows and columns of a box."""
    return box[0].stop - box[0].start, box[1].stop - box[1].start


def mix(patch: Array, mask: Array, paint: Array) -> None:
    """Paints a part of a canvas where the mask, of the same size, is set."""
    # Plane by plane, because temporary arrays are then small enough to be cheap.
    for channel in range(3):
        plane = patch[..., channel]
        plane += mask * (paint[..., channel] - plane)


def fill(rings: Sequence[Ring], box: Box) -> Array:
    """Coverage of polygons within a box."""
    if 0 in size(box):
        return np.zeros(size(box), np.float32)
    sheet, draw, zoom = _sheet("L", box)
    for corners in rings:
        draw.polygon(_flat(corners, box, zoom), fill=255)
    return _reduced(sheet, zoom)


def fill_coloured(rings: Sequence[tuple[Ring, tuple[int, int, int]]], box: Box) -> Array:
    """Polygons in colours within a box that is not empty: `[h, w, 4]`, red, green and blue times coverage; coverage."""
    # Not RGBA, whose averaging would undo the weighting that black around the polygons gives the colours.
    sheet, draw, zoom = _sheet("RGBX", box)
    for corners, colour in rings:
        draw.polygon(_flat(corners, box, zoom), fill=(*colour, 255))
    return _reduced(sheet, zoom)


def strokes(lines: Sequence[tuple[Ring, float]], box: Box) -> Array:
    """Coverage within a box of lines, each a path and its width in pixels."""
    if 0 in size(box):
        return np.zeros(size(box), np.float32)
    sheet, draw, zoom = _sheet("L", box)
    for path, breadth in lines:
        joint: Literal["curve"] | None = "curve" if len(path) > 2 else None
        draw.line(_flat(path, box, zoom), fill=255, width=max(1, round(breadth * zoom)), joint=joint)
    return _reduced(sheet, zoom)


def _sheet(mode: Literal["L", "RGBX"], box: Box) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    height, width = size(box)
    zoom = _FINE if height * width < _COARSE_FROM else _COARSE
    sheet = Image.new(mode, (width * zoom, height * zoom))
    return sheet, ImageDraw.Draw(sheet), zoom


def _flat(points: Ring, box: Box, zoom: int) -> list[float]:
    # Half a pixel less, because Pillow's polygons include the pixels on their outline.
    left, top = box[1].start + 0.5 / zoom, box[0].start + 0.5 / zoom
    return [value for point in points for value in ((point.real - left) * zoom, (point.imag - top) * zoom)]


def _reduced(sheet: Image.Image, zoom: int) -> Array:
    small = sheet.reduce(zoom)
    bands = len(small.getbands())
    shape = (small.height, small.width) if bands == 1 else (small.height, small.width, bands)
    return np.frombuffer(small.tobytes(), np.uint8).reshape(shape) * np.float32(1 / 255)


def _full(part: Array, box: Box, height: int, width: int) -> Array:
    mask = np.zeros((height, width), np.float32)
    mask[box] = part
    return mask
