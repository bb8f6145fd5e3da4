"""Components of video scenes: the conditions of a clip, curves to place objects along, and moving sprites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from unirs_tasks.synth import paint
from unirs_tasks.synth.video import FRAMES, WORLD, Acquisition, Floats, MovingSprites, Sprite, sprite

MIDDLE = WORLD / 2
# Largest distance from the centre of the world that a frame can show, in px.
REACH = 0.75 * WORLD

Numbers = npt.NDArray[np.floating] | float


@dataclass(frozen=True)
class ClipContext:
    """The conditions of one clip: light, season and acquisition, and the source of randomness."""

    rng: np.random.Generator
    sun: paint.Sun
    season: paint.Season
    acquisition: Acquisition
    seed: int

    @classmethod
    def sample(cls, rng: np.random.Generator) -> ClipContext:
        """Draws the conditions."""
        seasons: tuple[paint.Season, ...] = get_args(paint.Season)
        return cls(
            rng=rng,
            sun=paint.Sun(rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.2)),
            season=seasons[rng.integers(len(seasons))],
            acquisition=Acquisition.sample(rng),
            seed=int(rng.integers(2**31)),
        )

    def pick(self, covers: Sequence[paint.Cover], count: int) -> list[paint.Cover]:
        """Samples `count` distinct land covers."""
        return [covers[index] for index in self.rng.permutation(len(covers))[:count]]

    def cover(self, *names: paint.Cover) -> Floats:
        """Canvas with one of these land covers, chosen at random."""
        return paint.texture(self.rng, self.pick(names, 1)[0], WORLD, WORLD, self.season)

    def land(self, covers: Sequence[paint.Cover]) -> Floats:
        """Canvas with two of these land covers side by side, chosen at random."""
        first, second = self.pick(covers, 2)
        canvas = self.cover(first)
        _, aside = Curve.sample(self.rng).grid()
        paint.blend(canvas, np.clip(aside - self.rng.uniform(-30, 30), 0, 1), self.cover(second))
        return canvas

    def noise(self, scale: float) -> Floats:
        """Smooth noise in 0..1 over the world; `scale` is the size of its blobs in px."""
        return paint.noise(self.rng, WORLD, WORLD, scale)

    def capture(self, canvas: Floats) -> Image.Image:
        """Converts a canvas to an image. All images of one clip have the same sensor noise."""
        return self.acquisition.capture(canvas, self.seed)

    def sprite(self, draw: Callable[[Floats, np.random.Generator], None], side: int) -> Sprite:
        """A sprite, `side` px wide and high, under the light of this clip."""
        return sprite(draw, side, int(self.rng.integers(2**31)), self.acquisition)

    def trees(self, canvases: Sequence[Floats], places: Floats) -> None:
        """Draws the same trees at `places` `[n, 2]` on each canvas."""
        for x, y in places.tolist():
            radius, seed = self.rng.uniform(5, 9), int(self.rng.integers(2**31))
            for canvas in canvases:
                paint.tree(canvas, np.random.default_rng(seed), (x, y), radius, self.sun, self.season)

    def building(self, canvases: Sequence[Floats], place: Floats, length: float, width: float, angle: float) -> None:
        """Draws the same building on each canvas."""
        seed, (x, y) = int(self.rng.integers(2**31)), place.tolist()
        for canvas in canvases:
            paint.building(canvas, np.random.default_rng(seed), (x, y), length, width, angle, self.sun)


@dataclass(frozen=True)
class Curve:
    """A gently bent line through the world: the axis of a road, a river, a shore or a pitch.

    Attributes:
        heading: its direction in the middle, rad from the x axis towards the y axis (y points down).
        curvature: 1/px.
        offset: distance from the centre of the world, px.
    """

    heading: float
    curvature: float = 0.0
    offset: float = 0.0

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Curve:
        """Draws a line, rather across the frame than up and down, either way."""
        heading = rng.choice([0, np.pi]) + rng.uniform(-0.6, 0.6)
        return cls(heading, rng.uniform(-0.0015, 0.0015), rng.uniform(-20, 20))

    def at(self, along: Numbers, aside: Numbers = 0.0) -> Floats:
        """World coordinates `[..., 2]` of points `along` px down the curve and `aside` px off it."""
        turn = self.curvature * np.asarray(along)
        x, y = along - aside * np.sin(turn), turn * along / 2 + aside * np.cos(turn) + self.offset
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        return np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1).astype(np.float32) + np.float32(MIDDLE)

    def line(self) -> Floats:
        """Points `[n, 2]` of the whole line."""
        return self.at(np.linspace(-REACH, REACH, 13))

    def box(self, along: float, length: float, aside: float, width: float) -> Floats:
        """Corners `[4, 2]` of a rectangle in line with this line, by its middle and its sides in px."""
        signs = np.array([[-1, 1, 1, -1], [-1, -1, 1, 1]]) / 2
        return self.at(along + length * signs[0], aside + width * signs[1])

    def grid(self) -> tuple[Floats, Floats]:
        """For each pixel of the world, `[WORLD, WORLD]` each: px along the line, and px off it."""
        y, x = np.mgrid[:WORLD, :WORLD].astype(np.float32) - np.float32(MIDDLE)
        cos, sin = np.float32(np.cos(self.heading)), np.float32(np.sin(self.heading))
        along, aside = x * cos + y * sin, y * cos - x * sin
        return along, aside - np.float32(self.curvature / 2) * along**2 - np.float32(self.offset)


def equalized(order: Floats) -> Floats:
    """Spreads values evenly over 0..1, so that progress is the share of the world that has turned."""
    sample = np.sort(order[::8, ::8], axis=None)
    return np.interp(order, sample, np.linspace(0, 1, sample.size)).astype(np.float32)


def person(clip: ClipContext, colour: Floats, radius: float = 2.3) -> Sprite:
    """A person from above: shoulders of one colour, a dark head, a short shadow."""

    def draw(canvas: Floats, _: np.random.Generator) -> None:
        body = _disc(radius, 14)
        paint.shadow(canvas, body, 3, clip.sun)
        paint.blend(canvas, body, colour)
        paint.blend(canvas, _disc(radius * 0.45, 14), colour * np.float32(0.35))

    return clip.sprite(draw, 14)


def cloud(clip: ClipContext, radius: float, colour: paint.Colour, density: float) -> Sprite:
    """A soft blob of smoke or flames; `density` is its opacity in the middle."""
    side = int(2 * radius + 2)

    def draw(canvas: Floats, rng: np.random.Generator) -> None:
        y, x = np.mgrid[:side, :side].astype(np.float32) - np.float32((side - 1) / 2)
        blob = np.clip(1 - (x**2 + y**2) / np.float32(radius**2), 0, 1)
        paint.blend(canvas, density * blob * (0.6 + 0.4 * paint.noise(rng, side, side, radius)), colour)

    return clip.sprite(draw, side)


def plume(clip: ClipContext, wind: Curve, source: float, clock: Floats) -> MovingSprites:
    """Smoke that rises `source` px along the wind, drifts with it, and spreads.

    Args:
        clip: the conditions of the clip.
        wind: the line that the smoke drifts along.
        source: position of its origin along `wind`, px.
        clock: `[T]`, 0 at the start and 1 at the end of the clip.
    """
    rng, count, sizes = clip.rng, 40, 8
    grey = rng.uniform(0.35, 0.85)
    puffs = [cloud(clip, 9 + 4 * size, (grey, grey, grey), 0.75 - 0.05 * size) for size in range(sizes)]
    # Some puffs are older than the clip.
    age = clock[:, None] - np.linspace(-0.3, 0.95, count)
    along = source + rng.uniform(-8, 8, count) + age * WORLD * rng.uniform(0.45, 0.7)
    aside = rng.uniform(-10, 10, count) + age * rng.normal(0, 35, count)
    sprite_index = np.where(age > 0, np.clip(age * 1.1 * sizes, 0, sizes - 1), -1).astype(np.int64)
    return MovingSprites(puffs, sprite_index, wind.at(along, aside))


def crane(clip: ClipContext, clock: Floats) -> MovingSprites:
    """A tower crane that turns with the clock."""

    def draw(canvas: Floats, _: np.random.Generator) -> None:
        boom = paint.stroke_mask([(35, 60), (112, 60)], 4, 120, 120)
        paint.shadow(canvas, boom, 8, clip.sun)
        paint.blend(canvas, boom, (0.95, 0.75, 0.1))
        paint.blend(canvas, _disc(6, 120), (0.85, 0.6, 0.1))

    boom, rng = clip.sprite(draw, 120), clip.rng
    start, turn = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1]) * rng.uniform(0.8, 1.6)
    place = MIDDLE + rng.uniform(-60, 60, 2)
    return MovingSprites(
        [boom.turned(start + turn * now) for now in clock.tolist()],
        np.arange(FRAMES)[:, None],
        np.broadcast_to(place, (FRAMES, 1, 2)).astype(np.float32),
    )


def machine(clip: ClipContext, colour: paint.Colour, swath: float) -> Sprite:
    """A field machine heading along the x axis: body, cab and, in front, an implement `swath` px wide."""

    def draw(canvas: Floats, rng: np.random.Generator) -> None:
        paintwork = np.array(colour, np.float32) * np.float32(rng.uniform(0.85, 1))
        for part, tone in (
            (paint.rectangle((27, 24), 18, 12, 0), paintwork),
            (paint.rectangle((29, 24), 7, 8, 0), np.full(3, 0.15, np.float32)),
            (paint.rectangle((39, 24), 5, swath - 2, 0), paintwork * np.float32(0.7)),
        ):
            mask = paint.polygon_mask(part, 48, 48)
            paint.shadow(canvas, mask, 4, clip.sun)
            paint.blend(canvas, mask, tone)

    return clip.sprite(draw, 48)


def boat(clip: ClipContext) -> Sprite:
    """A motor boat heading along the x axis, with the foam of its wake behind it."""

    def draw(canvas: Floats, rng: np.random.Generator) -> None:
        y, x = np.mgrid[:100, :100].astype(np.float32)
        # Foam is thick along the two edges of the wake and thins out with distance.
        edges = 0.5 + 0.5 * np.abs(y - 50) / np.maximum((88 - x) * np.float32(0.18), 1)
        wake = paint.polygon_mask([(88, 50), (10, 36), (10, 64)], 100, 100)
        paint.blend(canvas, np.clip(wake * np.clip((x - 10) / 80, 0, 1) * edges, 0, 1) * np.float32(0.8), (1, 1, 1))
        hull = paint.polygon_mask([(94, 50), (86, 55), (72, 55), (72, 45), (86, 45)], 100, 100)
        paint.blend(canvas, hull, rng.uniform(0.6, 1, 3).astype(np.float32))
        cabin = paint.polygon_mask(paint.rectangle((80, 50), 7, 4, 0), 100, 100)
        paint.blend(canvas, cabin, rng.uniform(0.1, 0.4, 3).astype(np.float32))

    return clip.sprite(draw, 100)


def swimmer(clip: ClipContext) -> Sprite:
    """A swimmer along the x axis, in a splash."""

    def draw(canvas: Floats, rng: np.random.Generator) -> None:
        paint.blend(canvas, _disc(5, 24) * paint.noise(rng, 24, 24, 4), (1, 1, 1))
        paint.blend(canvas, paint.stroke_mask([(8, 12), (16, 12)], 3.5, 24, 24), (0.75, 0.5, 0.38))

    return clip.sprite(draw, 24)


def _disc(radius: float, side: int) -> Floats:
    """A disc in the middle of a square canvas."""
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    return paint.polygon_mask(side / 2 + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1), side, side)
