import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirs.errors import DataError
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import point_estimate
from unirs.metrics.classification import Top1

CLASSES = ("post-earthquake", "fire", "flood", "police chase", "car", "car racing", "parade/protest", "non-event")


def row(prediction: str, category: str) -> Prediction:
    return Prediction(prediction, "era", ("a.mp4",), category, "", prediction, (category,))


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("This is a video about police chase.", "police chase"),
        ("POLICE  CHASE", "police chase"),
        ("Parade, protest", "parade/protest"),
        ("a non event", "non-event"),
        ("car racing", "car racing"),
        ("a car, no racing", "car"),
        ("flood. Flood!", "flood"),
        ("post_earthquake", "post-earthquake"),
    ],
)
def test_the_longest_class_in_the_answer_is_found(answer: str, found: str) -> None:
    evaluation = Top1(CLASSES).evaluate([row(answer, found)])
    assert (evaluation.normalized, evaluation.scores) == ([found], [1.0])


@pytest.mark.parametrize(
    ("answer", "normalized"),
    [("a flood or a fire", "a flood or a fire"), ("Firemen!", "firemen"), ("cars", "cars"), ("", "")],
)
def test_no_class_or_several_is_wrong(answer: str, normalized: str) -> None:
    evaluation = Top1(CLASSES).evaluate([row(answer, "fire")])
    assert (evaluation.normalized, evaluation.scores) == ([normalized], [0.0])


def test_statistics_are_micro_macro_and_by_class() -> None:
    rows = [row("fire", "fire"), row("fire", "flood"), row("flood", "flood"), row("flood", "Flood"), row("no", "car")]
    statistics = Top1(CLASSES).evaluate(rows).statistics
    assert [(name, point_estimate(statistic), statistic.n) for name, statistic in statistics.items()] == [
        ("top1", pytest.approx(3 / 5), 5),
        ("top1_macro", pytest.approx((1 + 2 / 3 + 0) / 3), 5),
        ("top1/fire", 1.0, 1),
        ("top1/flood", pytest.approx(2 / 3), 3),
        ("top1/car", 0.0, 1),
    ]


def test_an_unknown_class_names_the_row_and_the_nearest_class() -> None:
    with pytest.raises(DataError, match=r"Row a flod .*'flod'.*Did you mean 'flood'"):
        Top1(CLASSES).evaluate([row("a flod", "flod")])


@pytest.mark.parametrize("classes", [("a/b", "A b"), ("a", "-")])
def test_indistinguishable_classes_are_an_error(classes: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="Rename"):
        Top1(classes)


@given(st.sampled_from(CLASSES), st.text())
def test_any_answer_is_scored(category: str, answer: str) -> None:
    (score,) = Top1(CLASSES).evaluate([row(answer, category)]).scores
    assert score in (0.0, 1.0)
