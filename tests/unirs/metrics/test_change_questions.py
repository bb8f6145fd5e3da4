import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirs.errors import DataError
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import point_estimate
from unirs.metrics.change_questions import BinaryQuestions, GridLocations
from unirs.metrics.scorer import Scorer

CELLS = [f"{row}-{column}" for row in ("top", "center", "bottom") for column in ("left", "center", "right")]


def row(answer: str, reference: str, category: str = "") -> Prediction:
    return Prediction("7", "t", ("a.png",), category, "", answer, (reference,))


def values(scorer: Scorer, *rows: Prediction) -> dict[str, float]:
    return {name: point_estimate(each) for name, each in scorer.evaluate(rows).statistics.items()}


def test_binary_by_hand() -> None:
    rows = [
        row("Yes, a road is built.", "yes"),
        row("yes", "no"),
        row("No.", "yes"),
        row("no", "no"),
        row("perhaps", "yes"),
        row("perhaps", "no"),
    ]
    assert values(BinaryQuestions(), *rows) == pytest.approx(
        {"accuracy": 2 / 6, "precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5, "unparsed": 2}
    )
    evaluation = BinaryQuestions().evaluate(rows)
    assert evaluation.scores == [1, 0, 0, 1, 0, 0]
    assert evaluation.normalized == ["yes", "yes", "no", "no", "", ""]
    assert evaluation.notes == ("2 of 6 answers begin with neither yes nor no and are wrong.",)


def test_binary_is_for_yes_and_no() -> None:
    assert BinaryQuestions().mismatch([row("a", "Yes."), row("a", "no")]) == ""
    assert BinaryQuestions().mismatch([row("a", "urban")]) == "1 of 1 references are neither yes nor no"
    with pytest.raises(DataError, match="neither yes nor no"):
        BinaryQuestions().evaluate([row("yes", "urban")])


def test_precision_without_a_positive_answer_is_undefined() -> None:
    numbers = values(BinaryQuestions(), row("no", "yes"))
    assert math.isnan(numbers["precision"])
    assert numbers["recall"] == numbers["f1"] == 0


def test_locations_by_hand() -> None:
    rows = [
        row(
            "roads ['top-left', 'top-center'] buildings []",
            "roads ['top-left'] buildings ['bottom-right', 'center-center']",
        ),
        row("roads [] buildings []", "roads [] buildings []"),
        row("roads ['center'] buildings ['bottom-left']", "roads ['center-center'] buildings ['bottom-left']"),
        row("nothing has changed", "roads [] buildings []"),
    ]
    assert values(GridLocations(), *rows) == pytest.approx(
        {
            "hamming/roads": 1 / 36,
            "precision/roads": 2 / 3,
            "recall/roads": 1,
            "f1/roads": 4 / 5,
            "jaccard/roads": (1 / 2 + 0 + 1 + 0) / 4,
            "subset_accuracy/roads": 2 / 4,
            "hamming/buildings": 2 / 36,
            "precision/buildings": 1,
            "recall/buildings": 1 / 3,
            "f1/buildings": 2 / 4,
            "jaccard/buildings": (0 + 0 + 1 + 0) / 4,
            "subset_accuracy/buildings": 2 / 4,
            "unparsed": 1,
        }
    )
    evaluation = GridLocations().evaluate(rows)
    assert evaluation.scores == [0, 1, 1, 0]
    assert evaluation.notes == ("1 of 4 answers do not name roads and buildings and are wrong.",)


@given(st.lists(st.tuples(st.sets(st.sampled_from(CELLS)), st.sets(st.sampled_from(CELLS))), min_size=1, max_size=8))
def test_locations_are_those_of_sets(pairs: list[tuple[set[str], set[str]]]) -> None:
    rows = [row(f"cells: {sorted(answer)}", f"cells: {sorted(truth)}") for answer, truth in pairs]
    numbers = values(GridLocations(("cells",)), *rows)
    hits = sum(len(answer & truth) for answer, truth in pairs)
    answered, wanted = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    assert numbers["hamming/cells"] == pytest.approx(sum(len(a ^ b) for a, b in pairs) / 9 / len(pairs))
    assert numbers["subset_accuracy/cells"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert numbers["jaccard/cells"] == pytest.approx(
        sum(len(a & b) / max(len(a | b), 1) for a, b in pairs) / len(pairs)
    )
    assert numbers["f1/cells"] == pytest.approx(
        2 * hits / (answered + wanted) if answered + wanted else math.nan, nan_ok=True
    )


def test_locations_are_for_listings_of_cells() -> None:
    scorer = GridLocations()
    assert (
        scorer.mismatch([row("", "roads ['top-left'] buildings []"), row("", "Roads: top left; buildings: none")]) != ""
    )
    assert scorer.mismatch([row("", "roads ['top-left', 'middle'] and buildings []")]) == ""
    assert "do not list cells" in scorer.mismatch([row("", "yes")])
    assert GridLocations(()).mismatch([row("", "top-left, bottom-right")]) == ""
    with pytest.raises(DataError, match="does not list cells of roads and buildings"):
        scorer.evaluate([row("roads", "roads ['top-left']")])
