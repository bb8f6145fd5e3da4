"""Adds objects to a scene one at a time, without overlaps between objects that must be distinguishable."""

from __future__ import annotations

import cmath
import math
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from unirs_tasks.synth import paint, raster
from unirs_tasks.synth.scene import SIZE, Area, Building, Layout, Outline, Road, Scene, Thing, Tree, Vehicle, grown

_EDGE = 24  # width in pixels of the border around the image that the occupancy map covers
_SIDE = SIZE + 2 * _EDGE

# What smooth outlines are made of: points on a circle, and the numbers of the waves on it.
_BEARINGS = np.linspace(0, 2 * math.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_BEARINGS), np.sin(_BEARINGS)], axis=1)
_WAVES = np.array([[2], [3], [5]])


class Composer:
    """Lays out a scene and tracks the occupied land.

    Args:
        rng: source of randomness.
        layout: countryside or town.

    Attributes:
        things: the objects added so far.
        angle: main direction of streets and fields, in radians.
        scale: size factor of houses, trees and cars.
    """

    def __init__(self, rng: np.random.Generator, layout: Layout) -> None:
        self.rng = rng
        self.layout: Layout = layout
        self.things: list[Thing] = []
        self.angle = float(rng.uniform(-0.6, 0.6))
        self.scale = float(rng.uniform(0.85, 1.25))
        self._occupied = Image.new("L", (_SIDE, _SIDE))
        self._occupied_draw = ImageDraw.Draw(self._occupied)
        self._occupied_pixels: Any = self._occupied.load()

    def new_seed(self) -> int:
        """Draws a seed for an object's appearance."""
        return int(self.rng.integers(2**31))

    def occupy(self, outline: Outline) -> None:
        """Marks a polygon as occupied."""
        self._occupied_draw.polygon(_to_map(outline), fill=255)

    def is_free(self, outline: Outline) -> bool:
        """Returns whether a polygon is partly on the map and unoccupied."""
        # Most attempts fail at a corner, which is much cheaper to test than the whole polygon.
        if any(self._is_occupied(x, y) for x, y in outline.tolist()):
            return False
        strip = Image.new("L", self._occupied.size)
        ImageDraw.Draw(strip).polygon(_to_map(outline), fill=255)
        return strip.getbbox() is not None and not self._overlaps(strip)

    def _overlaps(self, strip: Image.Image) -> bool:
        """Returns whether a mask overlaps occupied land."""
        box = strip.getbbox()
        if box is None:
            return False
        return ImageChops.multiply(strip.crop(box), self._occupied.crop(box)).getbbox() is not None

    def _is_occupied(self, x: float, y: float) -> bool:
        row, column = int(y) + _EDGE, int(x) + _EDGE
        return 0 <= row < _SIDE and 0 <= column < _SIDE and self._occupied_pixels[column, row] != 0

    def _rectangle_is_free(self, center: complex, length: float, width: float, angle: float) -> bool:
        """Returns whether a rectangle on the map is unoccupied; much faster than `is_free`."""
        along, across = cmath.rect(length, angle), cmath.rect(width, angle + math.pi / 2)
        # Points at most 5 px apart; the corners and the rim, where most attempts fail, come first.
        columns, rows = _steps(2 + int(length / 5)), _steps(2 + int(width / 5))
        occupied, middle = self._occupied_pixels, center + complex(_EDGE, _EDGE)
        starts = [middle + v * across for v in rows]
        for u in columns:
            step = u * along
            for start in starts:
                point = start + step
                if occupied[point.real, point.imag]:
                    return False
        return True

    def add(self, thing: Building | Tree | Area, outline: Outline, clear: Outline) -> bool:
        """Adds an object if `clear`, its outline grown by a gap, is free; returns whether it was added."""
        if not self.is_free(clear):
            return False
        self.occupy(outline)
        self.things.append(thing)
        return True

    def add_road(self, path: Outline, width: float) -> bool:
        """Adds a road if its path is free or crosses only roads; returns whether it was added."""
        strip = band(path, width + 4)
        sheet = Image.new("L", self._occupied.size)
        pen = ImageDraw.Draw(sheet)
        pen.polygon(_to_map(strip), fill=255)
        for road in self.things:
            if isinstance(road, Road):
                pen.polygon(_to_map(band(road.path, road.width + 8)), fill=0)
        if self._overlaps(sheet):
            return False
        self.occupy(strip)
        self.things.append(Road(path, width))
        return True

    def add_house(self, center: tuple[float, float], angle: float, gap: float = 4.0) -> bool:
        """Adds a house of random size if the land is free; returns whether it was added."""
        if self._is_occupied(*center):
            return False
        length, width = self.rng.uniform(18, 25) * self.scale, self.rng.uniform(14.5, 19) * self.scale
        return self._add_building(center, max(length, 15.0), max(width, 13.0), angle, gap)

    def add_large_building(self, center: tuple[float, float], angle: float, gap: float = 6.0) -> bool:
        """Adds a large building of random size if the land is free; returns whether it was added."""
        # At least two and a half times as large as the largest house.
        length = max(52.0, self.rng.uniform(54, 78) * self.scale)
        return self._add_building(center, length, max(38.0, self.rng.uniform(38, 48) * self.scale), angle, gap)

    def _add_building(self, center: tuple[float, float], length: float, width: float, angle: float, gap: float) -> bool:
        x, y = center
        cos, sin = abs(math.cos(angle)) / 2, abs(math.sin(angle)) / 2
        if not _is_inside(x, length * cos + width * sin, 3) or not _is_inside(y, length * sin + width * cos, 3):
            return False
        if self._is_occupied(x, y) or not self._rectangle_is_free(
            complex(x, y), length + 2 * gap, width + 2 * gap, angle
        ):
            return False
        building = Building(center, length, width, angle, self.new_seed())
        self.occupy(building.outline)
        self.things.append(building)
        return True

    def add_tree(self, center: tuple[float, float], gap: float = 1.5) -> bool:
        """Adds a tree of random size if the land is free; returns whether it was added."""
        x, y = center
        if self._is_occupied(x, y):
            return False
        radius = max(8.0, self.rng.uniform(8.0, 12.0) * self.scale)
        side = 1.8 * radius
        if not (
            _is_inside(x, side / 2, 1)
            and _is_inside(y, side / 2, 1)
            and self._rectangle_is_free(complex(x, y), side + 2 * gap, side + 2 * gap, 0)
        ):
            return False
        self.occupy(paint.rectangle(center, side, side, 0))
        self.things.append(Tree(center, radius, self.new_seed()))
        return True

    def add_vehicle(self, center: tuple[float, float], angle: float, gap: float = 1.15) -> bool:
        """Adds a car on any land, unless another car is closer than `gap` lengths; returns whether it was added."""
        length = self.rng.uniform(16, 18.5)
        if any(isinstance(car, Vehicle) and math.dist(car.center, center) < gap * length for car in self.things):
            return False
        if not (_is_inside(center[0], length / 2, 2) and _is_inside(center[1], length / 2, 2)):
            return False
        self.things.append(Vehicle(center, angle, length, self.new_seed()))
        return True

    def add_pond(self, center: tuple[float, float], radius: float, gap: float = 6.0) -> bool:
        """Adds a pond if the land is free; returns whether it was added."""
        outline = blob(self.rng, center, radius, 0.22)
        return self.add(Area("water", outline, "water", self.new_seed()), outline, grown(outline, gap))

    def add_parking(self, center: tuple[float, float], length: float, width: float, angle: float, cars: int) -> bool:
        """Adds a car park with rows of cars if the land is free; returns whether it was added."""
        outline = paint.rectangle(center, length, width, angle)
        cover: paint.Cover = "asphalt" if self.rng.random() < 0.5 else "concrete"
        if not self.add(Area("parking lot", outline, cover, self.new_seed()), outline, grown(outline, 4)):
            return False
        along, across = axes(angle)
        bays = [
            (u, v)
            for v in np.arange(-width / 2 + 11, width / 2 - 10, 23)
            for u in np.arange(-length / 2 + 8, length / 2 - 7, 13)
        ]
        for index in self.rng.permutation(len(bays))[:cars]:
            u, v = bays[index]
            spot = np.asarray(center) + along * u + across * v
            self.add_vehicle((spot[0], spot[1]), angle + math.pi / 2, gap=0.5)
        return True

    def scene(self) -> Scene:
        """Returns the scene laid out so far."""
        grounds: tuple[paint.Cover, ...] = (
            ("grass", "grass", "grass", "soil") if self.layout == "rural" else ("grass", "grass", "soil", "concrete")
        )
        ground = grounds[self.rng.integers(len(grounds))]
        return Scene(self.layout, ground, self.new_seed(), tuple(self.things))


