"""Masks, and painting through them.

A canvas is float32 `[H, W, 3]` with colours in 0..1 and is drawn on in place. Points are `(x, y)` in pixels, x to the
right and y down, pixel i covering i..i+1. Within this package a ring is the corners of a polygon as complex numbers,
x + yj: turning and moving a handful of points is then plain arithmetic, and much faster than on small arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Points = npt.NDArray[np.floating] | Sequence[tuple[float, float]]
Colour = tuple[float, float, float]
Ring = Sequence[complex]
Box = tuple[slice, slice]

# Side of the square noise image that windows are cut from; a multiple of it for larger windows.
_FIELD = 512

# Masks are drawn this many times larger and averaged down; large ones coarser, because their cost grows with the area.
_FINE, _COARSE, _COARSE_FROM = 4, 2, 48 * 48


def polygon_mask(points: Points, height: int, width: int) -> Array:
    """Coverage of a polygon.

    Args:
        points: `[n, 2]`, `(x, y)` in pixels; may reach beyond the image.
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
    """Alpha-blends a colour or texture into a canvas.

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
        gain: exposure; 1 is neutral.
        gamma: tone curve; above 1 darkens the middle.
        tint: gains on red, green and blue.
        haze: share of bright sky in front of the ground, in 0..1.
        noise: its standard deviation, in 0..1.

    Returns:
        uint8 `[H, W, 3]`.
    """
    # Uniform noise is visually equivalent to Gaussian noise of the same standard deviation, and far cheaper.
    spread = noise * 255 / 73.9
    curve = (np.linspace(0, 1, 256) ** gamma) * gain
    planes: list[Image.Image] = []
    table: list[int] = []
    for channel, sky in enumerate((0.70, 0.74, 0.79)):
        level = np.multiply(white_noise(rng, *canvas.shape[:2]), np.float32(spread), dtype=np.float32)
        level += canvas[..., channel] * np.float32(255)
        level += np.float32(0.5 - 127.5 * spread)
        planes.append(Image.fromarray(np.clip(level, 0, 255, out=level).astype(np.uint8)))
        tones = 255 * ((1 - haze) * curve * tint[channel] + haze * sky) + 0.5
        table += np.clip(tones, 0, 255).astype(int).tolist()
    return np.asarray(Image.merge("RGB", planes).point(table))


def random_window(
    rng: np.random.Generator, field: Callable[[int, int], Bytes], height: int, width: int, variant: int = 0
) -> Bytes:
    """Cuts a random window, possibly flipped, out of a large noise image.

    Noise is expensive to make and statistically the same everywhere, so it is made once and reused in windows.

    Args:
        rng: picks the window.
        field: makes and caches the large image `[side, side]` for `side` and `variant`.
        height: rows of the window.
        width: columns of the window.
        variant: passed to `field`.
    """
    side = _FIELD * math.ceil(max(height, width) / (0.6 * _FIELD))
    top, left, turn = rng.integers((side - height + 1, side - width + 1, 4)).tolist()
    part = field(side, variant)[top : top + height, left : left + width]
    return part[:: 1 - turn // 2 * 2, :: 1 - turn % 2 * 2]


def white_noise(rng: np.random.Generator, height: int, width: int) -> Bytes:
    """White noise, uint8 `[height, width]`."""
    return random_window(rng, _white, height, width)


@cache
def _white(side: int, variant: int) -> Bytes:
    return np.random.default_rng(variant).integers(256, size=(side, side), dtype=np.uint8)


def ring(points: Points) -> list[complex]:
    """Points `[n, 2]` as a ring."""
    return [complex(x, y) for x, y in np.asarray(points, np.float64).tolist()]


def box_around(points: Iterable[complex], pad: float, canvas_shape: tuple[int, ...]) -> Box:
    """Bounding box of the points, padded by `pad` px and clipped to the image; may be empty."""
    listed = list(points)
    xs, ys = [point.real for point in listed], [point.imag for point in listed]
    top, bottom = max(0, math.floor(min(ys) - pad)), min(canvas_shape[0], math.ceil(max(ys) + pad))
    left, right = max(0, math.floor(min(xs) - pad)), min(canvas_shape[1], math.ceil(max(xs) + pad))
    return slice(top, max(top, bottom)), slice(left, max(left, right))


def size(box: Box) -> tuple[int, int]:
    """Rows and columns of a box."""
    return box[0].stop - box[0].start, box[1].stop - box[1].start


def mix(patch: Array, mask: Array, paint: Array) -> None:
    """Alpha-blends `paint` into a patch of a canvas; `mask` has the patch's size."""
    # Plane by plane, which keeps temporary arrays small.
    for channel in range(3):
        plane = patch[..., channel]
        change = paint[..., channel] - plane
        change *= mask
        plane += change


def fill(rings: Sequence[Ring], box: Box) -> Array:
    """Coverage of polygons within a box."""
    if 0 in size(box):
        return np.zeros(size(box), np.float32)
    sheet, draw, zoom = _sheet("L", box)
    for corners in rings:
        draw.polygon(_flat(corners, box, zoom), fill=255)
    return _reduced(sheet, zoom)


def fill_coloured(rings: Sequence[tuple[Ring, tuple[int, int, int]]], box: Box) -> list[Bytes]:
    """Polygons in colours within a box that is not empty: red, green and blue times coverage, and coverage.

    Returns:
        Four planes `[h, w]` in 0..255.
    """
    # Not RGBA, whose averaging would undo the weighting that black around the polygons gives the colours.
    sheet, draw, zoom = _sheet("RGBX", box)
    for corners, colour in rings:
        draw.polygon(_flat(corners, box, zoom), fill=(*colour, 255))
    small = sheet.reduce(zoom)
    return [np.frombuffer(small.tobytes("raw", band), np.uint8).reshape(size(box)) for band in "RGBX"]


def overlay(patch: Array, layer: Sequence[Bytes], light: Array) -> None:
    """Paints polygons of `fill_coloured` on a part of a canvas; `light` `[h, w]` is their brightness."""
    bare = 1 - layer[3] * np.float32(1 / 255)
    light = light * np.float32(1 / 255)
    for channel in range(3):
        plane = patch[..., channel]
        plane *= bare
        plane += layer[channel] * light


def band(path: Ring, width: float) -> list[complex]:
    """The polygon of a gently bent line of some width."""
    ahead = [*path[1:], 2 * path[-1] - path[-2]]
    behind = [2 * path[0] - path[1], *path[:-1]]
    sides = [1j * width / 2 * (b - a) / abs(b - a) for a, b in zip(behind, ahead, strict=True)]
    left = [point + side for point, side in zip(path, sides, strict=True)]
    return left + [point - side for point, side in zip(path, sides, strict=True)][::-1]


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
    corner = complex(box[1].start + 0.5 / zoom, box[0].start + 0.5 / zoom)
    flat: list[float] = []
    for point in points:
        moved = (point - corner) * zoom
        flat += (moved.real, moved.imag)
    return flat


def _reduced(sheet: Image.Image, zoom: int) -> Array:
    small = sheet.reduce(zoom)
    levels = np.frombuffer(small.tobytes(), np.uint8).reshape(small.height, small.width)
    return np.multiply(levels, np.float32(1 / 255), dtype=np.float32)


def _full(part: Array, box: Box, height: int, width: int) -> Array:
    mask = np.zeros((height, width), np.float32)
    mask[box] = part
    return mask
