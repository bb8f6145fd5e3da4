"""Objects on the ground: buildings, trees and vehicles, with their shadows.

An object is first turned into a `Drawing`, polygons in colours. Many drawings are then painted at once, which is much
faster than one by one. Points, angles and canvases are as in `paint`.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unirs_tasks.synth.covers import SEASONS, Season, grain
from unirs_tasks.synth.raster import Array, Colour, Ring, box_around, fill, fill_coloured, overlay, size

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


# How much brightness varies from pixel to pixel on leaves, and elsewhere.
_LEAFY, _SMOOTH = 0.7, 0.14

_BEARINGS = np.linspace(0, 2 * math.pi, 18, endpoint=False)
_CIRCLE = np.exp(1j * _BEARINGS)
# The size of each layer of a crown, how far it is moved towards the light, as shares of the radius, and its brightness.
_LIT = ((1.0, 0.0, 0.76), (0.82, 0.14, 0.93), (0.60, 0.30, 1.09), (0.36, 0.46, 1.23))

# A flat part of a surface and its brightness.
_Face = tuple[Ring, float]


@dataclass(frozen=True, slots=True)
class Sun:
    """Where the light comes from.

    Attributes:
        azimuth_rad: direction towards the sun, clockwise from the top of the image.
        elevation_rad: height over the horizon, in (0, pi/2].
    """

    azimuth_rad: float
    elevation_rad: float

    def offset(self, height_px: float) -> tuple[float, float]:
        """Where the tip of something `height_px` tall casts its shadow, as `(dx, dy)` in pixels."""
        length = height_px / math.tan(self.elevation_rad)
        return -length * math.sin(self.azimuth_rad), length * math.cos(self.azimuth_rad)


@dataclass(frozen=True, slots=True)
class Drawing:
    """An object ready to be painted.

    Attributes:
        shades: polygons that its shadow covers.
        faces: flat parts and their colours in 0..255, later ones on top.
        leafy: whether brightness varies much from pixel to pixel.
    """

    shades: Sequence[Ring]
    faces: Sequence[tuple[Ring, tuple[int, int, int]]]
    leafy: bool = False


def draw(canvas: Array, rng: np.random.Generator, drawings: Sequence[Drawing]) -> None:
    """Paints objects: first all shadows, then what is leafy, then the rest.

    Args:
        canvas: `[H, W, 3]`, changed in place.
        rng: source of the grain.
        drawings: the objects, later ones on top.
    """
    shades = [shade for drawing in drawings for shade in drawing.shades]
    box = box_around((point for shade in shades for point in shade), 1, canvas.shape) if shades else None
    if box is None or 0 in size(box):
        return
    darken(canvas[box], fill(shades, box))
    # Sampled for the whole canvas, so that an object's appearance does not depend on the other objects.
    variation = grain(rng, *canvas.shape[:2])[box]
    variation -= np.float32(0.5)
    crowns = [drawing.faces[0][0] for drawing in drawings if drawing.leafy]
    if crowns:
        variation *= np.float32(_SMOOTH) + np.float32(_LEAFY - _SMOOTH) * fill(crowns, box)
    else:
        variation *= np.float32(_SMOOTH)
    ordered = sorted(drawings, key=lambda drawing: not drawing.leafy)
    layer = fill_coloured([face for drawing in ordered for face in drawing.faces], box)
    overlay(canvas[box], layer, variation + 1)


def building_drawing(
    rng: np.random.Generator, center: tuple[float, float], length: float, width: float, angle: float, sun: Sun
) -> Drawing:
    """A building with a gable, hip or flat roof in one of many colours; large buildings have flat roofs.

    Args:
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
    corners = corners_of(complex(*center), length, width, angle)
    faces = _flat_roof(rng, corners) if flat else _pitched_roof(rng, corners, sun)
    return Drawing([_swept(corners, complex(*sun.offset(height)))], _coloured(faces, colour, brightness))


