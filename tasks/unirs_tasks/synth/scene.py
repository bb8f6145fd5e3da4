"""An aerial scene as a list of located objects, and its rendered image for a season, light and camera.

Geometry is in pixels of the rendered 256x256 image. Scenes are immutable: an edit makes a new `Scene`, and an
object has the same appearance in every image, except for season and light.
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
# Drawn around the image, so that a shifted or rotated camera stays inside the canvas.
MARGIN = 8

Outline = npt.NDArray[np.float64]
Layout = Literal["rural", "urban"]
LandUse = Literal["field", "forest", "parking lot", "patch", "water"]


@dataclass(frozen=True, eq=False, slots=True)
class Area:
    """A piece of land of one cover.

    Attributes:
        land_use: type of the area; `patch` is bare ground that is never a subject of questions.
        outline: `[n, 2]`, may reach beyond the image.
        cover: land cover, which sets the texture.
        seed: of its texture.
    """

    land_use: LandUse
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
class Acquisition:
    """One acquisition: season, light, atmosphere and camera.

    Attributes:
        season: sets the colours of plants.
        sun: where the light comes from.
        gain: exposure.
        gamma: tone curve.
        tint: gains on red, green and blue.
        haze: share of sky light, in 0..1.
        noise: standard deviation of the sensor's noise, in 0..1.
        shift: translation of the image, `(x, y)` in pixels.
        rotation: rotation about the centre, in radians.
        seed: of the sensor noise and of the tones of the land at this time.
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


def random_acquisition(rng: np.random.Generator, moved: bool = False) -> Acquisition:
    """Samples an acquisition.

    Args:
        rng: source of randomness.
        moved: whether the camera is displaced by up to 2 px and 1 degree.
    """
    seasons: tuple[paint.Season, ...] = ("spring", "summer", "autumn", "winter")
    red, green, blue = rng.uniform(0.96, 1.04, 3).tolist()
    acquisition = Acquisition(
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
        return acquisition
    shift = rng.uniform(-2, 2, 2)
    return replace(acquisition, shift=(shift[0], shift[1]), rotation=rng.uniform(-1, 1) * math.pi / 180)


@dataclass(frozen=True, eq=False, slots=True)
class Scene:
    """The content of an aerial scene.

    Attributes:
        layout: whether it is countryside or town.
        ground: land cover outside all areas.
        seed: of the ground's texture.
        things: objects and areas, in any order.
    """

    layout: Layout
    ground: paint.Cover
    seed: int
    things: tuple[Thing, ...] = ()

    def added(self, things: Iterable[Thing]) -> Scene:
        """Returns the scene with `things` added."""
        return replace(self, things=(*self.things, *things))

    def without(self, things: Collection[Thing]) -> Scene:
        """Returns the scene without `things`, compared by identity."""
        gone = {id(thing) for thing in things}
        return replace(self, things=tuple(thing for thing in self.things if id(thing) not in gone))

    def render(self, acquisition: Acquisition) -> npt.NDArray[np.uint8]:
        """Renders the scene as uint8 `[256, 256, 3]`."""
        side = SIZE + 2 * MARGIN
        rng = np.random.default_rng(acquisition.seed)
        canvas = paint.texture(
            np.random.default_rng(self.seed), self.ground, side, side, acquisition.season, _tone(rng)
        )
        for thing in self.things:
            if isinstance(thing, Area):
                _draw_area(canvas, thing, acquisition, _tone(rng))
        roads = [(thing.path + MARGIN, thing.width) for thing in self.things if isinstance(thing, Road)]
        paint.roads(canvas, np.random.default_rng(self.seed), roads)
        drawings = [
            _drawing(thing, acquisition) for thing in self.things if isinstance(thing, Vehicle | Tree | Building)
        ]
        paint.draw(canvas, np.random.default_rng(self.seed), drawings)
        return _capture(canvas, rng, acquisition)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _tone(rng: np.random.Generator) -> paint.Colour:
    """Samples the tone shift of an area between two acquisitions (rain, drought, growth)."""
    red, green, blue = (rng.normal(1, 0.06) * rng.normal(1, 0.012, 3)).tolist()
    return red, green, blue


def _draw_area(canvas: paint.Array, area: Area, acquisition: Acquisition, tone: paint.Colour) -> None:
    rng = np.random.default_rng(area.seed)
    outline = area.outline + MARGIN
    if area.land_use == "water":
        bank: paint.Cover = "sand" if rng.random() < 0.3 else "mud"
        paint.area_of_colour(canvas, grown(outline, 2.5), paint.mean_colour(bank) * np.array(tone, np.float32))
    if area.land_use == "forest":
        # The canopy's shade on the ground beside it.
        paint.darken_area(canvas, np.add(outline, acquisition.sun.offset(4)))
    paint.area(canvas, rng, outline, area.cover, acquisition.season, tone)


def _drawing(thing: Vehicle | Tree | Building, acquisition: Acquisition) -> paint.Drawing:
    rng = np.random.default_rng(thing.seed)
    center = (thing.center[0] + MARGIN, thing.center[1] + MARGIN)
    match thing:
        case Vehicle():
            return paint.vehicle_drawing(rng, center, thing.angle, thing.length, acquisition.sun)
        case Tree():
            return paint.tree_drawing(rng, center, thing.radius, acquisition.sun, acquisition.season)
        case Building():
            return paint.building_drawing(rng, center, thing.length, thing.width, thing.angle, acquisition.sun)


def grown(outline: Outline, by: float) -> Outline:
    """Returns the outline moved outwards by `by` px."""
    middle = outline.mean(axis=0)
    arms = outline - middle
    lengths = np.maximum(np.hypot(arms[:, :1], arms[:, 1:]), 1)
    grown: Outline = middle + arms * (1 + by / lengths)
    return grown


def _capture(canvas: paint.Array, rng: np.random.Generator, acquisition: Acquisition) -> npt.NDArray[np.uint8]:
    moved = acquisition.shift != (0.0, 0.0) or acquisition.rotation != 0.0
    visible = canvas if moved else canvas[MARGIN:-MARGIN, MARGIN:-MARGIN]
    image = paint.finish(
        visible, rng, acquisition.gain, acquisition.gamma, acquisition.tint, acquisition.haze, acquisition.noise
    )
    if not moved:
        return image
    cos, sin = math.cos(acquisition.rotation), math.sin(acquisition.rotation)
    middle = SIZE / 2
    # Where the finished image's pixel (x, y) lies on the canvas.
    left = middle + MARGIN - cos * middle + sin * middle - acquisition.shift[0]
    top = middle + MARGIN - sin * middle - cos * middle - acquisition.shift[1]
    shot = Image.fromarray(image).transform(
        (SIZE, SIZE), Image.Transform.AFFINE, (cos, -sin, left, sin, cos, top), Image.Resampling.BILINEAR
    )
    return np.asarray(shot)
