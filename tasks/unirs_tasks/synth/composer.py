"""Puts things into a scene one by one, so that none overlaps what must be told apart from it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from unirs_tasks.synth import paint
from unirs_tasks.synth.scene import SIZE, Area, Building, Layout, Outline, Road, Scene, Thing, Tree, Vehicle, grown

_EDGE = 24  # how far beyond the picture the occupied land is kept track of, in pixels


class Composer:
    """Lays out a scene, keeping track of the land that is taken.

    Args:
        rng: source of randomness.
        layout: countryside or town.

    Attributes:
        things: what is there so far.
        angle: direction that streets and fields follow.
        scale: how large houses, trees and cars are.
    """

    def __init__(self, rng: np.random.Generator, layout: Layout) -> None:
        self.rng = rng
        self.layout: Layout = layout
        self.things: list[Thing] = []
        self.angle = float(rng.uniform(-0.6, 0.6))
        self.scale = float(rng.uniform(0.85, 1.25))
        self._taken = np.zeros((SIZE + 2 * _EDGE, SIZE + 2 * _EDGE), np.bool_)

    def seed(self) -> int:
        """A seed for a thing's looks."""
        return int(self.rng.integers(2**31))

    def take(self, outline: Outline) -> None:
        """Marks a polygon as taken."""
        box, mask = _footprint(outline)
        self._taken[box] |= mask

    def free(self, outline: Outline) -> bool:
        """Whether nothing stands within a polygon, some of which is in sight."""
        # Most tries fail at a corner, which is much cheaper to look at than the whole polygon.
        if any(self._blocked_at(x, y) for x, y in outline.tolist()):
            return False
        if len(outline) == 4 and _inside(outline, 1 - _EDGE):
            return not self._taken[_samples(outline)].any()
        box, mask = _footprint(outline)
        return bool(mask.any()) and not (self._taken[box] & mask).any()

    def _blocked_at(self, x: float, y: float) -> bool:
        row, column, side = int(y) + _EDGE, int(x) + _EDGE, len(self._taken)
        return 0 <= row < side and 0 <= column < side and bool(self._taken[row, column])

    def place(self, thing: Building | Tree | Area, outline: Outline, clear: Outline) -> bool:
        """Adds a thing if all land within `clear`, its outline grown by a gap, is free; says whether it did."""
        if not self.free(clear):
            return False
        self.take(outline)
        self.things.append(thing)
        return True

    def road(self, path: Outline, width: float) -> bool:
        """Adds a road if its whole path is free or crosses roads only; says whether it did."""
        strip = band(path, width + 4)
        if self._blocked(strip, [thing for thing in self.things if isinstance(thing, Road)]):
            return False
        self.take(strip)
        self.things.append(Road(path, width))
        return True

    def _blocked(self, strip: Outline, roads: Sequence[Road]) -> bool:
        box, mask = _footprint(strip)
        taken = self._taken[box] & mask
        for road in roads:
            other, crossing = _footprint(band(road.path, road.width + 8))
            sheet = np.zeros_like(self._taken)
            sheet[other] = crossing
            taken &= ~sheet[box]
        return bool(taken.any())

    def house(self, center: tuple[float, float], angle: float, gap: float = 4.0) -> bool:
        """Adds a house of random size if there is room."""
        length, width = self.rng.uniform(18, 25) * self.scale, self.rng.uniform(14.5, 19) * self.scale
        return self._building(center, max(length, 15.0), max(width, 13.0), angle, gap)

    def hall(self, center: tuple[float, float], angle: float, gap: float = 6.0) -> bool:
        """Adds a large building of random size if there is room."""
        length = max(48.0, self.rng.uniform(52, 78) * self.scale)
        return self._building(center, length, max(36.0, self.rng.uniform(36, 48) * self.scale), angle, gap)

    def _building(self, center: tuple[float, float], length: float, width: float, angle: float, gap: float) -> bool:
        if not 0 < min(center) <= max(center) < SIZE or self._blocked_at(*center):
            return False
        building = Building(center, length, width, angle, self.seed())
        outline = building.outline
        clear = paint.rectangle(center, length + 2 * gap, width + 2 * gap, angle)
        return _inside(outline, 3) and self.place(building, outline, clear)

    def tree(self, center: tuple[float, float], gap: float = 1.5) -> bool:
        """Adds a tree of random size if there is room."""
        if self._blocked_at(*center):
            return False
        radius = max(5.0, self.rng.uniform(5.5, 9) * self.scale)
        outline = paint.rectangle(center, 1.8 * radius, 1.8 * radius, 0)
        clear = paint.rectangle(center, 1.8 * radius + 2 * gap, 1.8 * radius + 2 * gap, 0)
        return _inside(outline, 1) and self.place(Tree(center, radius, self.seed()), outline, clear)

    def vehicle(self, center: tuple[float, float], angle: float) -> bool:
        """Adds a car, on ground taken or not, unless another car is in the way."""
        length = max(10.0, self.rng.uniform(10, 12.5) * self.scale)
        cars = [thing for thing in self.things if isinstance(thing, Vehicle)]
        if any(math.dist(car.center, center) < 1.1 * length for car in cars):
            return False
        if not _inside(paint.rectangle(center, length, length, 0), 2):
            return False
        self.things.append(Vehicle(center, angle, length, self.seed()))
        return True

    def pond(self, center: tuple[float, float], radius: float, gap: float = 6.0) -> bool:
        """Adds a pond if there is room."""
        outline = blob(self.rng, center, radius, 0.22)
        return self.place(Area("water", outline, "water", self.seed()), outline, grown(outline, gap))

    def parking(self, center: tuple[float, float], length: float, width: float, angle: float, cars: int) -> bool:
        """Adds a car park with rows of cars if there is room."""
        outline = paint.rectangle(center, length, width, angle)
        cover: paint.Cover = "asphalt" if self.rng.random() < 0.5 else "concrete"
        if not self.place(Area("parking lot", outline, cover, self.seed()), outline, grown(outline, 4)):
            return False
        along, across = axes(angle)
        bays = [
            (u, v)
            for v in np.arange(-width / 2 + 9, width / 2 - 8, 19)
            for u in np.arange(-length / 2 + 6, length / 2 - 5, 8)
        ]
        for index in self.rng.permutation(len(bays))[:cars]:
            u, v = bays[index]
            spot = np.asarray(center) + along * u + across * v
            self.vehicle((spot[0], spot[1]), angle + math.pi / 2)
        return True

    def scene(self) -> Scene:
        """The scene laid out so far."""
        grounds: tuple[paint.Cover, ...] = (
            ("grass", "grass", "grass", "soil") if self.layout == "rural" else ("grass", "grass", "soil", "concrete")
        )
        ground = grounds[self.rng.integers(len(grounds))]
        return Scene(self.layout, ground, self.seed(), tuple(self.things))


