"""Textures of land covers: noise, and colours that depend on the season."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image

from unirs_tasks.synth.raster import Array, Bytes, Colour, random_window, white_noise

Season = Literal["spring", "summer", "autumn", "winter"]
Cover = Literal[
    "grass",
    "forest",
    "soil",
    "crop_green",
    "crop_ripe",
    "stubble",
    "ploughed",
    "water",
    "mud",
    "asphalt",
    "concrete",
    "sand",
    "rubble",
    "burnt",
]


@dataclass(frozen=True, slots=True)
class _CoverStyle:
    """Appearance of a land cover.

    Attributes:
        dark: colour where the noise is 0.
        light: colour where the noise is 1.
        scale: size of the noise's blobs in pixels.
        grain: share of white noise.
        rows: distance of plant rows in pixels; 0 for no rows.
        spots: offset of the colour in worn or overgrown spots.
    """

    dark: Colour
    light: Colour
    scale: float
    grain: float
    rows: float = 0.0
    spots: Colour | None = None


_STYLES: dict[Cover, _CoverStyle] = {
    "grass": _CoverStyle((0.22, 0.28, 0.15), (0.40, 0.44, 0.27), 48, 0.32, spots=(0.16, 0.10, 0.09)),
    "forest": _CoverStyle((0.05, 0.09, 0.05), (0.25, 0.34, 0.19), 12, 0.20),
    "soil": _CoverStyle((0.38, 0.31, 0.24), (0.60, 0.52, 0.42), 40, 0.30, spots=(-0.16, -0.09, -0.13)),
    "crop_green": _CoverStyle((0.13, 0.26, 0.11), (0.27, 0.43, 0.20), 90, 0.18, 6),
    "crop_ripe": _CoverStyle((0.55, 0.47, 0.26), (0.74, 0.66, 0.42), 90, 0.18, 6),
    "stubble": _CoverStyle((0.47, 0.42, 0.31), (0.67, 0.61, 0.48), 70, 0.30, 9),
    "ploughed": _CoverStyle((0.25, 0.20, 0.16), (0.43, 0.35, 0.28), 70, 0.25, 5),
    "water": _CoverStyle((0.07, 0.15, 0.17), (0.15, 0.27, 0.29), 160, 0.05),
    "mud": _CoverStyle((0.33, 0.25, 0.17), (0.50, 0.40, 0.28), 30, 0.12),
    "asphalt": _CoverStyle((0.33, 0.33, 0.34), (0.46, 0.46, 0.46), 60, 0.25),
    "concrete": _CoverStyle((0.57, 0.56, 0.54), (0.76, 0.75, 0.72), 60, 0.18),
    "sand": _CoverStyle((0.66, 0.58, 0.45), (0.86, 0.78, 0.63), 40, 0.20),
    "rubble": _CoverStyle((0.25, 0.23, 0.21), (0.76, 0.72, 0.66), 7, 0.45),
    "burnt": _CoverStyle((0.05, 0.05, 0.05), (0.25, 0.22, 0.19), 26, 0.25),
}

# Seasonal gains on red, green and blue of plants; other covers do not change.
SEASONS: dict[Season, Colour] = {
    "spring": (0.92, 1.05, 0.90),
    "summer": (1.00, 1.00, 1.00),
    "autumn": (1.22, 1.00, 0.92),
    "winter": (1.20, 1.00, 1.16),
}
_PLANTS: frozenset[Cover] = frozenset({"grass", "forest", "crop_green"})


def noise(rng: np.random.Generator, height: int, width: int, scale: float) -> Array:
    """Smooth multi-octave value noise.

    Args:
        rng: source of randomness.
        height: rows.
        width: columns.
        scale: size of the largest blobs in pixels, rounded.

    Returns:
        float32 `[height, width]` in 0..1, mean about 0.5.
    """
    return np.multiply(
        random_window(rng, _field, height, width, max(4, round(scale))), np.float32(1 / 255), dtype=np.float32
    )


@lru_cache(64)
def _field(side: int, scale: int) -> Bytes:
    """Noise in 0..255, much larger than any window that is cut out of it."""
    rng = np.random.default_rng(scale)
    total: Array | None = None
    cell, weight, weights = float(scale), 1.0, 0.0
    while True:
        # Each octave is added on its own coarse grid, so that only one resampling is of full size.
        shape = (math.ceil(side / cell) + 1,) * 2
        octave = rng.random(shape, np.float32)
        total = octave if total is None else _resample(total, shape) + weight * octave
        weights += weight
        if cell < 6 or weight < 0.2:
            break
        cell, weight = cell / 2, weight * 0.7
    stretched = (total / np.float32(weights) - 0.5) * np.float32(1.7) + np.float32(0.5)
    smooth = _resample(stretched, (side, side))
    return np.clip(255 * smooth, 0, 255).astype(np.uint8)


def texture(
    rng: np.random.Generator,
    cover: Cover,
    height: int,
    width: int,
    season: Season = "summer",
    tone: Colour = (1.0, 1.0, 1.0),
) -> Array:
    """Renders the texture of a land cover with a random tone.

    Args:
        rng: source of randomness.
        cover: the land cover.
        height: rows.
        width: columns.
        season: sets the colours of plants.
        tone: gains on red, green and blue on top of the random ones.

    Returns:
        float32 `[height, width, 3]` in 0..1.
    """
    style = _STYLES[cover]
    gains = rng.normal(1.0, 0.018, 3) * rng.normal(1.0, 0.06) * tone
    if cover in _PLANTS:
        gains = gains * SEASONS[season]
    value = noise(rng, height, width, style.scale)
    if cover == "forest":
        value = _canopy(value)
    if style.rows:
        value = np.float32(0.6) * value + np.float32(0.4) * _rows(rng, height, width, style.rows)
    if cover == "water":
        value = np.float32(0.5) * (value + _slope(rng, height, width))
    value *= np.float32(1 - style.grain)
    value += grain(rng, height, width, style.grain)
    dark, light = style.dark * gains, style.light * gains
    # The noise rotated by 180 degrees serves as a second, independent one.
    spotted = np.clip(np.float32(3) * value[::-1, ::-1] - np.float32(1.75), 0, 1) if style.spots else None
    planes = np.empty((3, height, width), np.float32)
    for channel, plane in enumerate(planes):
        np.multiply(value, np.float32(light[channel] - dark[channel]), out=plane)
        plane += np.float32(dark[channel])
        if style.spots and spotted is not None:
            plane += spotted * np.float32(style.spots[channel])
    return np.clip(planes, 0, 1, out=planes).transpose(1, 2, 0)


def _resample(grid: Array, shape: tuple[int, int]) -> Array:
    resized = Image.fromarray(grid).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(resized, np.float32)


def mean_colour(cover: Cover) -> Array:
    """Mean colour of a land cover, `[3]`."""
    style = _STYLES[cover]
    return np.array([(dark + light) / 2 for dark, light in zip(style.dark, style.light, strict=True)], np.float32)


def grain(rng: np.random.Generator, height: int, width: int, top: float = 1.0) -> Array:
    """White noise in 0..top."""
    return np.multiply(white_noise(rng, height, width), np.float32(top / 255), dtype=np.float32)


def _canopy(value: Array) -> Array:
    """Tree crowns from noise: each blob lit from the upper left and dark at its foot."""
    slope = np.zeros_like(value)
    slope[2:, 2:] = value[2:, 2:] - value[:-2, :-2]
    crowns: Array = np.clip(0.75 * value + 1.1 * slope, 0, 1, dtype=np.float32)
    return crowns


def _rows(rng: np.random.Generator, height: int, width: int, period: float) -> Array:
    """Stripes in 0..1 along a random direction."""
    angle = rng.uniform(0, math.pi)
    step = 2 * math.pi / (period * rng.uniform(0.8, 1.3))
    x = np.arange(width, dtype=np.float32) * np.float32(math.cos(angle) * step)
    y = np.arange(height, dtype=np.float32) * np.float32(math.sin(angle) * step)
    # sin(x + y) from four one-dimensional waves.
    wave = np.outer(np.cos(y), np.sin(x))
    wave += np.outer(np.sin(y), np.cos(x))
    wave *= 0.5
    wave += 0.5
    return wave


def _slope(rng: np.random.Generator, height: int, width: int) -> Array:
    """A gradient from 0 to 1 across the image in a random direction."""
    angle = rng.uniform(0, 2 * math.pi)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.float32(math.cos(angle) * 0.7)
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32) * np.float32(math.sin(angle) * 0.7)
    return x[None] + y[:, None] + np.float32(0.5)
