"""Synthetic RSVQA-LR: aerial pictures with questions whose wording alone gives no answer away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unirs_tasks.synth.layout import compose, random_plan
from unirs_tasks.synth.scene import SIZE, Area, Building, Layout, Road, Scene, Tree, Vehicle, random_look
from unirs_tasks.synth.writing import generator, map_items, new_folder, write_json

# How many questions of each type a picture gets at most.
_PRESENCE, _COMPARISONS, _COUNTS = 4, 3, 2

_PLURALS = {
    "building": "buildings",
    "road": "roads",
    "water area": "water areas",
    "tree": "trees",
    "crop field": "crop fields",
    "vehicle": "vehicles",
    "forest": "forests",
    "parking lot": "parking lots",
    "large building": "large buildings",
    "small building": "small buildings",
}
_COUNTED = ("building", "road", "water area", "tree", "crop field", "vehicle")
_COMPARED = (
    ("building", "tree"),
    ("building", "vehicle"),
    ("building", "crop field"),
    ("building", "water area"),
    ("tree", "vehicle"),
    ("tree", "crop field"),
    ("tree", "road"),
    ("road", "water area"),
    ("road", "crop field"),
    ("water area", "crop field"),
    ("water area", "vehicle"),
)
_PRESENCE_WORDS = ("Is there a {one}?", "Is a {one} present?", "Are there {many} in the image?")
_PLACE_WORDS = ("Is there a {one} at the {side} of the image?", "Are there {many} at the {side} of the image?")
_MORE_WORDS = ("Are there more {x} than {y}?", "Is the number of {x} larger than the number of {y}?")
_LESS_WORDS = ("Are there less {x} than {y}?", "Is the number of {x} smaller than the number of {y}?")
_EQUAL_WORDS = ("Is the number of {x} equal to the number of {y}?", "Are there as many {x} as {y}?")
_COUNT_WORDS = ("How many {many} are there?", "What is the number of {many}?", "What is the amount of {many}?")
_LAYOUT_WORDS = ("Is it a rural or an urban area?", "Is this area rural or urban?", "Is the area urban or rural?")


@dataclass(frozen=True, slots=True)
class Facts:
    """What questions may ask about one picture.

    Attributes:
        layout: countryside or town.
        counts: how many there are by name; names are missing where the number is not clear to see.
        places: `(name, side)` of the picture to whether such a thing is there; missing where it is not clear to see.
    """

    layout: Layout
    counts: dict[str, int]
    places: dict[tuple[str, str], bool]


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its answer.

    Attributes:
        kind: RSVQA's question type.
        text: the question.
        answer: what to say.
        subject: what it is about; a picture gets one question of a type about each subject.
    """

    kind: str
    text: str
    answer: str
    subject: str