def blob(rng: np.random.Generator, center: tuple[float, float], radius: float, wobble: float) -> Outline:
    """A smooth closed outline `[28, 2]` around a point; `wobble` is how far it strays from a circle, as a share."""
    bearing = np.linspace(0, 2 * math.pi, 28, endpoint=False)
    reach = np.full(28, 1.0)
    for waves in (2, 3, 5):
        reach += wobble * rng.uniform(0.2, 1) / math.sqrt(waves) * np.sin(waves * bearing + rng.uniform(0, 6.3))
    outline: Outline = np.stack([np.cos(bearing), np.sin(bearing)], axis=1) * (radius * reach)[:, None] + center
    return outline


def straight(angle: float, offset: float, bend: float = 0.0, phase: float = 0.0) -> Outline:
    """A path `[n, 2]` through the whole picture along `angle`, `offset` px beside its middle, swaying by `bend` px."""
    along, across = axes(angle)
    steps = np.linspace(-230, 230, 2 if not bend else 24)
    sway = offset + bend * np.sin(steps / 60 + phase)
    path: Outline = SIZE / 2 + steps[:, None] * along + sway[:, None] * across
    return path


def axes(angle: float) -> tuple[Outline, Outline]:
    """Unit vectors along an angle, and across it."""
    return np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])


def _inside(outline: Outline, pad: float) -> bool:
    return bool((outline > pad).all() and (outline < SIZE - pad).all())


def band(path: Outline, width: float) -> Outline:
    """The polygon `[2n, 2]` of a line of some width."""
    heading = np.gradient(path, axis=0)
    heading /= np.hypot(heading[:, :1], heading[:, 1:])
    side = np.stack([-heading[:, 1], heading[:, 0]], axis=1) * width / 2
    return np.concatenate([path + side, (path - side)[::-1]])


def _samples(corners: Outline) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the map of taken land, at most 4 px apart, over a parallelogram."""
    origin, along, across = corners[0] + _EDGE, corners[1] - corners[0], corners[3] - corners[0]
    u = np.linspace(0, 1, 2 + int(max(abs(along)) / 3))[:, None]
    v = np.linspace(0, 1, 2 + int(max(abs(across)) / 3))
    rows, columns = (origin[axis] + u * along[axis] + v * across[axis] for axis in (1, 0))
    return rows.astype(np.intp), columns.astype(np.intp)


def _footprint(outline: Outline) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """Which pixels of the map of taken land a polygon covers."""
    points = outline + _EDGE
    side = SIZE + 2 * _EDGE
    left, top = (min(side, max(0, math.floor(value))) for value in points.min(axis=0).tolist())
    right, bottom = (max(0, min(side, math.ceil(value))) for value in points.max(axis=0).tolist())
    width, height = max(0, right - left), max(0, bottom - top)
    box = (slice(top, top + height), slice(left, left + width))
    if not width or not height:
        return box, np.zeros((height, width), np.bool_)
    sheet = Image.new("L", (width, height))
    ImageDraw.Draw(sheet).polygon((points - (left, top)).ravel().tolist(), fill=1)
    return box, np.frombuffer(sheet.tobytes(), np.bool_).reshape(height, width)
