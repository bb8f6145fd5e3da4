"""Random scenes: countryside and towns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unirs_tasks.synth import paint
from unirs_tasks.synth.composer import Composer, axes, band, blob, straight
from unirs_tasks.synth.scene import SIZE, Area, Layout, Road, Scene, Vehicle, grown

_CROPS: tuple[paint.Cover, ...] = ("crop_green", "crop_ripe", "stubble", "ploughed")


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """Target object counts of a scene. The scene gets fewer if the free land runs out.

    Attributes:
        layout: countryside or town.
        houses: small buildings.
        large_buildings: large buildings.
        roads: straight or winding, from edge to edge.
        waters: ponds, or a river and ponds.
        fields: ploughed or grown land with rows.
        forests: closed woodland.
        trees: single trees.
        lots: car parks; they need vehicles.
        vehicles: cars on roads and car parks.
        patches: bare ground of about a roof's size and colour.
    """

    layout: Layout
    houses: int = 0
    large_buildings: int = 0
    roads: int = 0
    waters: int = 0
    fields: int = 0
    forests: int = 0
    trees: int = 0
    lots: int = 0
    vehicles: int = 0
    patches: int = 0


def random_plan(rng: np.random.Generator, layout: Layout) -> ScenePlan:
    """Samples a plan: towns have more cars and large buildings, the countryside more trees and ponds.

    The layout alone implies nothing: each object type can be present or absent in both.
    """

    def some(share: float, low: int, high: int) -> int:
        return int(rng.integers(low, high + 1)) if rng.random() < share else 0

    if layout == "urban":
        large_buildings = some(0.5, 1, 3)
        return ScenePlan(
            layout,
            houses=some(0.85 if large_buildings else 1.0, 9, 40),
            large_buildings=large_buildings,
            roads=some(0.9, 1, 4),
            waters=some(0.25, 1, 2),
            trees=some(0.35, 6, 40),
            lots=some(0.45, 1, 1),
            vehicles=some(0.8, 5, 18),
            patches=some(0.5, 1, 4),
        )
    return ScenePlan(
        layout,
        houses=some(0.5, 2, 7),
        large_buildings=some(0.15, 1, 1),
        roads=some(0.4, 1, 2),
        waters=some(0.65, 1, 3),
        fields=some(0.6, 1, 6),
        forests=some(0.35, 1, 2),
        trees=some(0.75, 6, 40),
        vehicles=some(0.2, 4, 7),
        patches=some(0.5, 1, 4),
    )


def compose(rng: np.random.Generator, plan: ScenePlan) -> Scene:
    """Samples a scene from a plan."""
    composer = Composer(rng, plan.layout)
    populate(composer, plan)
    return composer.scene()


def populate(composer: Composer, plan: ScenePlan) -> None:
    """Adds a plan's objects to a scene, largest land use first."""
    if plan.houses > 24:
        composer.scale = min(composer.scale, 0.92)
    _add_roads(composer, plan)
    _add_waters(composer, plan.waters)
    _add_lots(composer, plan)
    _add_large_buildings(composer, plan.large_buildings)
    if plan.layout == "urban":
        _add_houses(composer, plan.houses, _street_slots(composer))
    else:
        _add_houses(composer, plan.houses, _farm_slots(composer))
    _add_fields(composer, plan.fields)
    _add_forests(composer, plan.forests)
    _add_trees(composer, plan.trees)
    add_vehicles(composer, plan.vehicles)
    _add_patches(composer, plan.patches)


def _spot(rng: np.random.Generator, pad: float) -> tuple[float, float]:
    return pad + rng.random() * (SIZE - 2 * pad), pad + rng.random() * (SIZE - 2 * pad)


def _add_roads(composer: Composer, plan: ScenePlan) -> None:
    rng = composer.rng
    # Wide enough for two cars side by side.
    width = rng.uniform(19, 23)
    if plan.layout == "rural":
        for number in range(plan.roads):
            angle = composer.angle + (math.pi / 2 if number else 0)
            for _ in range(4):
                path = straight(angle, rng.uniform(-70, 70), rng.uniform(3, 14), rng.uniform(0, 6))
                if composer.add_road(path, width):
                    break
        return
    streets = (plan.roads + int(rng.integers(2))) // 2 if plan.roads > 1 else plan.roads
    spacing = rng.uniform(76, 100)
    for count, angle in ((streets, composer.angle), (plan.roads - streets, composer.angle + math.pi / 2)):
        shift = rng.uniform(-18, 18) if count > 1 else rng.uniform(-60, 60)
        for number in range(count):
            composer.add_road(straight(angle, (number - (count - 1) / 2) * spacing + shift), width)