def tree_drawing(
    rng: np.random.Generator, center: tuple[float, float], radius: float, sun: Sun, season: Season = "summer"
) -> Drawing:
    """A tree's crown.

    Args:
        rng: picks shape and colour.
        center: middle of the crown.
        radius: of the crown, in pixels.
        sun: lights the crown and casts the shadow.
        season: leaves turn in autumn and fall in winter, unless the tree is an evergreen.
    """
    evergreen = rng.random() < 0.35
    colour = np.array(_CROWNS[rng.integers(len(_CROWNS))]) * rng.normal(1, 0.1)
    (one, other), lobes = rng.uniform(0, 2 * math.pi, 2).tolist(), rng.integers(3, 6)
    if not evergreen:
        colour = colour * SEASONS[season]
    middle = complex(*center)
    reach = 1 + 0.12 * np.sin(lobes * _BEARINGS + one) + 0.08 * np.sin((lobes + 3) * _BEARINGS + other)
    outline = radius * reach * _CIRCLE
    towards = cmath.rect(radius, sun.azimuth_rad - math.pi / 2)
    # Ever smaller crowns towards the light.
    faces = [((middle + shift * towards + part * outline).tolist(), light) for part, shift, light in _LIT]
    shade = (middle + complex(*sun.offset(radius * 0.9)) + radius * _CIRCLE).tolist()
    return Drawing([shade, faces[0][0]], _coloured(faces, colour.tolist()), leafy=True)


def vehicle_drawing(
    rng: np.random.Generator, center: tuple[float, float], angle: float, length: float, sun: Sun
) -> Drawing:
    """A car of `length` px heading along `angle`; half as wide as long."""
    colour = _CARS[rng.integers(len(_CARS))]
    middle, ahead = complex(*center), cmath.rect(length, angle)
    width = length / 2
    body = corners_of(middle, length, width, angle)
    glass = corners_of(middle + 0.17 * ahead, length * 0.16, width * 0.8, angle)
    rear = corners_of(middle - 0.3 * ahead, length * 0.1, width * 0.8, angle)
    faces: list[_Face] = [(body, 1.0), (glass, 0.35), (rear, 0.4)]
    return Drawing([_swept(body, complex(*sun.offset(width * 0.32)))], _coloured(faces, colour))


def building(
    canvas: Array,
    rng: np.random.Generator,
    center: tuple[float, float],
    length: float,
    width: float,
    angle: float,
    sun: Sun,
) -> None:
    """Paints one building with its shadow on `canvas` `[H, W, 3]`; see `building_drawing`."""
    draw(canvas, rng, [building_drawing(rng, center, length, width, angle, sun)])


def tree(
    canvas: Array,
    rng: np.random.Generator,
    center: tuple[float, float],
    radius: float,
    sun: Sun,
    season: Season = "summer",
) -> None:
    """Paints one tree with its shadow on `canvas` `[H, W, 3]`; see `tree_drawing`."""
    draw(canvas, rng, [tree_drawing(rng, center, radius, sun, season)])


def vehicle(
    canvas: Array, rng: np.random.Generator, center: tuple[float, float], angle: float, length: float, sun: Sun
) -> None:
    """Paints one car with its shadow on `canvas` `[H, W, 3]`; see `vehicle_drawing`."""
    draw(canvas, rng, [vehicle_drawing(rng, center, angle, length, sun)])


def corners_of(center: complex, length: float, width: float, angle: float) -> list[complex]:
    """Corners of a turned rectangle; corner 0 to 1 runs along `angle`."""
    along, across = cmath.rect(length / 2, angle), cmath.rect(width / 2, angle + math.pi / 2)
    return [center - along - across, center + along - across, center + along + across, center - along + across]


def darken(patch: Array, shade: Array) -> None:
    """Darkens a patch of a canvas in proportion to `shade` `[h, w]`, in 0..1."""
    for channel in range(3):
        plane = patch[..., channel]
        plane *= 1 - shade * (1 - _SHADE[channel])


def _swept(corners: Ring, tip: complex) -> Ring:
    """The area swept by a footprint (corners ordered from the x axis to the y axis) as it moves to `corners + tip`."""
    # A side is ahead if it faces the direction of motion.
    ahead = [((b - a).conjugate() * tip).imag < 0 for a, b in zip(corners, [*corners[1:], corners[0]], strict=True)]
    outline: list[complex] = []
    for corner, before, after in zip(corners, [ahead[-1], *ahead[:-1]], ahead, strict=True):
        if before or after:
            outline += (
                [corner + tip] if before == after else [corner + tip, corner] if before else [corner, corner + tip]
            )
        else:
            outline.append(corner)
    return outline


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


def _coloured(
    faces: Sequence[_Face], colour: Sequence[float], brightness: float = 1.0
) -> list[tuple[Ring, tuple[int, int, int]]]:
    red, green, blue = (255 * brightness * value for value in colour)
    return [(face, (_byte(red * light), _byte(green * light), _byte(blue * light))) for face, light in faces]


def _byte(value: float) -> int:
    return int(min(255.0, max(0.0, value)))
