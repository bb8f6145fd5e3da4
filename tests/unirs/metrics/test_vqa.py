import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirs.metrics.base import Prediction
from unirs.metrics.interval import point
from unirs.metrics.vqa import VqaAccuracy, normalize_answer


def row(number: int, prediction: str, *references: str, kind: str = "") -> Prediction:
    return Prediction(str(number), "rsvqa_lr", ("a.tif",), kind, "", prediction, references)


@pytest.mark.parametrize(
    ("said", "normalized"),
    [
        ("Yes", "yes"),
        ("  yes.\n", "yes"),
        ("'Rural'!", "rural"),
        ("“No.”", "no"),
        ("between 0 and 10", "between 0 and 10"),
        ("0m2", "0m2"),
        ("?", ""),
    ],
)
def test_case_surrounding_space_and_punctuation_are_dropped(said: str, normalized: str) -> None:
    assert normalize_answer(said) == normalized


@given(st.text())
def test_normalizing_twice_changes_nothing(text: str) -> None:
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)


def test_accuracy_is_micro_macro_and_by_kind() -> None:
    rows = [
        row(1, "Yes.", "yes", kind="presence"),
        row(2, "no", "yes", kind="presence"),
        row(3, "yes yes", "yes", kind="presence"),
        row(4, "rural", "urban", "Rural", kind="rural_urban"),
        row(5, "no", "no", kind="comp"),
    ]
    evaluation = VqaAccuracy(kinds=("presence", "comp", "count")).evaluate(rows)
    assert evaluation.normalized == ["yes", "no", "yes yes", "rural", "no"]
    assert evaluation.scores == [1.0, 0.0, 0.0, 1.0, 1.0]
    assert {name: point(statistic) for name, statistic in evaluation.statistics.items()} == pytest.approx(
        {
            "accuracy": 3 / 5,
            "accuracy_macro": (1 / 3 + 1 + 1) / 3,
            "accuracy/presence": 1 / 3,
            "accuracy/comp": 1.0,
            "accuracy/rural_urban": 1.0,
        }
    )
    assert list(evaluation.statistics) == [
        "accuracy",
        "accuracy_macro",
        "accuracy/presence",
        "accuracy/comp",
        "accuracy/rural_urban",
    ]
    assert [statistic.n for statistic in evaluation.statistics.values()] == [5, 5, 3, 1, 1]


def test_the_headline_is_a_statistic() -> None:
    metric = VqaAccuracy()
    assert metric.headline in metric.evaluate([row(1, "a", "a")]).statistics


def test_rows_without_kind_have_accuracy_only() -> None:
    assert list(VqaAccuracy().evaluate([row(1, "a", "a"), row(2, "b", "a")]).statistics) == ["accuracy"]


def test_an_answer_without_words_is_wrong_even_where_the_reference_has_none() -> None:
    assert VqaAccuracy().evaluate([row(1, "", "yes"), row(2, "-", "+")]).scores == [0.0, 0.0]
