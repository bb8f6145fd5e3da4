"""Drawing of aerial pictures: land covers, and the objects that stand on them.

A canvas is float32 `[H, W, 3]` with colours in 0..1 and is drawn on in place. Textures lie plane by plane in memory
(arithmetic on whole rows is several times faster than on triples), so a texture is the best canvas to start from.
Points are `(x, y)` in pixels, x to the right and y down, pixel i covering i..i+1; angles are radians, clockwise from
the x axis as the picture shows it. All randomness comes from the generator passed in. Objects touch only their bounding
box.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unirs_tasks.synth.covers import SEASONS, Cover, Season, grain, noise, texture
from unirs_tasks.synth.raster import (
    Array,
    Colour,
    Points,
    Ring,
    blend,
    box_around,
    fill,
    fill_coloured,
    finish,
    mix,
    polygon_mask,
    ring,
    size,
    stroke_mask,
    strokes,
)

__all__ = [
    "Array",
    "Colour",
    "Cover",
    "Points",
    "Season",
    "Sun",
    "area",
    "blend",
    "building",
    "finish",
    "noise",
    "polygon_mask",
    "rectangle",
    "road",
    "roads",
    "shadow",
    "stroke_mask",
    "texture",
    "tree",
    "vehicle",
]

_ROOFS: tuple[Colour, ...] = (
    (0.45, 0.44, 0.43),
    (0.33, 0.32, 0.33),
    (0.60, 0.58, 0.55),
    (0.86, 0.86, 0.84),
    (0.50, 0.38, 0.31),
    (0.55, 0.35, 0.28),
    (0.63, 0.47, 0.38),
    (0.38, 0.37, 0.36),
    (0.56, 0.50, 0.41),
    (0.42, 0.30, 0.26),
    (0.42, 0.47, 0.52),
    (0.45, 0.48, 0.43),
)
_CROWNS: tuple[Colour, ...] = ((0.20, 0.29, 0.15), (0.25, 0.33, 0.18), (0.15, 0.23, 0.14), (0.29, 0.35, 0.19))
_CARS: tuple[Colour, ...] = (
    (0.93, 0.93, 0.92),
    (0.75, 0.76, 0.78),
    (0.12, 0.12, 0.13),
    (0.42, 0.43, 0.45),
    (0.66, 0.13, 0.12),
    (0.15, 0.25, 0.50),
    (0.85, 0.80, 0.70),
)
# Sky light still reaches the shade, and it is bluer than sunlight.
_SHADE = np.array((0.40, 0.43, 0.50), np.float32)


@dataclass(frozen=True, slots=True)
class Sun:
    """Where the light comes from.

    Attributes:
        azimuth_rad: direction towards the sun, clockwise from the top of the picture.
        elevation_rad: height over the horizon, in (0, pi/2].
    """

    azimuth_rad: float
    elevation_rad: float

    def offset(self, height_px: float) -> tuple[float, float]:
        """Where the tip of something `height_px` tall casts its shadow, as `(dx, dy)` in pixels."""
        length = height_px / math.tan(self.elevation_rad)
        return -length * math.sin(self.azimuth_rad), length * math.cos(self.azimuth_rad)


def shadow(canvas: Array, mask: Array, height_px: float, sun: Sun) -> None:
    """Darkens the ground in the shade of something.

    Args:
        canvas: `[H, W, 3]`, changed in place.
        mask: `[H, W]`, where the thing stands; draw it after its shadow.
        height_px: how tall it is.
        sun: where the light comes from.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    dx, dy = sun.offset(height_px)
    corners = (complex(columns[0], rows[0]), complex(columns[-1] + 1, rows[-1] + 1))
    box = box_around([*corners, *(corner + complex(dx, dy) for corner in corners)], 1, mask.shape)
    part = mask[box]
    shade = part.copy()
    steps = max(1, round(max(abs(dx), abs(dy))))
    for step in range(1, steps + 1):
        _max_shifted(shade, part, round(dx * step / steps), round(dy * step / steps))
    _darken(canvas[box], shade)


def building(
    canvas: Array,
    rng: np.random.Generator,
    center: tuple[float, float],
    length: float,
    width: float,
    angle: float,
    sun: Sun,
) -> None:
    """A building with its shadow: a gable, hip or flat roof in one of many colours; flat where it is large.

    Args:
        canvas: `[H, W, 3]`, changed in place.
        rng: picks roof and colour.
        center: middle of the footprint.
        length: size along `angle`, in pixels.
        width: size across.
        angle: direction of the length.
        sun: lights the roof faces and casts the shadow.
    """
    colour = _ROOFS[rng.integers(len(_ROOFS))]
    brightness = rng.normal(1, 0.07)
    flat = min(length, width) > 30 or rng.random() < 0.1
    height = rng.uniform(0.22, 0.34) * min(length, width, 34)
    corners = _rectangle(complex(*center), length, width, angle)
    tip = complex(*sun.offset(height))
    box = box_around([*corners, *(corner + tip for corner in corners)], 1, canvas.shape)
    if 0 in size(box):
        return
    _darken(canvas[box], fill(_swept(corners, tip), box))
    faces = _flat_roof(rng, corners) if flat else _pitched_roof(rng, corners, sun)
    _paint_faces(canvas, rng, corners, faces, colour, brightness)


