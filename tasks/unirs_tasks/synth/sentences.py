"""Short sentences on what changed between two images, in the style of LEVIR-CC's annotators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Location = str
Topic = Literal[
    "many houses",
    "several houses",
    "a row of houses",
    "two buildings",
    "a building",
    "a road",
    "trees",
    "a pond",
    "a parking lot",
    "bare land",
]


@dataclass(frozen=True, slots=True)
class _Words:
    """Phrases that name a topic, and verbs for its appearance and disappearance."""

    names: tuple[str, ...]
    appeared: tuple[str, ...]
    disappeared: tuple[str, ...] = ()


_BUILT = ("are built", "have been built", "are constructed", "appear")
_RAZED = ("are demolished", "have been removed", "are removed", "disappear")
_BUILT_ONE = ("is built", "has been built", "is constructed", "appears")
_RAZED_ONE = ("is demolished", "has been removed", "is removed", "disappears")

_WORDS: dict[Topic, _Words] = {
    "many houses": _Words(("many houses", "a lot of houses", "many buildings"), _BUILT, _RAZED),
    "several houses": _Words(("several houses", "some houses", "a few houses", "several buildings"), _BUILT, _RAZED),
    "a row of houses": _Words(
        ("a row of houses along the road", "a row of houses beside the road", "a row of buildings along the road"),
        _BUILT_ONE,
        _RAZED_ONE,
    ),
    "two buildings": _Words(("two large buildings", "two buildings", "two big buildings"), _BUILT, _RAZED),
    "a building": _Words(("a large building", "a building", "a big building"), _BUILT_ONE, _RAZED_ONE),
    "a road": _Words(
        ("a road", "one road"), (*_BUILT_ONE, "is paved"), ("has been removed", "is removed", "disappears")
    ),
    "trees": _Words(
        ("trees", "some trees", "many trees"),
        ("are planted", "have been planted", "appear"),
        ("are removed", "are cleared", "are cut down", "have been cut down"),
    ),
    "a pond": _Words(
        ("a pond", "a water area", "a small lake"),
        ("appears", "is dug", "has appeared"),
        ("disappears", "is filled", "has disappeared"),
    ),
    "a parking lot": _Words(
        (
            "a parking lot replaces the field",
            "the field is turned into a parking lot",
            "a parking lot is built on the field",
        ),
        ("",),
    ),
    "bare land": _Words(
        (
            "bare land replaces the field",
            "the field is turned into bare land",
            "the crops on the field have been removed",
        ),
        ("",),
    ),
}

_NOTHING = (
    "there is no difference",
    "the two scenes seem identical",
    "the scene is the same as before",
    "no change has occurred",
    "almost nothing has changed",
    "the two images look the same",
    "nothing has changed between the two images",
    "no obvious change can be seen here",
    "both images show the same scene",
    "the land looks the same as before",
    "there is almost no difference between them",
    "everything looks just as before",
    "the second image shows no change",
    "the area has not changed at all",
    "no difference can be found",
    "the scene remains unchanged",
)

_LONGEST = 16  # words

Event = tuple[Topic, bool, Location]


def describe_changes(rng: np.random.Generator, events: Sequence[Event], count: int) -> list[str]:
    """Makes distinct change captions for one image pair; each is true but may omit some of the changes.

    Args:
        rng: source of randomness.
        events: what changed: the topic, whether it appears rather than went, and where.
        count: how many sentences.

    Returns:
        Lower-case sentences without punctuation.
    """
    if not events:
        return [_NOTHING[index] for index in rng.permutation(len(_NOTHING))[:count]]
    sentences: list[str] = []
    while len(sentences) < count:
        sentence = _sentence(rng, events)
        if sentence not in sentences and len(sentence.split()) <= _LONGEST:
            sentences.append(sentence)
    return sentences


def _sentence(rng: np.random.Generator, events: Sequence[Event]) -> str:
    if len(events) > 1 and rng.random() < 0.6:
        order = rng.permutation(len(events)).tolist()
        parts = [f"{_statement(rng, events[index])} {_where(rng, events[index][2])}" for index in order]
        return " and ".join(parts)
    event = events[int(rng.integers(len(events)))]
    if rng.random() < 0.2:
        return f"{_statement(rng, event)} in the scene"
    return f"{_statement(rng, event)} {_where(rng, event[2])} of the scene"


def _statement(rng: np.random.Generator, event: Event) -> str:
    topic, appears, _ = event
    words = _WORDS[topic]
    name = _pick(rng, words.names)
    verb = _pick(rng, words.appeared if appears else words.disappeared)
    return f"{name} {verb}".strip()


def _where(rng: np.random.Generator, location: Location) -> str:
    if location == "center":
        return _pick(rng, ("in the center", "in the middle"))
    if location in ("left", "right"):
        return _pick(rng, (f"on the {location}", f"on the {location} side"))
    if " " in location:
        return _pick(rng, (f"in the {location}", f"in the {location} corner"))
    return _pick(rng, (f"at the {location}", f"in the {location} part"))


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
