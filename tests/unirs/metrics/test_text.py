import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirs.metrics import CaptionMetrics, Prediction, Scorer, TextMetric, Top1, VqaAccuracy
from unirs.metrics.caption import tokenize
from unirs.metrics.text import strip_thinking, words
from unirs.metrics.vqa import normalize_answer


def row(answer: str, reference: str, category: str = "") -> Prediction:
    return Prediction(answer, "task", ("a.png",), category, "", answer, (reference,))


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("<10%", ">10%", 0),
        ("< 10 %.", "<10", 1),
        ("≤ 10", "≥10", 0),
        ("-5", "5", 0),
        ("\N{MINUS SIGN}5", "5", 0),
        ("(-5)", "-5", 1),
        ("- 5", "5", 1),
        ("+5", "-5", 0),
        (".5", "5", 0),
        ("...5", "5", 1),
        ("10%", "10", 1),
        ("**yes**", "yes", 1),
        ("का", "की", 0),
        ("का।", "का", 1),
        (unicodedata.normalize("NFD", "Zürich"), unicodedata.normalize("NFC", "ZÜRICH"), 1),
        ("yes ✔\N{VARIATION SELECTOR-16}", "yes", 1),
    ],
)
def test_signs_and_combining_marks_are_no_punctuation(answer: str, reference: str, score: float) -> None:
    assert VqaAccuracy().evaluate([row(answer, reference)]).scores == [score]


@pytest.mark.parametrize(
    ("classes", "answer", "found"),
    [
        (("<10%", ">10%"), "It is > 10% of the area.", ">10%"),
        (("-5", "5"), "The class is -5.", "-5"),
        (("का", "की"), "यह की है", "की"),
        ((unicodedata.normalize("NFD", "Zürich"), "Bern"), "in Zürich", unicodedata.normalize("NFD", "Zürich")),
    ],
)
def test_classes_keep_signs_and_combining_marks(classes: tuple[str, ...], answer: str, found: str) -> None:
    evaluation = Top1(classes).evaluate([row(answer, found, found)])
    assert (evaluation.normalized, evaluation.scores) == ([found], [1.0])


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("About -5 m, not 2-3 m - it's <10%.", "about -5 m not 2-3 m it's <10"),
        ("नदी का पुल।", "नदी का पुल"),
        (unicodedata.normalize("NFD", "Zürich"), unicodedata.normalize("NFC", "zürich")),
        ("houses.2 of <b>10</b>", "houses 2 of b 10 b"),
    ],
)
def test_tokens_of_captions_keep_signs_and_combining_marks(text: str, tokens: str) -> None:
    assert tokenize(text) == tokens


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("yes", "yes"),
        ("<think>\n\n</think>\n\nyes", "yes"),
        ("<THINKING>no?</THINKING> yes", "yes"),
        ("The prompt opened the block: no.</think>\nyes", "yes"),
        ("<think>a</think> yes <think>b</think>", "yes"),
        ("<think>no end", ""),
        ("<thinker> yes", "<thinker> yes"),
        ("<think>" * 100_000, ""),
    ],
)
def test_blocks_of_reasoning_are_stripped(text: str, answer: str) -> None:
    assert strip_thinking(text) == answer


def test_no_scorer_counts_reasoning() -> None:
    from torchmetrics.text import WordErrorRate

    scorers: list[Scorer] = [
        VqaAccuracy(),
        Top1(("yes", "no")),
        CaptionMetrics(meteor=False),
        TextMetric(WordErrorRate),
    ]
    for scorer in scorers:
        plain, thinking = (
            scorer.evaluate([row(f"{block}yes", "yes", "yes")]) for block in ("", "<think>no or yes?</think>\n\n")
        )
        assert plain.normalized == thinking.normalized == ["yes"], scorer.name
        assert list(plain.scores) == pytest.approx(list(thinking.scores), nan_ok=True)


def test_normalization_takes_linear_time() -> None:
    assert normalize_answer("<" * 200_000 + " " * 200_000 + "yes" + "." * 200_000) == "yes"


@given(st.text(st.characters(codec="ascii"), max_size=40), st.sampled_from(["", "-'"]))
def test_words_do_not_depend_on_other_words(text: str, joints: str) -> None:
    # ASCII without numbers has a pattern of its own; the last word leads to the general one.
    assert words(f"{text} é", joints) == [*words(text, joints), "é"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a well-built road isn't here", ["a", "well-built", "road", "isn't", "here"]),
        ("snake_case -x x- 'y'", ["snake", "case", "x", "x", "y"]),
        ("under < 10, now -5", ["under", "<10", "now", "-5"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text, "-'") == expected
