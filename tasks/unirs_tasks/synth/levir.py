"""Synthetic LEVIR-CC: images of one location at two times, with five captions of the changes.

Season, light, haze, noise, a small camera displacement and different cars are not changes. They differ within every
pair, changed or not, so that only buildings, roads, trees, water and land cover carry the label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unirs_tasks.synth.composer import Composer, blob, straight
from unirs_tasks.synth.layout import add_vehicles, populate, random_plan
from unirs_tasks.synth.scene import (
    SIZE,
    Area,
    Building,
    Layout,
    Outline,
    Road,
    Scene,
    Thing,
    Vehicle,
    random_acquisition,
)
from unirs_tasks.synth.sentences import Location, Topic, describe_changes
from unirs_tasks.synth.writing import map_items, new_folder, write_json, write_png

_SENTENCES = 5
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")


@dataclass(frozen=True, eq=False, slots=True)
class Change:
    """Objects that are present at one of the two times only.

    Attributes:
        topic: the type of change that captions name.
        place: where they are.
        before: objects that only the first image shows.
        after: objects that only the second image shows.
    """

    topic: Topic
    location: Location
    before: tuple[Thing, ...]
    after: tuple[Thing, ...]

    @property
    def appears(self) -> bool:
        """Whether objects appeared rather than disappeared."""
        return bool(self.after)


@dataclass(frozen=True, eq=False, slots=True)
class ChangeScenario:
    """One location at two times.

    Attributes:
        before: the scene at the first time.
        after: the scene at the second time.
        changes: the changes; empty for an unchanged pair.
    """

    before: Scene
    after: Scene
    changes: tuple[Change, ...]


def write(root: Path, size: int, seed: int) -> None:
    """Writes a data set in LEVIR-CC's format: `LevirCCcaptions.json`, `images/{train,val,test}/{A,B}/*.png`.

    Args:
        root: a folder that does not exist or is empty.
        size: training pairs; validation has a tenth and at least 8, test a fifth and at least 8. Half are changed.
        seed: the same seed gives the same bytes.

    Raises:
        DataError: `root` is not empty.
    """
    with new_folder(root) as folder:
        items: list[tuple[str, str, bool]] = []
        for split, count in (("train", size), ("val", max(8, size // 10)), ("test", max(8, size // 5))):
            for time in "AB":
                (folder / "images" / split / time).mkdir(parents=True)
            items += [(split, f"{split}_{index + 1:06}.png", index % 2 == 0) for index in range(count)]
        sentences = map_items(partial(_draw, folder / "images"), items, seed=seed, description="levir_cc pairs")
        rows = [_row(number, *item, texts) for number, (item, texts) in enumerate(zip(items, sentences, strict=True))]
        write_json(folder / "LevirCCcaptions.json", {"images": rows})


def sample_scenario(rng: np.random.Generator, changed: bool) -> ChangeScenario:
    """Samples a scene at two times.

    Args:
        rng: source of randomness.
        changed: whether the pair contains changes. In an unchanged pair the candidates are present at both times
            or at neither, so that a single image does not reveal the label.
    """
    layout: Layout = "urban" if rng.random() < 0.4 else "rural"
    composer = Composer(rng, layout)
    changes = _plan_changes(composer)
    plan = replace(random_plan(rng, layout), lots=0, vehicles=0)
    populate(composer, replace(plan, houses=min(plan.houses, 22), trees=min(plan.trees, 24)))
    base = composer.scene()
    if not changed and rng.random() < 0.5:
        changes = [replace(change, before=change.after, after=change.before) for change in changes]
    first = [thing for change in changes for thing in change.before]
    later = [thing for change in changes for thing in change.after] if changed else first
    return ChangeScenario(
        _with_cars(composer, base.added(first)),
        _with_cars(composer, base.added(later)),
        tuple(changes) if changed else (),
    )


def _draw(folder: Path, item: tuple[str, str, bool], rng: np.random.Generator) -> list[str]:
    split, name, changed = item
    scenario = sample_scenario(rng, changed)
    for time, scene in (("A", scenario.before), ("B", scenario.after)):
        write_png(folder / split / time / name, scene.render(random_acquisition(rng, moved=True)))
    return describe_changes(
        rng, [(change.topic, change.appears, change.location) for change in scenario.changes], _SENTENCES
    )


def _row(number: int, split: str, name: str, changed: bool, sentences: Sequence[str]) -> dict[str, Any]:
    ids = [_SENTENCES * number + index for index in range(_SENTENCES)]
    return {
        "filepath": split,
        "filename": name,
        "imgid": number,
        "split": split,
        "changeflag": int(changed),
        "sentids": ids,
        "sentences": [
            {"tokens": sentence.split(), "raw": f"{sentence} .", "imgid": number, "sentid": sentid}
            for sentid, sentence in zip(ids, sentences, strict=True)
        ],
    }


def _with_cars(composer: Composer, scene: Scene) -> Scene:
    """Adds the cars of one time to a scene; parked cars stay."""
    roads = [thing for thing in scene.things if isinstance(thing, Road)]
    composer.things = list(scene.things)
    parked = sum(isinstance(thing, Vehicle) for thing in scene.things)
    add_vehicles(composer, parked + int(composer.rng.integers(0, 8)) * bool(roads))
    return replace(scene, things=tuple(composer.things))


def _plan_changes(composer: Composer) -> list[Change]:
    """Plans one change, or two with different topics."""
    rng = composer.rng
    makers: list[_Maker] = [_houses, _houses, _houses, _row_of_houses, _large_buildings, _road, _trees, _pond, _field]
    wanted = 2 if rng.random() < 0.3 else 1
    changes: list[Change] = []
    for _ in range(40):
        change = makers[rng.integers(len(makers))](composer)
        if change and change.topic not in [earlier.topic for earlier in changes]:
            changes.append(change)
        if len(changes) == wanted:
            break
    return changes


_Maker = Callable[[Composer], Change | None]


def _cell(rng: np.random.Generator, inset: float) -> tuple[tuple[float, float], Location]:
    """Samples one of nine locations, and a point in it at least `inset` px from the edge."""
    row, column = rng.integers(3, size=2).tolist()
    low, high = max(46.0, inset), min(SIZE - 46.0, SIZE - inset)
    steps = (low, SIZE / 2, high)
    x, y = (steps[index] + rng.uniform(-5, 5) for index in (column, row))
    return (min(max(x, inset), SIZE - inset), min(max(y, inset), SIZE - inset)), _location(row, column)


def _third(position: float) -> int:
    return 0 if position < 0.41 * SIZE else 2 if position > 0.59 * SIZE else 1


def _location(row: int, column: int) -> Location:
    return f"{_ROWS[row]} {_COLUMNS[column]}".strip() or "center"


def _grouped(composer: Composer, topic: Topic, location: Location, start: int) -> Change:
    """Makes a change of the objects added since index `start`: they appear or disappear."""
    things = tuple(composer.things[start:])
    del composer.things[start:]
    return Change(topic, location, (), things) if composer.rng.random() < 0.6 else Change(topic, location, things, ())


def _houses(composer: Composer) -> Change | None:
    """Several or many houses in rows."""
    rng, start = composer.rng, len(composer.things)
    many = rng.random() < 0.5
    wanted = int(rng.integers(7, 12)) if many else int(rng.integers(4, 6))
    scale, composer.scale = composer.scale, 1.0 if many else 1.2
    center, location = _cell(rng, 58 if many else 46)
    angle = composer.angle * 0.5
    along, across = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    steps = np.arange(-2, 3) * 31 * composer.scale
    positions = sorted(
        (abs(u) + abs(v), *(np.asarray(center) + along * u + across * v * 0.9)) for u in steps for v in steps
    )
    for _, x, y in positions:
        if len(composer.things) - start < wanted:
            composer.add_house((float(x), float(y)), angle + rng.normal(0, 0.03), 2.5)
    composer.scale = scale
    count = len(composer.things) - start
    if count < 4:
        del composer.things[start:]
        return None
    x, y = np.mean([thing.center for thing in composer.things[start:] if isinstance(thing, Building)], axis=0)
    clear = _location(_third(y), _third(x)) == location
    change = _grouped(composer, "many houses" if count > 5 else "several houses", location, start)
    return change if clear else None


def _row_of_houses(composer: Composer) -> Change | None:
    """Houses on one side of a road that is present at both times."""
    rng = composer.rng
    vertical, second_half = rng.random() < 0.5, rng.random() < 0.5
    angle = (math.pi / 2 if vertical else 0.0) + rng.uniform(-0.06, 0.06)
    # Beside the middle of the image, so that the row lies clearly at one side.
    offset = rng.uniform(20, 50) * (1 if second_half else -1) * (-1 if vertical else 1)
    if any(isinstance(thing, Road) for thing in composer.things) or not composer.add_road(straight(angle, offset), 19):
        return None
    start = len(composer.things)
    side = offset + 26 * np.sign(offset)
    for position in straight(angle, side, bend=1e-6):
        composer.add_house((position[0], position[1]), angle, 2.5)
    count = len(composer.things) - start
    location: Location = _location(1, 2 * second_half) if vertical else _location(2 * second_half, 1)
    change = _grouped(composer, "a row of houses", location, start)
    return change if count >= 5 else None


def _large_buildings(composer: Composer) -> Change | None:
    """One or two large buildings."""
    rng, start = composer.rng, len(composer.things)
    center, location = _cell(rng, 50)
    angle = composer.angle * 0.5
    wanted = int(rng.integers(1, 3))
    scale, composer.scale = composer.scale, 1.25 if wanted == 1 else 0.9
    shift = 0 if wanted == 1 else 23
    for side in (-shift, shift)[:wanted]:
        composer.add_large_building(
            (center[0] - side * math.sin(angle), center[1] + side * math.cos(angle)), angle, 1.0
        )
    composer.scale = scale
    count = len(composer.things) - start
    change = _grouped(composer, "two buildings" if count == 2 else "a building", location, start)
    return change if count == wanted else None


def _road(composer: Composer) -> Change | None:
    rng, start = composer.rng, len(composer.things)
    position = int(rng.integers(3))
    vertical = rng.random() < 0.5
    offset = (position - 1) * 76 + rng.uniform(-8, 8)
    angle = (math.pi / 2 if vertical else 0.0) + rng.uniform(-0.12, 0.12)
    path = straight(angle, -offset if vertical else offset, rng.uniform(0.1, 7), rng.uniform(0, 6))
    if not composer.add_road(path, rng.uniform(19, 22)):
        return None
    return _grouped(composer, "a road", _location(1, position) if vertical else _location(position, 1), start)


def _trees(composer: Composer) -> Change | None:
    """A patch of forest, or a stand of single trees."""
    rng, start = composer.rng, len(composer.things)
    center, location = _cell(rng, 40)
    if rng.random() < 0.5:
        outline = blob(rng, center, rng.uniform(33, 44), 0.25)
        composer.add(Area("forest", outline, "forest", composer.new_seed()), outline, outline)
    else:
        scale, composer.scale = composer.scale, 0.9
        for x, y in (np.asarray(center) + rng.uniform(-44, 44, (130, 2))).tolist():
            composer.add_tree((x, y), 0.0)
        composer.scale = scale
    dense = isinstance(composer.things[-1], Area) if len(composer.things) > start else False
    change = _grouped(composer, "trees", location, start)
    return change if dense or len(change.before + change.after) >= 12 else None


def _pond(composer: Composer) -> Change | None:
    start = len(composer.things)
    center, location = _cell(composer.rng, 44)
    if not composer.add_pond(center, composer.rng.uniform(29, 42), 2):
        return None
    return _grouped(composer, "a pond", location, start)


def _field(composer: Composer) -> Change | None:
    """A field that turns into bare land or a car park."""
    rng, start = composer.rng, len(composer.things)
    center, location = _cell(rng, 52)
    paved = rng.random() < 0.5
    if not composer.add_parking(
        center, rng.uniform(78, 92), rng.uniform(62, 76), composer.angle * 0.5, 16 if paved else 0
    ):
        return None
    lot, *cars = composer.things[start:]
    del composer.things[start:]
    outline: Outline = lot.outline if isinstance(lot, Area) else np.empty((0, 2))
    crop = Area("field", outline, "crop_green" if rng.random() < 0.6 else "crop_ripe", composer.new_seed())
    if paved:
        return Change("a parking lot", location, (crop,), (lot, *cars))
    return Change("bare land", location, (crop,), (Area("patch", outline, "soil", composer.new_seed()),))
