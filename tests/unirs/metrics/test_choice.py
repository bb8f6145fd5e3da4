import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import point_estimate
from unirs.metrics.choice import ChoiceAccuracy, choice_letters


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("A", "A"),
        (" b. ", "B"),
        ("(C)", "C"),
        ("(c) a bridge", "C"),
        ("D. A bridge over a river", "D"),
        ("The best answer is B", "B"),
        ("The correct option is: (D)", "D"),
        ("Answer: A", "A"),
        ("Best answer:C", "C"),
        ("The answers are A and C.", "AC"),
        ("A, C, D", "ACD"),
        ("CA", "AC"),
        ("a and b", "AB"),
        ("A bridge", "A"),  # nothing else is a letter
        ("A bridge, so B", "B"),
        ("(A) and (B) are wrong", "AB"),
        ("yes", ""),
        ("bad", ""),
        ("", ""),
        ("12", ""),
        ("Z", ""),
    ],
)
def test_letters_of_an_answer(text: str, letters: str) -> None:
    assert choice_letters(text) == frozenset(letters)


@given(st.text(max_size=30))
def test_any_text_has_letters_from_a_to_j(text: str) -> None:
    assert choice_letters(text) <= frozenset("ABCDEFGHIJ")


@given(st.sets(st.sampled_from("ABCDEFGHIJ"), min_size=1), st.sampled_from([", ", " ", " and ", "/"]))
def test_lists_of_letters_keep_them(letters: set[str], separator: str) -> None:
    assert choice_letters(f"The answer is {separator.join(sorted(letters))}.") == letters


def test_sets_of_letters_must_be_equal() -> None:
    def row(answer: str, reference: str, category: str) -> Prediction:
        return Prediction("1", "t", (), category, "", answer, (reference,))

    rows = [row("(B)", "B", "x"), row("A, C", "AC", "x"), row("A", "AC", "x"), row("none", "D", "y")]
    evaluation = ChoiceAccuracy().evaluate(rows)
    assert evaluation.scores == [1, 1, 0, 0]
    values = {name: point_estimate(each) for name, each in evaluation.statistics.items()}
    assert values == pytest.approx({"accuracy": 0.5, "accuracy_macro": 1 / 3, "accuracy/x": 2 / 3, "accuracy/y": 0})
    assert ChoiceAccuracy().mismatch(rows) == ""
    assert ChoiceAccuracy().mismatch([row("a", "yes", "")]) == "1 of 1 references are no letters of options"
