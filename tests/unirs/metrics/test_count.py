import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirs.errors import DataError
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import interval, point_estimate
from unirs.metrics.count import CountError, find_count


def row(answer: str, reference: str, category: str = "") -> Prediction:
    return Prediction("7", "t", ("a.png",), category, "", answer, (reference,))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("12", 12),
        ("There are 1,234 cars.", 1234),
        ("-3", -3),
        ("2.5", 2.5),
        ("three roads", 3),
        ("No buildings", 0),
        ("none", 0),
        ("many", None),
        ("nan", None),
        ("inf", None),
        ("A4", None),
        ("", None),
        ("9" * 13, None),
        ("9" * 5000, None),
    ],
)
def test_the_first_number_counts(text: str, count: float | None) -> None:
    assert find_count(text) == count


@pytest.mark.parametrize(
    ("text", "road", "building"),
    [
        ("There are 2 new roads and 13 new buildings.", 2, 13),
        ("no new roads, one building", 0, 1),
        ("There are no changes in roads or buildings", 0, 0),
        ("No new roads or buildings", 0, 0),
        ("no new roads and 4 buildings", 0, 4),
        ("roads have changed", None, None),
        ("3 buildings", None, 3),
    ],
)
def test_numbers_of_nouns(text: str, road: float | None, building: float | None) -> None:
    assert (find_count(text, "road"), find_count(text, "building")) == (road, building)


@given(st.text(max_size=40))
def test_any_text_is_parsed(text: str) -> None:
    count = find_count(text)
    assert count is None or math.isfinite(count)


def test_errors_by_hand() -> None:
    rows = [row("3", "3", "a"), row("about 7", "4", "a"), row("0", "4", "b"), row("many", "4", "b")]
    evaluation = CountError().evaluate(rows)
    values = {name: point_estimate(each) for name, each in evaluation.statistics.items()}
    assert values == pytest.approx(
        {
            "mae": 7 / 3,
            "rmse": math.sqrt(25 / 3),
            "mae/a": 1.5,
            "rmse/a": math.sqrt(4.5),
            "mae/b": 4,
            "rmse/b": 4,
            "accuracy": 1 / 4,
            "accuracy_macro": 1 / 4,
            "accuracy/a": 1 / 2,
            "accuracy/b": 0,
            "unparsed": 1,
        }
    )
    assert evaluation.scores == [1, 0, 0, 0]
    assert evaluation.notes == ("1 of 4 answers hold no number: they are wrong, and not in mae and rmse.",)
    assert evaluation.statistics["mae/b"].n == 1
    low, high = interval(evaluation.statistics["rmse"], [1, 2, 3, 4])
    assert 0 <= low < math.sqrt(25 / 3) < high <= 4


def test_errors_of_nouns() -> None:
    rows = [
        row("2 roads and 5 buildings", "1 road and 5 buildings"),
        row("no roads and 3 buildings", "no roads and 7 buildings"),
    ]
    values = {
        name: point_estimate(each) for name, each in CountError(("road", "building")).evaluate(rows).statistics.items()
    }
    assert values == pytest.approx(
        {
            "mae/road": 0.5,
            "rmse/road": math.sqrt(0.5),
            "mae/building": 2,
            "rmse/building": math.sqrt(8),
            "accuracy": 0,
            "unparsed": 0,
        }
    )


@given(st.lists(st.tuples(st.integers(-999, 999), st.integers(0, 999)), min_size=1, max_size=20))
def test_rmse_is_at_least_mae(pairs: list[tuple[int, int]]) -> None:
    statistics = CountError().evaluate([row(str(answer), str(truth)) for answer, truth in pairs]).statistics
    errors = [answer - truth for answer, truth in pairs]
    mae, rmse = point_estimate(statistics["mae"]), point_estimate(statistics["rmse"])
    assert mae == pytest.approx(sum(map(abs, errors)) / len(errors))
    assert rmse == pytest.approx(math.sqrt(sum(error**2 for error in errors) / len(errors)))
    assert rmse >= mae - 1e-9


def test_references_must_be_numbers() -> None:
    assert CountError().mismatch([row("1", "2"), row("1", "two cars")]) == "1 of 2 references are no numbers"
    assert CountError(("road",)).mismatch([row("1", "no roads")]) == ""
    with pytest.raises(DataError, match=r"Row 7: the reference \('many',\) holds no number"):
        CountError().evaluate([row("1", "many")])
    with pytest.raises(DataError, match="holds no number of 'road'"):
        CountError(("road",)).evaluate([row("1", "1 house")])