def blob(rng: np.random.Generator, center: tuple[float, float], radius: float, wobble: float) -> Outline:
    """A smooth closed outline `[28, 2]` around a point; `wobble` is how far it strays from a circle, as a share."""
    heights = wobble * rng.uniform(0.2, 1, (3, 1)) / np.sqrt(_WAVES)
    reach = 1 + (heights * np.sin(_WAVES * _BEARINGS + rng.uniform(0, 6.3, (3, 1)))).sum(axis=0)
    outline: Outline = _CIRCLE * (radius * reach)[:, None] + center
    return outline


def straight(angle: float, offset: float, bend: float = 0.0, phase: float = 0.0) -> Outline:
    """A path `[n, 2]` through the whole image along `angle`, `offset` px beside its middle, swaying by `bend` px."""
    along, across = axes(angle)
    steps = np.linspace(-230, 230, 2 if not bend else 24)
    sway = offset + bend * np.sin(steps / 60 + phase)
    path: Outline = SIZE / 2 + steps[:, None] * along + sway[:, None] * across
    return path


def axes(angle: float) -> tuple[Outline, Outline]:
    """Unit vectors along an angle, and across it."""
    return np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])


def band(path: Outline, width: float) -> Outline:
    """The polygon `[2n, 2]` of a gently bent line of some width."""
    return np.array([(point.real, point.imag) for point in raster.band(raster.ring(path), width)])


def _to_map(outline: Outline) -> list[float]:
    """The polygon in occupancy map coordinates, as Pillow's flat coordinate list."""
    points: list[float] = (outline + _EDGE).ravel().tolist()
    return points


@cache
def _steps(count: int) -> tuple[float, ...]:
    """Evenly spaced positions in -0.5..0.5, from the ends inwards."""
    return tuple(sorted((index / (count - 1) - 0.5 for index in range(count)), key=lambda step: (-abs(step), step)))


def _is_inside(position: float, reach: float, pad: float) -> bool:
    """Returns whether an object with half-width `reach` lies at least `pad` px inside the image, along one axis."""
    return pad + reach < position < SIZE - pad - reach
