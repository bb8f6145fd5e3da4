"""Synthetic RSVQA-LR: aerial images with questions whose wording does not reveal the answer."""

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
from unirs_tasks.synth.scene import SIZE, Area, Building, Layout, Road, Scene, Tree, Vehicle, random_acquisition
from unirs_tasks.synth.writing import generator, map_items, new_folder, write_json

# Maximum number of questions of each type per image.
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
_SIDE_WORDS = ("Is there a {one} at the {side} of the image?", "Are there {many} at the {side} of the image?")
_MORE_WORDS = ("Are there more {x} than {y}?", "Is the number of {x} larger than the number of {y}?")
_LESS_WORDS = ("Are there less {x} than {y}?", "Is the number of {x} smaller than the number of {y}?")
_EQUAL_WORDS = ("Is the number of {x} equal to the number of {y}?", "Are there as many {x} as {y}?")
_COUNT_WORDS = ("How many {many} are there?", "What is the number of {many}?", "What is the amount of {many}?")
_LAYOUT_WORDS = ("Is it a rural or an urban area?", "Is this area rural or urban?", "Is the area urban or rural?")


@dataclass(frozen=True, slots=True)
class SceneFacts:
    """The facts of one image that questions are made of.

    Attributes:
        layout: countryside or town.
        counts: object counts by name; a name is absent if its count is ambiguous in the image.
        sides: `(name, side)` to whether such an object lies at that side; absent if ambiguous.
    """

    layout: Layout
    counts: dict[str, int]
    sides: dict[tuple[str, str], bool]


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its answer.

    Attributes:
        category: RSVQA's question type.
        text: the question.
        answer: the correct answer.
        subject: what the question is about; an image gets at most one question of a type per subject.
    """

    category: str
    text: str
    answer: str
    subject: str


def write(root: Path, size: int, seed: int) -> None:
    """Writes a data set in RSVQA-LR's format: `LR_split_*_{questions,answers,images}.json`, `Images_LR/*.tif`.

    Args:
        root: a folder that does not exist or is empty.
        size: training images; validation has a tenth and at least 8, test a fifth and at least 8.
        seed: the same seed gives the same bytes.

    Raises:
        DataError: `root` is not empty.
    """
    with new_folder(root) as folder:
        image_folder = folder / "Images_LR"
        image_folder.mkdir()
        splits = {"train": size, "val": max(8, size // 10), "test": max(8, size // 5)}
        facts = map_items(
            partial(_draw, image_folder), range(sum(splits.values())), seed=seed, description="rsvqa_lr images"
        )
        id_counter = _IdCounter()
        images_of = {split: [id_counter.new("images") for _ in range(count)] for split, count in splits.items()}
        for split, images in images_of.items():
            sampler = BalancedQuestionSampler(generator(seed, len(facts), images[0]))
            rows = _rows(id_counter, images, [sampler.sample(facts[image]) for image in images])
            for name, content in rows.items():
                write_json(folder / f"LR_split_{split}_{name}.json", {name: content})


def extract_facts(scene: Scene) -> SceneFacts:
    """Extracts the facts of a scene that its image shows unambiguously."""
    areas = Counter(thing.land_use for thing in scene.things if isinstance(thing, Area))
    buildings = [thing for thing in scene.things if isinstance(thing, Building)]
    large = sum(building.large for building in buildings)
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
        counts |= {"large building": large, "small building": len(buildings) - large}
    if counts["forest"]:
        # The trees of a forest cannot be counted.
        del counts["tree"]
    if 0 < counts["vehicle"] < 3:
        # One or two cars are too easily missed.
        del counts["vehicle"]
    sides = dict(_sides("building", [np.array([building.center]) for building in buildings]))
    water = [thing.outline for thing in scene.things if isinstance(thing, Area) and thing.land_use == "water"]
    sides |= dict(_sides("water area", water))
    return SceneFacts(scene.layout, counts, sides)


def _sides(name: str, outlines: Sequence[np.ndarray]) -> Iterator[tuple[tuple[str, str], bool]]:
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
        closest = depth.min(initial=1.0)
        if closest < 0.3 or closest > 0.45:
            yield (name, side), bool(closest < 0.3)


def _draw(folder: Path, number: int, rng: np.random.Generator) -> SceneFacts:
    layout: Layout = "rural" if number % 2 else "urban"
    scene = compose(rng, random_plan(rng, layout))
    Image.fromarray(scene.render(random_acquisition(rng))).save(folder / f"{number}.tif")
    return extract_facts(scene)


class BalancedQuestionSampler:
    """Samples questions so that the answers to each wording are balanced.

    Args:
        rng: source of randomness.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        # By wording and by type: number of `yes` (or `urban`) answers minus the number of the opposite.
        self._imbalance: Counter[str] = Counter()
        self._count_buckets: Counter[str] = Counter()

    def sample(self, facts: SceneFacts) -> list[Question]:
        """Samples the questions of one image."""
        return [
            *self._balanced(list(_presence_questions(facts)), _PRESENCE),
            *self._balanced(list(_comparison_questions(facts)), _COMPARISONS),
            *self._counting(facts),
            *self._balanced([Question("rural_urban", text, facts.layout, "area") for text in _LAYOUT_WORDS], 1),
        ]

    def _balanced(self, questions: list[Question], count: int) -> list[Question]:
        """Samples up to `count` questions with distinct subjects that keep each wording's answers balanced."""
        self._rng.shuffle(questions)
        chosen: list[Question] = []
        while len(chosen) < count:
            subjects = {question.subject for question in chosen}
            candidates = [
                question
                for question in questions
                if question.subject not in subjects and self._improves_balance(question)
            ]
            if not candidates:
                break
            # The wording with the largest deficit of an answer comes first, then the type with the largest deficit.
            best = min(
                candidates,
                key=lambda question: (
                    self._imbalance_after(question.text, question),
                    self._imbalance_after(question.category, question),
                ),
            )
            chosen.append(best)
            for name in (best.text, best.category):
                self._imbalance[name] += _sign(best)
        return chosen

    def _imbalance_after(self, name: str, question: Question) -> int:
        return self._imbalance[name] * _sign(question)

    def _improves_balance(self, question: Question) -> bool:
        return self._imbalance_after(question.text, question) <= 0

    def _counting(self, facts: SceneFacts) -> Iterator[Question]:
        names = [name for name in _COUNTED if name in facts.counts]
        for _ in range(_COUNTS):
            rarest = min(names, key=lambda name: (self._count_buckets[_bucket(facts.counts[name])], self._rng.random()))
            names.remove(rarest)
            count = facts.counts[rarest]
            self._count_buckets[_bucket(count)] += 1
            text = _COUNT_WORDS[self._rng.integers(len(_COUNT_WORDS))].format(many=_PLURALS[rarest])
            yield Question("count", text, str(count), rarest)