def write(root: Path, size: int, seed: int) -> None:
    """Writes a data set in RSVQA-LR's format: `LR_split_*_{questions,answers,images}.json`, `Images_LR/*.tif`.

    Args:
        root: a folder that is not there yet, or empty.
        size: training pictures; validation has a tenth and at least 8, test a fifth and at least 8.
        seed: the same seed gives the same bytes.

    Raises:
        DataError: `root` holds something already.
    """
    with new_folder(root) as folder:
        pictures = folder / "Images_LR"
        pictures.mkdir()
        splits = {"train": size, "val": max(8, size // 10), "test": max(8, size // 5)}
        facts = map_items(
            partial(_draw, pictures), range(sum(splits.values())), seed=seed, description="rsvqa_lr pictures"
        )
        numbers = _Numbers()
        images_of = {split: [numbers.new("images") for _ in range(count)] for split, count in splits.items()}
        for split, images in images_of.items():
            asker = Asker(generator(seed, len(facts), images[0]))
            rows = _rows(numbers, images, [asker.ask(facts[image]) for image in images])
            for name, content in rows.items():
                write_json(folder / f"LR_split_{split}_{name}.json", {name: content})


def observe(scene: Scene) -> Facts:
    """What can be asked about a scene's picture and answered by looking at it."""
    areas = Counter(thing.kind for thing in scene.things if isinstance(thing, Area))
    buildings = [thing for thing in scene.things if isinstance(thing, Building)]
    halls = sum(building.large for building in buildings)
    counts = {
        "building": len(buildings),
        "road": sum(isinstance(thing, Road) for thing in scene.things),
        "water area": areas["water"],
        "tree": sum(isinstance(thing, Tree) for thing in scene.things),
        "crop field": areas["field"],
        "vehicle": sum(isinstance(thing, Vehicle) for thing in scene.things),
        "forest": areas["forest"],
        "parking lot": areas["parking lot"],
    }
    if buildings:
        counts |= {"large building": halls, "small building": len(buildings) - halls}
    if counts["forest"]:
        # Nobody can tell how many trees a forest has.
        del counts["tree"]
    if 0 < counts["vehicle"] < 3:
        # One or two cars are too easily missed.
        del counts["vehicle"]
    places = dict(_places("building", [np.array([building.center]) for building in buildings]))
    water = [thing.outline for thing in scene.things if isinstance(thing, Area) and thing.kind == "water"]
    places |= dict(_places("water area", water))
    return Facts(scene.layout, counts, places)


def _places(name: str, outlines: Sequence[np.ndarray]) -> Iterator[tuple[tuple[str, str], bool]]:
    if not outlines:
        return
    points = np.concatenate(outlines) / SIZE
    points = points[((points >= 0) & (points <= 1)).all(axis=1)]
    for side, depth in (
        ("top", points[:, 1]),
        ("bottom", 1 - points[:, 1]),
        ("left", points[:, 0]),
        ("right", 1 - points[:, 0]),
    ):
        nearest = depth.min(initial=1.0)
        if nearest < 0.3 or nearest > 0.45:
            yield (name, side), bool(nearest < 0.3)


def _draw(folder: Path, number: int, rng: np.random.Generator) -> Facts:
    layout: Layout = "rural" if number % 2 else "urban"
    scene = compose(rng, random_plan(rng, layout))
    Image.fromarray(scene.render(random_look(rng))).save(folder / f"{number}.tif")
    return observe(scene)


class Asker:
    """Picks questions so that no wording has more of one answer than of another.

    Args:
        rng: source of randomness.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        # By wording and by type: how many more answers were `yes` (or `urban`) than the opposite.
        self._lean: Counter[str] = Counter()
        self._buckets: Counter[str] = Counter()

    def ask(self, facts: Facts) -> list[Question]:
        """The questions about one picture."""
        return [
            *self._balanced(list(_presence_questions(facts)), _PRESENCE),
            *self._balanced(list(_comparison_questions(facts)), _COMPARISONS),
            *self._counting(facts),
            *self._balanced([Question("rural_urban", text, facts.layout, "area") for text in _LAYOUT_WORDS], 1),
        ]

    def _balanced(self, questions: list[Question], count: int) -> list[Question]:
        """Up to `count` questions on different subjects, none of which would unbalance its wording's answers."""
        self._rng.shuffle(questions)
        chosen: list[Question] = []
        while len(chosen) < count:
            asked = {question.subject for question in chosen}
            left = [question for question in questions if question.subject not in asked and self._welcome(question)]
            if not left:
                break
            # A wording that has seen too few of an answer goes first; then a type that has.
            best = min(
                left, key=lambda question: (self._pull(question.text, question), self._pull(question.kind, question))
            )
            chosen.append(best)
            for name in (best.text, best.kind):
                self._lean[name] += _sign(best)
        return chosen

    def _pull(self, name: str, question: Question) -> int:
        return self._lean[name] * _sign(question)

    def _welcome(self, question: Question) -> bool:
        return self._pull(question.text, question) <= 0

    def _counting(self, facts: Facts) -> Iterator[Question]:
        names = [name for name in _COUNTED if name in facts.counts]
        for _ in range(_COUNTS):
            rarest = min(names, key=lambda name: (self._buckets[_bucket(facts.counts[name])], self._rng.random()))
            names.remove(rarest)
            count = facts.counts[rarest]
            self._buckets[_bucket(count)] += 1
            text = _COUNT_WORDS[self._rng.integers(len(_COUNT_WORDS))].format(many=_PLURALS[rarest])
            yield Question("count", text, str(count), rarest)


def _sign(question: Question) -> int:
    return 1 if question.answer in ("yes", "urban") else -1


def _bucket(count: int) -> str:
    return "0" if count == 0 else "1-10" if count <= 10 else "11-100"


def _presence_questions(facts: Facts) -> Iterator[Question]:
    for name, count in facts.counts.items():
        for words in _PRESENCE_WORDS:
            yield _yes_no("presence", words.format(one=name, many=_PLURALS[name]), count > 0, name)
    for (name, side), there in facts.places.items():
        for words in _PLACE_WORDS:
            text = words.format(one=name, many=_PLURALS[name], side=side)
            yield _yes_no("presence", text, there, "place")


def _comparison_questions(facts: Facts) -> Iterator[Question]:
    for pair in _COMPARED:
        if not set(pair) <= facts.counts.keys():
            continue
        for x, y in (pair, pair[::-1]):
            a, b = facts.counts[x], facts.counts[y]
            subject = " ".join(pair)
            clear = abs(a - b) >= 4 and max(a, b) >= 2 * min(a, b)
            names = {"x": _PLURALS[x], "y": _PLURALS[y]}
            for more, less in zip(_MORE_WORDS, _LESS_WORDS, strict=True):
                if clear:
                    yield _yes_no("comp", more.format(**names), a > b, subject)
                    yield _yes_no("comp", less.format(**names), a < b, subject)
            for words in _EQUAL_WORDS:
                if clear or a == b <= 2:
                    yield _yes_no("comp", words.format(**names), a == b, subject)


def _yes_no(kind: str, text: str, holds: bool, subject: str) -> Question:
    return Question(kind, text, "yes" if holds else "no", subject)


class _Numbers:
    """Ids, counted through all splits."""

    def __init__(self) -> None:
        self._next: Counter[str] = Counter()

    def new(self, name: str) -> int:
        number = self._next[name]
        self._next[name] += 1
        return number


def _rows(
    numbers: _Numbers, images: Sequence[int], questions: Sequence[Sequence[Question]]
) -> dict[str, list[dict[str, Any]]]:
    """The rows of a split's three files. As in the real ones, some are inactive and hold only an id."""
    rows: dict[str, list[dict[str, Any]]] = {"images": [], "questions": [], "answers": []}
    for image, asked in zip(images, questions, strict=True):
        ids = []
        for question in asked:
            number, answer = numbers.new("questions"), numbers.new("answers")
            ids.append(number)
            rows["questions"].append(
                {
                    "id": number,
                    "img_id": image,
                    "type": question.kind,
                    "question": question.text,
                    "answers_ids": [answer],
                    "active": True,
                }
            )
            rows["answers"].append({"id": answer, "question_id": number, "answer": question.answer, "active": True})
        rows["images"].append({"id": image, "questions_ids": ids, "active": True})
    for name, content in rows.items():
        for place in (0, len(content) // 2):
            content.insert(place, {"id": numbers.new(name), "active": False})
    # Nothing says that answers come in the order of the questions.
    rows["answers"].reverse()
    return rows
