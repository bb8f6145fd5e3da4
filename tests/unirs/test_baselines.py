from pathlib import Path

from unirs.baselines import most_frequent
from unirs.media import Image
from unirs.metrics.base import Prediction
from unirs.sample import Sample, Split, Turn


def split(*turns: tuple[str, tuple[str, ...], tuple[str, ...]]) -> Split:
    """A split of one picture, from the kind, references and answers of its turns."""
    asked = tuple(Turn(str(n), references, {}, answers, kind) for n, (kind, references, answers) in enumerate(turns))
    return Split([Sample("s", Image(Path("a.png")), asked)])


def rows(*kinds: str) -> list[Prediction]:
    return [Prediction(str(n), "task", ("b.png",), kind, "?", "said", ("truth",)) for n, kind in enumerate(kinds)]


TRAIN = split(
    ("presence", ("yes",), ()),
    ("presence", ("no",), ()),
    ("presence", ("no",), ()),
    ("count", ("yes",), ()),
    ("count", ("4",), ()),
    ("count", ("4",), ()),
    ("area", ("yes",), ()),
)


def test_of_each_kind() -> None:
    guesses = most_frequent(TRAIN, rows("count", "presence", "area", "count"), by_kind=True)
    assert [guess.prediction for guess in guesses] == ["4", "no", "yes", "4"]
    assert [guess.id for guess in guesses] == ["0", "1", "2", "3"]
    assert {guess.references for guess in guesses} == {("truth",)}


def test_of_all_kinds() -> None:
    guesses = most_frequent(TRAIN, rows("count", "presence"), by_kind=False)
    assert [guess.prediction for guess in guesses] == ["yes", "yes"]


def test_equally_frequent_answers_go_by_the_alphabet() -> None:
    train = split(("", ("b",), ()), ("", ("a",), ()), ("", ("c",), ()))
    assert [guess.prediction for guess in most_frequent(train, rows(""), by_kind=True)] == ["a"]


def test_a_kind_that_training_does_not_have() -> None:
    assert [guess.prediction for guess in most_frequent(TRAIN, rows("new"), by_kind=True)] == [""]


def test_texts_to_learn_count_rather_than_references() -> None:
    train = split(("fire", ("fire",), ("This is fire.",)), ("fire", ("x", "fire"), ("This is fire.", "Fire!")))
    assert [guess.prediction for guess in most_frequent(train, rows("fire"), by_kind=False)] == ["This is fire."]
