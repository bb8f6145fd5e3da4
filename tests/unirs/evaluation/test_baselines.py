from pathlib import Path

from unirs.evaluation.results_writer import most_frequent
from unirs.metrics.base import Prediction
from unirs.tasks.media import Image
from unirs.tasks.sample import Sample, TaskSplit, Turn


def split(*turns: tuple[str, tuple[str, ...], tuple[str, ...]]) -> TaskSplit:
    """A split of one image, from the category, references and train answers of its turns."""
    turns_of = tuple(
        Turn(str(n), references, {}, answers, category) for n, (category, references, answers) in enumerate(turns)
    )
    return TaskSplit([Sample("s", Image(Path("a.png")), turns_of)])


def rows(*categories: str) -> list[Prediction]:
    return [
        Prediction(str(n), "task", ("b.png",), category, "?", "said", ("truth",))
        for n, category in enumerate(categories)
    ]


TRAIN = split(
    ("presence", ("yes",), ()),
    ("presence", ("no",), ()),
    ("presence", ("no",), ()),
    ("count", ("yes",), ()),
    ("count", ("4",), ()),
    ("count", ("4",), ()),
    ("area", ("yes",), ()),
)


def test_by_category() -> None:
    guesses = most_frequent(TRAIN, rows("count", "presence", "area", "count"), by_category=True)
    assert [guess.text for guess in guesses] == ["4", "no", "yes", "4"]
    assert [guess.id for guess in guesses] == ["0", "1", "2", "3"]
    assert {guess.references for guess in guesses} == {("truth",)}


def test_over_all_categories() -> None:
    guesses = most_frequent(TRAIN, rows("count", "presence"), by_category=False)
    assert [guess.text for guess in guesses] == ["yes", "yes"]


def test_equally_frequent_answers_are_in_alphabetical_order() -> None:
    train = split(("", ("b",), ()), ("", ("a",), ()), ("", ("c",), ()))
    assert [guess.text for guess in most_frequent(train, rows(""), by_category=True)] == ["a"]


def test_a_category_that_is_not_in_the_training_split() -> None:
    assert [guess.text for guess in most_frequent(TRAIN, rows("new"), by_category=True)] == [""]


def test_train_answers_have_precedence_over_references() -> None:
    train = split(("fire", ("fire",), ("This is fire.",)), ("fire", ("x", "fire"), ("This is fire.", "Fire!")))
    assert [guess.text for guess in most_frequent(train, rows("fire"), by_category=False)] == ["This is fire."]