def _add_waters(composer: Composer, count: int) -> None:
    rng = composer.rng
    placed = 0
    if count and rng.random() < 0.3:
        width = rng.uniform(18, 32)
        path = straight(rng.uniform(0, math.pi), rng.uniform(-70, 70), rng.uniform(8, 22), rng.uniform(0, 6))
        strip = band(path, width)
        placed += composer.add(Area("water", strip, "water", composer.new_seed()), strip, band(path, width + 8))
    for _ in range(30):
        if placed >= count:
            return
        placed += composer.add_pond(_spot(rng, 24), rng.uniform(15, 40))


def _add_lots(composer: Composer, plan: ScenePlan) -> None:
    rng = composer.rng
    for _ in range(plan.lots):
        for _ in range(12):
            length, width = rng.uniform(66, 96), rng.uniform(46, 66)
            angle = composer.angle + (math.pi / 2 if rng.random() < 0.5 else 0)
            cars = max(plan.vehicles - 2, 3)
            if composer.add_parking(_spot(rng, 45), length, width, angle, cars) or not plan.vehicles:
                break


def _add_large_buildings(composer: Composer, count: int) -> None:
    placed = 0
    for _ in range(25 * bool(count)):
        turned = math.pi / 2 if composer.rng.random() < 0.5 else 0.0
        placed += composer.add_large_building(_spot(composer.rng, 30), composer.angle + turned)
        if placed == count:
            return


Slot = tuple[tuple[float, float], float]


def _add_houses(composer: Composer, count: int, slots: Iterator[Slot]) -> None:
    """Builds houses on slots until there are enough."""
    placed = 0
    for center, angle in slots:
        if placed >= count:
            return
        placed += composer.add_house(center, angle, 3.0)


def _street_slots(composer: Composer) -> Iterator[Slot]:
    """Rows along the roads, then rows over all the land."""
    rng, scale = composer.rng, composer.scale
    slots: list[Slot] = []
    for road in [thing for thing in composer.things if isinstance(thing, Road)]:
        heading = road.path[-1] - road.path[0]
        angle = math.atan2(heading[1], heading[0])
        along, across = axes(angle)
        middle = (road.path[0] + road.path[-1]) / 2
        setback = road.width / 2 + rng.uniform(14, 18) * scale
        for side in (-setback, setback):
            steps = np.arange(-170, 170, rng.uniform(27, 34) * scale)
            u = steps + rng.uniform(-2, 2, len(steps))
            v = side + rng.uniform(-1.5, 1.5, len(steps))
            spots = middle + along * u[:, None] + across * v[:, None]
            turns = angle + rng.normal(0, 0.03, len(steps))
            slots += [((x, y), turn) for (x, y), turn in zip(spots.tolist(), turns.tolist(), strict=True)]
    rng.shuffle(slots)
    yield from slots
    along, across = axes(composer.angle)
    pitch = rng.uniform(27, 33) * scale
    steps = np.arange(-180, 180, pitch)
    spots = SIZE / 2 + (along * steps[:, None, None] + across * steps[None, :, None]).reshape(-1, 2)
    turns = composer.angle + rng.normal(0, 0.04, len(spots))
    order = rng.permutation(len(spots))
    for (x, y), turn in zip(spots[order].tolist(), turns.tolist(), strict=True):
        if 0 < x < SIZE and 0 < y < SIZE:
            yield (x, y), turn


def _farm_slots(composer: Composer) -> Iterator[Slot]:
    """Around a farmyard or two."""
    rng = composer.rng
    yards = [_spot(rng, 50) for _ in range(rng.integers(1, 3))]
    for attempt in range(60):
        yard = yards[attempt % len(yards)]
        x, y = (np.asarray(yard) + rng.normal(0, 26 + attempt / 2, 2)).tolist()
        yield (x, y), composer.angle + math.pi / 2 * rng.integers(2) + rng.normal(0, 0.12)