def _sign(question: Question) -> int:
    return 1 if question.answer in ("yes", "urban") else -1


def _bucket(count: int) -> str:
    return "0" if count == 0 else "1-10" if count <= 10 else "11-100"


def _presence_questions(facts: SceneFacts) -> Iterator[Question]:
    for name, count in facts.counts.items():
        for words in _PRESENCE_WORDS:
            yield _yes_no("presence", words.format(one=name, many=_PLURALS[name]), count > 0, name)
    for (name, side), present in facts.sides.items():
        for words in _SIDE_WORDS:
            text = words.format(one=name, many=_PLURALS[name], side=side)
            yield _yes_no("presence", text, present, "place")


def _comparison_questions(facts: SceneFacts) -> Iterator[Question]:
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


def _yes_no(category: str, text: str, holds: bool, subject: str) -> Question:
    return Question(category, text, "yes" if holds else "no", subject)


class _IdCounter:
    """Consecutive ids per file, shared by all splits."""

    def __init__(self) -> None:
        self._next: Counter[str] = Counter()

    def new(self, name: str) -> int:
        number = self._next[name]
        self._next[name] += 1
        return number


def _rows(
    id_counter: _IdCounter, images: Sequence[int], questions: Sequence[Sequence[Question]]
) -> dict[str, list[dict[str, Any]]]:
    """Makes the rows of a split's three files. As in the real data, some are inactive and hold only an id."""
    rows: dict[str, list[dict[str, Any]]] = {"images": [], "questions": [], "answers": []}
    for image, chosen in zip(images, questions, strict=True):
        ids = []
        for question in chosen:
            number, answer = id_counter.new("questions"), id_counter.new("answers")
            ids.append(number)
            rows["questions"].append(
                {
                    "id": number,
                    "img_id": image,
                    "type": question.category,
                    "question": question.text,
                    "answers_ids": [answer],
                    "active": True,
                }
            )
            rows["answers"].append({"id": answer, "question_id": number, "answer": question.answer, "active": True})
        rows["images"].append({"id": image, "questions_ids": ids, "active": True})
    for name, content in rows.items():
        for position in (0, len(content) // 2):
            content.insert(position, {"id": id_counter.new(name), "active": False})
    # The format does not guarantee that answers are in the order of the questions.
    rows["answers"].reverse()
    return rows
