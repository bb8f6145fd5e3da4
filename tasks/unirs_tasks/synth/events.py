"""Scene factories of the synthetic clips, one per class of ERA.

Some classes form twins: one factory whose clock runs in one class and is frozen at a random time in the other. Single
frames of twins have the same distribution, so only the temporal order distinguishes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from unirs_tasks.synth import paint
from unirs_tasks.synth.props import (
    MIDDLE,
    REACH,
    ClipContext,
    Curve,
    boat,
    cloud,
    crane,
    equalized,
    machine,
    person,
    plume,
    swimmer,
)
from unirs_tasks.synth.video import FRAMES, SIZE, WORLD, Floats, Layer, MovingSprites, Scene, Transition

Event = Callable[[np.random.Generator], Scene]
Integers = npt.NDArray[np.int64]

RUNNING = np.linspace(0, 1, FRAMES, dtype=np.float32)
LANE = 13.0


def _clock(rng: np.random.Generator, runs: bool) -> Floats:
    """Event time `[T]`: eases in and out from 0 to 1, or is constant."""
    time = RUNNING if runs else np.full(FRAMES, rng.choice(RUNNING))
    return time * time * (3 - 2 * time)


def _column(rng: np.random.Generator, clock: Floats, lanes: int, gap: float) -> tuple[Floats, Integers]:
    """A column of objects whose head enters the frame and advances by more than half of it.

    Returns:
        Position of each member along the curve, `[T, N]` px, and its lane, `[N]`.
    """
    head, travel = rng.uniform(-0.5, -0.1) * SIZE, rng.uniform(0.7, 0.8) * SIZE
    lane, position = np.meshgrid(np.arange(lanes), np.arange(0, 1.4 * SIZE, gap), indexing="ij")
    start = head - position + rng.uniform(0, 0.6 * gap, position.shape) - rng.uniform(0, gap, (lanes, 1))
    pace = np.broadcast_to(rng.uniform(0.9, 1.1, (lanes, 1)) * travel, position.shape)
    present = rng.random(position.shape) < 0.9
    return (start[present] + pace[present] * clock[:, None]).astype(np.float32), lane[present]


def _off_axis(index: Integers, count: int, width: float) -> npt.NDArray[np.floating]:
    """Distance of lane `index` of `count` lanes from the axis, px."""
    return (index - (count - 1) / 2) * width


def _traffic(runs: bool, rng: np.random.Generator) -> Scene:
    """Dense cars on a wide road: racing, or in a jam."""
    clip, curve, clock = ClipContext.sample(rng), Curve.sample(rng), _clock(rng, runs)
    lanes = int(rng.integers(6, 9))
    edge = (lanes * LANE + 6) / 2
    canvas = clip.cover("grass", "soil", "concrete", "sand")
    paint.road(canvas, rng, curve.line(), 2 * edge)
    for side in (-1, 1):
        plots = np.arange(-REACH, REACH, 42) + rng.uniform(-12, 12)
        for position in curve.at(plots, side * (edge + rng.uniform(24, 34))):
            if rng.random() < 0.5:
                clip.building([canvas], position, rng.uniform(24, 34), rng.uniform(18, 26), curve.heading)
        clip.trees([canvas], curve.at(plots + 20, side * (edge + 12)))
    along, lane = _column(rng, clock, lanes, 25.0)
    if not runs:
        along = along + 3 * RUNNING[:, None]  # a jam crawls
    cars = [
        clip.sprite(lambda canvas, rng: paint.vehicle(canvas, rng, (18, 18), curve.heading, 18, clip.sun), 36)
        for _ in range(7)
    ]
    # Sprites turned in steps of 4 degrees follow the curve.
    step, steps = 0.07, 5
    turns = np.rint(curve.curvature * along / step).astype(np.int64).clip(-steps, steps)
    turned = [car.turned(turn * step) for car in cars for turn in range(-steps, steps + 1)]
    sprite_index = rng.integers(len(cars), size=lane.size) * (2 * steps + 1) + turns + steps
    return Scene(
        clip.capture(canvas), [MovingSprites(turned, sprite_index, curve.at(along, _off_axis(lane, lanes, LANE)))]
    )


def _crowd(runs: bool, rng: np.random.Generator) -> Scene:
    """A crowd in a wide street, with a platform beside it: marching, or listening."""
    clip, curve, clock = ClipContext.sample(rng), Curve.sample(rng), _clock(rng, runs)
    lanes, lane_width = int(rng.integers(12, 16)), 6.5
    edge = (lanes * lane_width + 14) / 2
    canvas = clip.cover("concrete", "grass", "sand")
    paint.road(canvas, rng, curve.line(), 2 * edge)
    platform = float(rng.choice([-1, 1]))
    for side in (-1, 1):
        plots = np.arange(-REACH, REACH, 48) + rng.uniform(-12, 12)
        for offset, position in zip(plots, curve.at(plots, side * (edge + 30)), strict=True):
            if side != platform or abs(offset) > 52:
                clip.building([canvas], position, rng.uniform(34, 44), rng.uniform(28, 36), curve.heading)
        clip.trees([canvas], curve.at(plots[::2] + 24, side * (edge + 8)))
    for length, width, tone in ((48, 28, rng.uniform(0.1, 0.25)), (42, 20, rng.uniform(0.7, 0.9))):
        corners = curve.box(0, length, platform * (edge + 18), width)
        paint.blend(canvas, paint.polygon_mask(corners, WORLD, WORLD), (tone, tone, tone * rng.uniform(0.8, 1.1)))
    along, lane = _column(rng, clock, lanes, 9.5)
    sway = np.cumsum(rng.normal(0, 0.5, (2, FRAMES, lane.size)), axis=1).clip(-2.5, 2.5)
    aside = _off_axis(lane, lanes, lane_width) + sway[1] + rng.uniform(-2, 2, lane.size)
    clothes = rng.uniform((0.6, 0.1, 0.05), (1, 0.9, 0.5), (10, 3)).astype(np.float32)
    people = [person(clip, colour, 2.6) for colour in clothes]
    sprite_index = np.broadcast_to(rng.integers(len(people), size=lane.size), along.shape)
    return Scene(clip.capture(canvas), [MovingSprites(people, sprite_index, curve.at(along + sway[0], aside))])


def _river(runs: bool, rng: np.random.Generator) -> Scene:
    """Farmland along a river: the water rises, or stands."""
    clip, curve, clock = ClipContext.sample(rng), Curve.sample(rng), _clock(rng, runs)
    land, water = clip.land(["crop_ripe", "stubble", "soil", "grass"]), clip.cover("water")
    paint.blend(water, np.full((WORLD, WORLD), 0.3, np.float32), clip.cover("mud"))
    _, aside = curve.grid()
    arrival = equalized(np.abs(aside) / WORLD + 0.45 * clip.noise(110))
    positions = rng.uniform(10, WORLD - 10, (16, 2)).astype(np.float32)
    for position in positions[:6]:
        clip.building([land, water], position, rng.uniform(22, 32), rng.uniform(16, 22), rng.uniform(0, np.pi))
    clip.trees([land, water], positions[6:])
    progress = (rng.uniform(0.03, 0.48) + rng.uniform(0.42, 0.5) * clock).astype(np.float32)
    return Scene(clip.capture(land), [Transition(clip.capture(water), arrival, progress)])


def _quarter(ruins: bool, rng: np.random.Generator) -> Scene:
    """A quarter whose lots are built up one after the other; or, in ruins, houses left standing between rubble."""
    clip, clock = ClipContext.sample(rng), _clock(rng, not ruins)
    curve, pitch, lots = Curve(rng.uniform(0, 2 * np.pi)), rng.uniform(54, 64), 7
    bare = clip.cover("soil", "sand")
    for line in (np.arange(lots + 1) - lots / 2) * pitch:
        ends = np.array([-REACH, REACH])
        for points in (curve.at(ends, line), curve.at(np.full(2, line), ends)):
            paint.blend(bare, paint.stroke_mask(points, 8, WORLD, WORLD), (0.42, 0.42, 0.42))
    if ruins:
        paint.blend(bare, np.clip(clip.noise(50) * 4 - 0.8, 0, 1), clip.cover("rubble"))
    built = bare.copy()
    for lot in np.ndindex(lots, lots):
        position = curve.at(*((index - (lots - 1) / 2) * pitch for index in lot))
        if (np.abs(position - MIDDLE) < MIDDLE + 20).all():
            length, width = (pitch - rng.uniform(12, 20, 2)).tolist()
            clip.building([built], position, length, width, curve.heading)
    u, v = (each / np.float32(pitch) + np.float32(lots / 2) for each in curve.grid())
    column, row = (each.astype(np.int64).clip(0, lots - 1) for each in (u, v))
    # A building grows from one end to the other while its turn lasts.
    order = rng.permutation(lots * lots)[column * lots + row]
    arrival = equalized((order + u - column).astype(np.float32))
    progress = (rng.uniform(0.02, 0.15) + rng.uniform(0.65, 0.8) * clock).astype(np.float32)
    layers: list[Layer] = [Transition(clip.capture(built), arrival, progress)]
    if not ruins:
        layers.append(crane(clip, clock))
    return Scene(clip.capture(bare), layers)


def _field(before: paint.Cover, after: paint.Cover, colour: paint.Colour, rng: np.random.Generator) -> Scene:
    """Machines side by side work their way over a field."""
    clip = ClipContext.sample(rng)
    curve = Curve(rng.uniform(0, 2 * np.pi), 0, rng.uniform(-25, 25))
    along, aside = curve.grid()
    machines, swath = int(rng.integers(3, 5)), rng.uniform(26, 32)
    start, travel = rng.uniform(-0.5, -0.35) * SIZE, rng.uniform(0.75, 0.95) * SIZE
    canvas, done = clip.cover(before), clip.cover(after)
    # The machines leave rows behind.
    done *= (1 + 0.07 * np.sin(aside * np.float32(8 * np.pi / swath)))[..., None]
    lane = np.floor(aside / np.float32(swath) + machines / 2)
    lag = 22 * rng.permutation(machines).astype(np.float32)
    arrival = (along - start + lag[lane.clip(0, machines - 1).astype(np.int64)]) / travel
    arrival = np.where(lane < 0, -1, np.where(lane < machines, arrival, 9)).astype(np.float32)
    front = start - lag + travel * RUNNING[:, None] - 14
    xy = curve.at(front, _off_axis(np.arange(machines), machines, swath))
    team = MovingSprites(
        [machine(clip, colour, swath).turned(curve.heading)], np.zeros((FRAMES, machines), np.int64), xy
    )
    return Scene(clip.capture(canvas), [Transition(clip.capture(done), arrival, RUNNING), team])


def _fire(rng: np.random.Generator) -> Scene:
    """Fire spreads over woods and fields, under a growing plume of smoke."""
    clip, wind = ClipContext.sample(rng), Curve.sample(rng)
    land, burnt = clip.land(["forest", "grass", "crop_ripe"]), clip.cover("burnt")
    along, aside = wind.grid()
    source = rng.uniform(-0.4, -0.15) * SIZE
    arrival = equalized(np.hypot(along - np.float32(source), aside) / WORLD + 0.35 * clip.noise(50))
    progress = (rng.uniform(0.03, 0.08) + rng.uniform(0.28, 0.4) * RUNNING).astype(np.float32)
    # Flames stand where the front passes, and burn for a while.
    spots = rng.integers(0, WORLD, (900, 2))
    late = progress[:, None] - arrival[spots[:, 1], spots[:, 0]]
    flames = [cloud(clip, rng.uniform(4, 7), (1, rng.uniform(0.4, 0.75), 0.1), 1.0) for _ in range(4)]
    burning = np.where((late > -0.005) & (late < 0.045), rng.integers(len(flames), size=late.shape), -1)
    layers: list[Layer] = [
        Transition(clip.capture(burnt), arrival, progress),
        MovingSprites(flames, burning, np.broadcast_to(spots, (*late.shape, 2)).astype(np.float32)),
        plume(clip, wind, source, RUNNING),
    ]
    return Scene(clip.capture(land), layers)


def _boating(rng: np.random.Generator) -> Scene:
    """Boats with wakes cross open water off a shore."""
    clip, shore = ClipContext.sample(rng), Curve.sample(rng)
    canvas = clip.cover("water")
    _, aside = shore.grid()
    edge = aside - rng.uniform(60, 120) + 30 * clip.noise(60)
    paint.blend(canvas, np.clip(edge / 2, 0, 1), clip.cover("sand"))
    paint.blend(canvas, np.clip(edge / 4 - 3, 0, 1), clip.cover("grass", "forest"))
    boats = int(rng.integers(2, 5))
    way = rng.choice([-1, 1], boats)
    hulls = [boat(clip).turned(shore.heading + (0 if sign > 0 else np.pi)) for sign in way.tolist()]
    travel = rng.uniform(0.5, 0.9, boats) * SIZE
    along = way * (rng.uniform(-0.3, 0.1, boats) * SIZE + travel * (RUNNING[:, None] - 0.25))
    lane = 30 - (np.arange(boats) + rng.uniform(0.2, 0.8, boats)) * 130 / boats
    sprite_index = np.broadcast_to(np.arange(boats), (FRAMES, boats))
    return Scene(clip.capture(canvas), [MovingSprites(hulls, sprite_index, shore.at(along, lane))])


def _soccer(rng: np.random.Generator) -> Scene:
    """Two teams run over a marked pitch."""
    clip = ClipContext.sample(rng)
    pitch = Curve(rng.uniform(0, 2 * np.pi), 0, rng.uniform(-8, 8))
    canvas = clip.cover("soil", "concrete", "grass")
    along, aside = pitch.grid()
    length, width = rng.uniform(88, 98), rng.uniform(58, 66)  # half of each
    lawn = paint.texture(rng, "grass", WORLD, WORLD) * (1 + 0.08 * np.sign(np.sin(along * np.float32(0.2))))[..., None]
    paint.blend(canvas, ((np.abs(along) < length + 6) & (np.abs(aside) < width + 6)).astype(np.float32), lawn)
    ring = np.linspace(0, 2 * np.pi, 25)
    lines = [pitch.at(np.zeros(2), np.array([-width, width])), pitch.at(18 * np.cos(ring), 18 * np.sin(ring))]
    for offset, long, wide in ((0, 2 * length, 2 * width), (13 - length, 26, 60), (length - 13, 26, 60)):
        corners = pitch.box(offset, long, 0, wide)
        lines.append(np.concatenate([corners, corners[:1]]))
    for points in lines:
        paint.blend(canvas, paint.stroke_mask(points, 2, WORLD, WORLD), (0.95, 0.95, 0.95))
    colours = np.array([[0.9, 0.1, 0.1], [0.1, 0.2, 0.9], [0.95, 0.9, 0.2], [0.95, 0.95, 0.95], [0.1, 0.1, 0.1]])
    shirts = [person(clip, colour, 2.8) for colour in rng.permutation(colours)[:2].astype(np.float32)]
    # Play shifts to one side, and everyone with it.
    players, time = 20, RUNNING[:, None]
    shift, sway = rng.choice([-1, 1]) * rng.uniform(50, 80), rng.uniform(3, 12, (2, players))
    u = rng.uniform(-0.7, 0.7, players) * length + shift * (time - 0.5) + 10 * np.sin(sway[0] * time)
    v = rng.uniform(-0.85, 0.85, players) * width + 10 * np.cos(sway[1] * time)
    sprite_index = np.broadcast_to(np.arange(players) % 2, (FRAMES, players))
    xy = pitch.at(u.clip(-length, length), v.clip(-width, width))
    return Scene(clip.capture(canvas), [MovingSprites(shirts, sprite_index, xy)])


def _swimming(rng: np.random.Generator) -> Scene:
    """Swimmers in the lanes of a pool."""
    clip = ClipContext.sample(rng)
    pool = Curve(rng.uniform(0, 2 * np.pi), 0, rng.uniform(-12, 12))
    canvas = clip.cover("concrete", "grass", "sand")
    lanes, lane_width, half = int(rng.integers(5, 8)), 18.0, rng.uniform(95, 110)
    tiles, tone = (0.2, rng.uniform(0.65, 0.8), rng.uniform(0.8, 0.95)), rng.uniform(0.7, 0.85)
    for margin, colour in ((20, (tone, tone, tone)), (0, tiles)):
        corners = pool.box(0, 2 * half + margin, 0, lanes * lane_width + margin)
        paint.blend(canvas, paint.polygon_mask(corners, WORLD, WORLD), colour)
    canvas *= (0.94 + 0.12 * clip.noise(12))[..., None]
    for rope in (np.arange(1, lanes) - lanes / 2) * lane_width:
        line = pool.at(np.array([-half, half]), rope)
        paint.blend(canvas, paint.stroke_mask(line, 1.6, WORLD, WORLD), (0.9, 0.25, 0.2))
    strokes = [swimmer(clip).turned(pool.heading) for _ in range(3)]
    way = rng.choice([-1, 1], lanes)
    travel = rng.uniform(0.9, 1.25, lanes) * half
    along = way * (rng.uniform(-0.85, -0.4, lanes) * half + travel * RUNNING[:, None])
    sprite_index = (np.arange(FRAMES)[:, None] // 2 + np.arange(lanes)) % len(strokes)
    xy = pool.at(along, _off_axis(np.arange(lanes), lanes, lane_width))
    return Scene(clip.capture(canvas), [MovingSprites(strokes, sprite_index, xy)])


def _landslide(rng: np.random.Generator) -> Scene:
    """A tongue of soil and boulders slides down a wooded slope towards a road."""
    clip, slope = ClipContext.sample(rng), Curve.sample(rng)
    land, slid = clip.land(["forest", "grass"]), clip.cover("soil")
    valley = Curve(slope.heading + np.pi / 2, 0.001, -rng.uniform(40, 80))
    paint.road(land, rng, valley.line(), 16)
    paint.blend(slid, np.clip(clip.noise(24) * 5 - 2.5, 0, 1), clip.cover("rubble"))
    along, aside = slope.grid()
    half, start, travel = rng.uniform(50, 75), rng.uniform(-0.45, -0.25) * SIZE, rng.uniform(0.65, 0.85) * SIZE
    across = np.abs(aside) / (half + 18 * clip.noise(40))
    arrival = (along - start + 40 * clip.noise(30) - 20) / travel + 0.35 * across**2
    arrival = np.where(across < 1, arrival, 9).astype(np.float32)
    return Scene(clip.capture(land), [Transition(clip.capture(slid), arrival, RUNNING)])


EVENTS: Mapping[str, Event] = {
    "Boating": _boating,
    "Car Racing": partial(_traffic, True),
    "Concert": partial(_crowd, False),
    "Constructing": partial(_quarter, False),
    "Fire": _fire,
    "Flood": partial(_river, True),
    "Harvesting": partial(_field, "crop_ripe", "stubble", (0.85, 0.15, 0.1)),
    "Landslide": _landslide,
    "Non Event": partial(_river, False),
    "Parade Protest": partial(_crowd, True),
    "Ploughing": partial(_field, "grass", "ploughed", (0.15, 0.35, 0.75)),
    "Post Earthquake": partial(_quarter, True),
    "Soccer": _soccer,
    "Swimming": _swimming,
    "Traffic Congestion": partial(_traffic, False),
}
"""The scene factory of each class, by the name of its folder."""

TWINS: Sequence[tuple[str, str]] = (
    ("Car Racing", "Traffic Congestion"),
    ("Parade Protest", "Concert"),
    ("Flood", "Non Event"),
)
"""Pairs of classes with the same frame distribution: the first moves, the second does not."""
