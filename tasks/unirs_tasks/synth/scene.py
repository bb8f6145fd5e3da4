"""An aerial scene as a list of things with a place, and its picture under a given season, light and camera.

Geometry is in pixels of the finished 256x256 picture. A scene is never changed: an edited one is a new `Scene`, and
the same thing looks the same in every picture of it, but for season and light.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from unirs_tasks.synth import paint

SIZE = 256
# Drawn around the picture, so that a moved or turned camera never looks past the edge.
MARGIN = 8

Outline = npt.NDArray[np.float64]
Layout = Literal["rural", "urban"]
AreaKind = Literal["field", "forest", "parking lot", "patch", "water"]


@dataclass(frozen=True, eq=False, slots=True)
class Area:
    """A piece of land of one cover.

    Attributes:
        kind: what it is; a `patch` is bare ground that nobody asks about.
        outline: `[n, 2]`, may reach beyond the picture.
        cover: what it looks like.
        seed: of its texture.
    """

    kind: AreaKind
    outline: Outline
    cover: paint.Cover
    seed: int


@dataclass(frozen=True, eq=False, slots=True)
class Road:
    """A road along `path` `[n, 2]`, `width` px wide."""

    path: Outline
    width: float


@dataclass(frozen=True, eq=False, slots=True)
class Building:
    """A building; `angle` is the direction of its length."""

    center: tuple[float, float]
    length: float
    width: float
    angle: float
    seed: int

    @property
    def large(self) -> bool:
        """Whether it is a hall or block, at least two and a half times as large as any house."""
        return self.length >= 42

    @property
    def outline(self) -> Outline:
        """Corners `[4, 2]`."""
        return paint.rectangle(self.center, self.length, self.width, self.angle)


@dataclass(frozen=True, eq=False, slots=True)
class Tree:
    """A single tree."""

    center: tuple[float, float]
    radius: float
    seed: int


@dataclass(frozen=True, eq=False, slots=True)
class Vehicle:
    """A car heading along `angle`."""

    center: tuple[float, float]
    angle: float
    length: float
    seed: int


Thing = Area | Road | Building | Tree | Vehicle


@dataclass(frozen=True, slots=True)
class Look:
    """One acquisition: season, light, air and camera.

    Attributes:
        season: what plants look like.
        sun: where the light comes from.
        gain: exposure.
        gamma: tone curve.
        tint: gains on red, green and blue.
        haze: share of sky light, in 0..1.
        noise: standard deviation of the sensor's noise, in 0..1.
        shift: how far the picture is moved, `(x, y)` in pixels.
        rotation: how far it is turned about its middle, in radians.
        seed: of the noise and of the tones that land takes on at this time.
    """

    season: paint.Season = "summer"
    sun: paint.Sun = field(default_factory=lambda: paint.Sun(5.5, 0.8))
    gain: float = 1.0
    gamma: float = 1.0
    tint: paint.Colour = (1.0, 1.0, 1.0)
    haze: float = 0.0
    noise: float = 0.01
    shift: tuple[float, float] = (0.0, 0.0)
    rotation: float = 0.0
    seed: int = 0


def random_look(rng: np.random.Generator, moved: bool = False) -> Look:
    """A random acquisition.

    Args:
        rng: source of randomness.
        moved: whether the camera is up to 2 px and 1 degree off.
    """
    seasons: tuple[paint.Season, ...] = ("spring", "summer", "autumn", "winter")
    red, green, blue = rng.uniform(0.96, 1.04, 3).tolist()
    look = Look(
        season=seasons[rng.integers(4)],
        sun=paint.Sun(rng.uniform(0, 2 * math.pi), rng.uniform(0.55, 1.1)),
        gain=rng.uniform(0.85, 1.2),
        gamma=rng.uniform(0.8, 1.2),
        tint=(red, green, blue),
        haze=rng.uniform(0, 0.22) if rng.random() < 0.6 else 0.0,
        noise=rng.uniform(0.005, 0.025),
        seed=_seed(rng),
    )
    if not moved:
        return look
    shift = rng.uniform(-2, 2, 2)
    return replace(look, shift=(shift[0], shift[1]), rotation=rng.uniform(-1, 1) * math.pi / 180)


@dataclass(frozen=True, eq=False, slots=True)
class Scene:
    """What there is to see.

    Attributes:
        layout: whether it is countryside or town.
        ground: cover of all that nothing else covers.
        seed: of the ground's texture.
        things: what stands on it, in any order.
    """

    layout: Layout
    ground: paint.Cover
    seed: int
    things: tuple[Thing, ...] = ()

    def added(self, things: Iterable[Thing]) -> Scene:
        """The scene with more things in it."""
        return replace(self, things=(*self.things, *things))

    def without(self, things: Collection[Thing]) -> Scene:
        """The scene with these very things gone."""
        gone = {id(thing) for thing in things}
        return replace(self, things=tuple(thing for thing in self.things if id(thing) not in gone))

    def render(self, look: Look) -> npt.NDArray[np.uint8]:
        """The picture, uint8 `[256, 256, 3]`."""
        side = SIZE + 2 * MARGIN
        rng = np.random.default_rng(look.seed)
        canvas = paint.texture(np.random.default_rng(self.seed), self.ground, side, side, look.season, _tone(rng))
        for thing in self.things:
            if isinstance(thing, Area):
                _draw_area(canvas, thing, look, _tone(rng))
        roads = [(thing.path + MARGIN, thing.width) for thing in self.things if isinstance(thing, Road)]
        paint.roads(canvas, np.random.default_rng(self.seed), roads)
        drawings = [_drawing(thing, look) for thing in self.things if isinstance(thing, Vehicle | Tree | Building)]
        paint.draw(canvas, np.random.default_rng(self.seed), drawings)
        return _shoot(canvas, rng, look)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _tone(rng: np.random.Generator) -> paint.Colour:
    """What rain, drought and growth do to a piece of land between two acquisitions."""
    red, green, blue = (rng.normal(1, 0.06) * rng.normal(1, 0.012, 3)).tolist()
    return red, green, blue


def _draw_area(canvas: paint.Array, area: Area, look: Look, tone: paint.Colour) -> None:
    rng = np.random.default_rng(area.seed)
    outline = area.outline + MARGIN
    if area.kind == "water":
        bank: paint.Cover = "sand" if rng.random() < 0.3 else "mud"
        paint.area_of_colour(canvas, grown(outline, 2.5), paint.mean_colour(bank) * np.array(tone, np.float32))
    if area.kind == "forest":
        # The canopy's shade on the ground beside it.
        paint.darken_area(canvas, np.add(outline, look.sun.offset(4)))
    paint.area(canvas, rng, outline, area.cover, look.season, tone)


def _drawing(thing: Vehicle | Tree | Building, look: Look) -> paint.Drawing:
    rng = np.random.default_rng(thing.seed)
    center = (thing.center[0] + MARGIN, thing.center[1] + MARGIN)
    match thing:
        case Vehicle():
            return paint.vehicle_drawing(rng, center, thing.angle, thing.length, look.sun)
        case Tree():
            return paint.tree_drawing(rng, center, thing.radius, look.sun, look.season)
        case Building():
            return paint.building_drawing(rng, center, thing.length, thing.width, thing.angle, look.sun)


def grown(outline: Outline, by: float) -> Outline:
    """The outline moved outwards by some pixels."""
    middle = outline.mean(axis=0)
    arms = outline - middle
    lengths = np.maximum(np.hypot(arms[:, :1], arms[:, 1:]), 1)
    grown: Outline = middle + arms * (1 + by / lengths)
    return grown


def _shoot(canvas: paint.Array, rng: np.random.Generator, look: Look) -> npt.NDArray[np.uint8]:
    moved = look.shift != (0.0, 0.0) or look.rotation != 0.0
    seen = canvas if moved else canvas[MARGIN:-MARGIN, MARGIN:-MARGIN]
    picture = paint.finish(seen, rng, look.gain, look.gamma, look.tint, look.haze, look.noise)
    if not moved:
        return picture
    cos, sin = math.cos(look.rotation), math.sin(look.rotation)
    middle = SIZE / 2
    # Where the finished picture's pixel (x, y) lies on the canvas.
    left = middle + MARGIN - cos * middle + sin * middle - look.shift[0]
    top = middle + MARGIN - sin * middle - cos * middle - look.shift[1]
    shot = Image.fromarray(picture).transform(
        (SIZE, SIZE), Image.Transform.AFFINE, (cos, -sin, left, sin, cos, top), Image.Resampling.BILINEAR
    )
    return np.asarray(shot)