def _add_fields(composer: Composer, count: int) -> None:
    """Picks cells of a turned grid; a cell may be cut by a road or a pond at its rim, but not through its middle."""
    rng = composer.rng
    along, across = axes(composer.angle)
    length, width = rng.uniform(80, 130), rng.uniform(60, 90)
    start = rng.uniform(-30, 30, 2)
    cells = [(u, v) for u in np.arange(-260, 260, length) for v in np.arange(-260, 260, width)]
    placed = 0
    for index in rng.permutation(len(cells)):
        if placed == count:
            return
        u, v = cells[index] + start
        spot = SIZE / 2 + along * u + across * v
        outline = paint.rectangle((spot[0], spot[1]), length - 7, width - 7, composer.angle)
        if not -10 < min(spot) <= max(spot) < SIZE + 10 or not composer.is_free(outline):
            continue
        composer.occupy(outline)
        crop = _CROPS[rng.integers(len(_CROPS))]
        composer.things.append(Area("field", outline + rng.uniform(-2, 2, (4, 2)), crop, composer.new_seed()))
        placed += 1


def _add_forests(composer: Composer, count: int) -> None:
    placed = 0
    for _ in range(25 * bool(count)):
        outline = blob(composer.rng, _spot(composer.rng, 20), composer.rng.uniform(28, 62), 0.35)
        placed += composer.add(Area("forest", outline, "forest", composer.new_seed()), outline, grown(outline, 5))
        if placed == count:
            return


def _add_trees(composer: Composer, count: int) -> None:
    """Adds single trees; in half of the scenes some form a row."""
    rng = composer.rng
    placed = 0
    if count > 5 and rng.random() < 0.5:
        along, across = axes(composer.angle + math.pi / 2 * rng.integers(2))
        start = SIZE / 2 + across * rng.uniform(-100, 100)
        for step in np.arange(-120, 120, 19 * composer.scale)[: count // 2]:
            x, y = (start + along * step + rng.normal(0, 1, 2)).tolist()
            placed += composer.add_tree((x, y))
    for _ in range(4 * count):
        if placed >= count:
            return
        placed += composer.add_tree(_spot(rng, 8))


def add_vehicles(composer: Composer, count: int) -> None:
    """Adds cars until there are `count`: on the roads, each in its lane, or on free land where there is no road."""
    rng = composer.rng
    placed = sum(isinstance(thing, Vehicle) for thing in composer.things)
    roads = [thing for thing in composer.things if isinstance(thing, Road)]
    for _ in range(5 * count):
        if placed >= count:
            return
        if roads:
            placed += composer.add_vehicle(*_lane_position(rng, roads[rng.integers(len(roads))]))
            continue
        x, y = _spot(rng, 13)
        if composer.is_free(paint.rectangle((x, y), 21, 21, 0)):
            placed += composer.add_vehicle((x, y), rng.uniform(0, math.pi))
            composer.occupy(paint.rectangle((x, y), 21, 21, 0))


def _lane_position(rng: np.random.Generator, road: Road) -> Slot:
    """A random place on a road, right of its middle line."""
    at = rng.uniform(0.1, 0.9) * (len(road.path) - 1)
    first = min(int(at), len(road.path) - 2)
    heading = road.path[first + 1] - road.path[first]
    angle = math.atan2(heading[1], heading[0])
    side = 1 if rng.random() < 0.5 else -1
    spot = road.path[first] + (at - first) * heading + side * road.width * 0.24 * axes(angle)[1]
    return (spot[0], spot[1]), angle + (math.pi if side < 0 else 0)


def _add_patches(composer: Composer, count: int) -> None:
    """Bare ground of about a roof's size and colour, without a roof's edges and shadow."""
    rng = composer.rng
    covers: tuple[paint.Cover, ...] = ("soil", "concrete", "sand", "mud")
    for _ in range(count):
        outline = blob(rng, _spot(rng, 10), rng.uniform(8, 20), 0.4)
        composer.add(
            Area("patch", outline, covers[rng.integers(len(covers))], composer.new_seed()), outline, grown(outline, 2)
        )