def tree(
    canvas: Array,
    rng: np.random.Generator,
    center: tuple[float, float],
    radius: float,
    sun: Sun,
    season: Season = "summer",
) -> None:
    """A tree's crown with its shadow.

    Args:
        canvas: `[H, W, 3]`, changed in place.
        rng: picks shape and colour.
        center: middle of the crown.
        radius: of the crown, in pixels.
        sun: lights the crown and casts the shadow.
        season: leaves turn in autumn and fall in winter, unless the tree is an evergreen.
    """
    evergreen = rng.random() < 0.35
    colour = np.array(_CROWNS[rng.integers(len(_CROWNS))]) * rng.normal(1, 0.1)
    phases, lobes = rng.uniform(0, 2 * math.pi, 2), rng.integers(3, 6)
    if not evergreen:
        colour = colour * SEASONS[season]
    dx, dy = sun.offset(radius * 0.9)
    middle = complex(*center)
    box = box_around((middle, middle + complex(dx, dy)), radius * 1.25 + 1, canvas.shape)
    if 0 in size(box):
        return
    patch = canvas[box]
    down = np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None] + np.float32(0.5 - center[1])
    across = np.arange(box[1].start, box[1].stop, dtype=np.float32)[None] + np.float32(0.5 - center[0])
    _darken(patch, _disc(across - np.float32(dx), down - np.float32(dy), radius))
    bearing = np.arctan2(down, across)
    outline = 1 + 0.12 * np.sin(lobes * bearing + phases[0]) + 0.08 * np.sin((lobes + 3) * bearing + phases[1])
    mask = _disc(across, down, radius * outline)
    lit = (across * math.sin(sun.azimuth_rad) - down * math.cos(sun.azimuth_rad)) / radius
    shade = 1 + 0.28 * np.clip(lit, -1, 1) + 0.7 * (grain(rng, *mask.shape) - 0.5)
    mix(patch, mask, (shade[..., None] * colour).astype(np.float32))


def vehicle(
    canvas: Array,
    rng: np.random.Generator,
    center: tuple[float, float],
    angle: float,
    length: float,
    sun: Sun,
) -> None:
    """A car of `length` px heading along `angle`, with its shadow; about half as wide as long."""
    colour = _CARS[rng.integers(len(_CARS))]
    middle, ahead = complex(*center), cmath.rect(length, angle)
    width = length * 0.46
    body = _rectangle(middle, length, width, angle)
    tip = complex(*sun.offset(width * 0.35))
    box = box_around([*body, *(corner + tip for corner in body)], 1, canvas.shape)
    if 0 in size(box):
        return
    _darken(canvas[box], fill(_swept(body, tip), box))
    glass = _rectangle(middle + 0.17 * ahead, length * 0.16, width * 0.8, angle)
    rear = _rectangle(middle - 0.3 * ahead, length * 0.1, width * 0.8, angle)
    _paint_faces(canvas, rng, body, [(body, 1.0), (glass, 0.35), (rear, 0.4)], colour)


def road(
    canvas: Array,
    rng: np.random.Generator,
    points: Points,
    width: float,
    cover: Cover = "asphalt",
    markings: bool = True,
) -> None:
    """A road of `width` px through `points` `[n, 2]`; see `roads`."""
    roads(canvas, rng, [(points, width)], cover, markings)


def roads(
    canvas: Array,
    rng: np.random.Generator,
    paths: Sequence[tuple[Points, float]],
    cover: Cover = "asphalt",
    markings: bool = True,
) -> None:
    """Roads that meet in junctions.

    Args:
        canvas: `[H, W, 3]`, changed in place.
        rng: picks tone and wear.
        paths: the middle line `[n, 2]` and the width in pixels of each.
        cover: what they are paved with.
        markings: whether kerbs and dashed middle lines show.
    """
    lines = [(ring(points), width) for points, width in paths]
    if not lines:
        return
    widest = max(width for _, width in lines)
    box = box_around((point for path, _ in lines for point in path), widest / 2 + 2, canvas.shape)
    if 0 in size(box):
        return
    patch = canvas[box]
    surface = texture(rng, cover, *size(box))
    if markings:
        mix(patch, strokes([(path, width + 2.4) for path, width in lines], box), surface * np.float32(1.3))
    mix(patch, strokes(lines, box), surface)
    if markings:
        dashes = [(dash, 1.0) for path, width in lines if width >= 8 for dash in _dashes(path, 7, 5)]
        mix(patch, strokes(dashes, box) * np.float32(0.7), np.array((0.86, 0.85, 0.78), np.float32))


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
    paint = texture(rng, cover, *size(box), season) * np.array(tone, np.float32)
    mix(canvas[box], fill([corners], box), paint)


def rectangle(center: tuple[float, float], length: float, width: float, angle: float) -> npt.NDArray[np.float64]:
    """Corners `[4, 2]` of a turned rectangle; corner 0 to 1 runs along `angle`."""
    return np.array([(point.real, point.imag) for point in _rectangle(complex(*center), length, width, angle)])


# A flat part of a surface and its brightness.
_Face = tuple[Ring, float]


def _rectangle(center: complex, length: float, width: float, angle: float) -> list[complex]:
    along, across = cmath.rect(length / 2, angle), cmath.rect(width / 2, angle + math.pi / 2)
    return [center - along - across, center + along - across, center + along + across, center - along + across]


def _darken(patch: Array, shade: Array) -> None:
    patch *= 1 - shade[..., None] * (1 - _SHADE)


def _disc(across: Array, down: Array, radius: float | Array) -> Array:
    return np.clip(radius - np.hypot(across, down) + 0.5, 0, 1).astype(np.float32)


def _max_shifted(target: Array, mask: Array, dx: int, dy: int) -> None:
    """Raises `target` to `mask` moved by `(dx, dy)`."""
    height, width = mask.shape
    if abs(dx) >= width or abs(dy) >= height:
        return
    to = (slice(max(0, dy), height + min(0, dy)), slice(max(0, dx), width + min(0, dx)))
    source = (slice(max(0, -dy), height + min(0, -dy)), slice(max(0, -dx), width + min(0, -dx)))
    np.maximum(target[to], mask[source], out=target[to])


def _swept(corners: Ring, tip: complex) -> list[Ring]:
    """The polygons that a footprint covers on its way to `corners + tip`."""
    following = [*corners[1:], corners[0]]
    sides = [(a, b, b + tip, a + tip) for a, b in zip(corners, following, strict=True)]
    return [[corner + tip for corner in corners], *sides]


def _dashes(path: Ring, length: float, gap: float) -> list[Ring]:
    """Pieces of the path, `length` long and `gap` apart."""
    points = np.array(path)
    walked = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(points)))])
    starts = np.arange(gap, walked[-1] - length, length + gap)
    ends = np.interp(np.stack([starts, starts + length], axis=1), walked, points)
    dashes: list[Ring] = ends.tolist()
    return dashes


def _pitched_roof(rng: np.random.Generator, corners: Ring, sun: Sun) -> list[_Face]:
    """Faces of a gable or hip roof with the ridge along the longer side, each with its brightness."""
    a, b, c, d = corners
    if abs(a - b) < abs(a - d):
        a, b, c, d = b, c, d, a
    hip = min(0.5 * abs(a - d) / abs(a - b), 0.45) if rng.random() < 0.6 else 0.0
    start, end = (a + d) / 2, (b + c) / 2
    start, end = start + (end - start) * hip, end - (end - start) * hip
    # A face's brightness follows from how far it turns towards the sun.
    contrast = 0.42 * math.cos(sun.elevation_rad)
    towards = cmath.rect(contrast, sun.azimuth_rad - math.pi / 2)

    def light(outwards: complex) -> float:
        return 1 + (outwards.real * towards.real + outwards.imag * towards.imag) / abs(outwards)

    faces: list[_Face] = [((d, c, end, start), light(d - a)), ((a, b, end, start), light(a - d))]
    if hip:
        faces += [((b, c, end), light(b - a)), ((a, d, start), light(a - b))]
    return faces


def _flat_roof(rng: np.random.Generator, corners: Ring) -> list[_Face]:
    """A flat roof with a parapet and a few machines on it."""
    origin, along, across = corners[0], corners[1] - corners[0], corners[3] - corners[0]
    middle = origin + (along + across) / 2
    faces: list[_Face] = [(corners, 0.8), ([middle + (corner - middle) * 0.9 for corner in corners], 1.06)]
    one, other = along / abs(along) * 3.0, across / abs(across) * 2.5
    for u, v, light in rng.uniform((0.15, 0.15, 0.7), (0.8, 0.8, 1.3), (rng.integers(2, 6), 3)).tolist():
        corner = origin + u * along + v * across
        faces.append(((corner, corner + one, corner + one + other, corner + other), light))
    return faces


def _paint_faces(
    canvas: Array,
    rng: np.random.Generator,
    outline: Ring,
    faces: Sequence[_Face],
    colour: Colour,
    brightness: float = 1.0,
) -> None:
    """Paints flat faces, which lie within the outline, with some grain."""
    box = box_around(outline, 0, canvas.shape)
    if 0 in size(box):
        return
    red, green, blue = (255 * brightness * value for value in colour)
    coloured = [(face, (_byte(red * light), _byte(green * light), _byte(blue * light))) for face, light in faces]
    layer = fill_coloured(coloured, box)
    patch = canvas[box]
    patch *= 1 - layer[..., 3:]
    patch += layer[..., :3] * (np.float32(0.93) + np.float32(0.14) * grain(rng, *size(box)))[..., None]


def _byte(value: float) -> int:
    return int(min(255.0, max(0.0, value)))
