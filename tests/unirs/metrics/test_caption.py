import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from unirs.metrics.base import Evaluation, Prediction, Statistic
from unirs.metrics.bootstrap import interval, point_estimate
from unirs.metrics.caption import CaptionMetrics, describes_change, tokenize

SCORES = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"]

words = st.sampled_from(["a", "the", "road", "house", "is", "built", "trees", "removed"])
sentences = st.lists(words, min_size=1, max_size=9).map(" ".join)
captions = st.lists(words, max_size=9).map(" ".join)
corpora = st.lists(st.tuples(captions, st.lists(sentences, min_size=1, max_size=5)), min_size=1, max_size=8)

Corpus = list[tuple[str, list[str]]]


def evaluate(corpus: Corpus, categories: list[str] | None = None) -> Evaluation:
    rows = [
        Prediction(str(number), "levir_cc", (f"{number}.png",), category, "", answer, tuple(references))
        for number, ((answer, references), category) in enumerate(
            zip(corpus, categories or [""] * len(corpus), strict=True)
        )
    ]
    return CaptionMetrics().evaluate(rows, slow=False)


def points(evaluation: Evaluation) -> dict[str, float]:
    return {name: point_estimate(statistic) for name, statistic in evaluation.statistics.items()}


def by_pycocoevalcap(corpus: Corpus) -> dict[str, float]:
    references = {number: texts for number, (_, texts) in enumerate(corpus)}
    predicted = {number: [text] for number, (text, _) in enumerate(corpus)}
    bleu = Bleu(4).compute_score(references, predicted, verbose=0)[0]
    values = [*bleu, Rouge().compute_score(references, predicted)[0], Cider().compute_score(references, predicted)[0]]
    return dict(zip(SCORES, map(float, values), strict=True))


@settings(deadline=None)
@given(corpora)
def test_scores_equal_pycocoevalcaps(corpus: Corpus) -> None:
    expected = by_pycocoevalcap(corpus)
    assert points(evaluate(corpus)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(corpora)
def test_row_scores_are_pycocoevalcaps_cider_of_each_row(corpus: Corpus) -> None:
    _, rows = Cider().compute_score(
        dict(enumerate(texts for _, texts in corpus)), dict(enumerate([t] for t, _ in corpus))
    )
    assert evaluate(corpus).scores == pytest.approx(rows.tolist(), rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(corpora, st.data())
def test_categories_are_scored_with_the_document_frequencies_of_all_rows(corpus: Corpus, data: st.DataObject) -> None:
    categories = data.draw(
        st.lists(st.sampled_from(["changed", "unchanged", ""]), min_size=len(corpus), max_size=len(corpus))
    )
    evaluation = evaluate(corpus, categories)
    values = points(evaluation)
    for category in ("changed", "unchanged"):
        part = [number for number, it in enumerate(categories) if it == category]
        assert (f"cider/{category}" in values) == bool(part)
        if part:
            expected = by_pycocoevalcap([corpus[number] for number in part])
            expected["cider"] = float(np.mean([evaluation.scores[number] for number in part]))
            assert {name: values[f"{name}/{category}"] for name in SCORES} == pytest.approx(
                expected, rel=1e-9, abs=1e-9
            )
            assert evaluation.statistics[f"bleu_4/{category}"].n == len(part)


def test_bleu_by_hand() -> None:
    # "a road is built" of length 4 against "a road was built there" of length 5: 3 of 4 words, 1 of 3 pairs.
    brevity = math.exp(1 - 5 / 4)
    values = points(evaluate([("a road is built", ["a road was built there"])]))
    assert values["bleu_1"] == pytest.approx(3 / 4 * brevity, abs=1e-6)
    assert values["bleu_2"] == pytest.approx(math.sqrt(3 / 4 * 1 / 3) * brevity, abs=1e-6)
    assert values["bleu_3"] == pytest.approx(0, abs=1e-4)


def test_rouge_by_hand() -> None:
    # The longest common subsequence has 3 words: precision 3/4, recall 3/5, beta 1.2.
    precision, recall, beta = 3 / 4, 3 / 5, 1.2
    expected = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    assert points(evaluate([("a road is built", ["a road was built there"])]))["rouge_l"] == pytest.approx(expected)


def test_a_caption_equal_to_its_only_reference_has_cider_ten() -> None:
    corpus = [("a new road is built", ["A new road is built."]), ("trees are gone now", ["Trees are gone now ."])]
    assert points(evaluate(corpus))["cider"] == pytest.approx(10)


def test_captions_are_compared_as_lower_case_words_without_punctuation() -> None:
    answer = "  A T-shaped road, isn\N{RIGHT SINGLE QUOTATION MARK}t  it?"
    assert tokenize(answer) == "a t-shaped road isn't it"
    evaluation = evaluate([(answer, ["a t-shaped road isn't it ."]), ("b", ["c"])])
    assert evaluation.normalized[0] == "a t-shaped road isn't it"
    assert evaluation.scores[0] == pytest.approx(10)


@pytest.mark.parametrize("corpus", [[("", ["a road"])], [("", ["."])], [("?!", ["a road", ""]), ("", ["trees"])]])
def test_captions_without_words_score_zero(corpus: Corpus) -> None:
    evaluation = evaluate(corpus, ["unchanged"] * len(corpus))
    assert evaluation.scores == [0.0] * len(corpus)
    assert points(evaluation) == pytest.approx(dict.fromkeys(evaluation.statistics, 0.0), abs=1e-9)


@given(st.lists(st.tuples(st.text(), st.lists(st.text(), min_size=1, max_size=3)), min_size=1, max_size=3))
def test_any_text_is_scored(corpus: Corpus) -> None:
    assert all(math.isfinite(value) for value in points(evaluate(corpus)).values())


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate([("a road", ["a road"])])
    assert capsys.readouterr() == ("", "")


def test_order_of_statistics() -> None:
    evaluation = evaluate([("no change", ["no change"]), ("a road", ["a road"])], ["unchanged", "changed"])
    changed, unchanged = ([f"{name}/{category}" for name in SCORES] for category in ("changed", "unchanged"))
    assert list(evaluation.statistics) == [*SCORES, *changed, *unchanged, "change_accuracy"]
    assert evaluation.primary_metric == "cider"


def test_resampled_bleu_is_the_bleu_of_the_resampled_corpus() -> None:
    corpus = [
        ("a road is built", ["a road was built"]),
        ("trees", ["the trees"]),
        ("a house is built", ["a house is built"]),
    ]
    weights = np.array([2, 0, 1])
    repeated = [corpus[0], corpus[0], corpus[2]]
    for name in SCORES[:4]:
        statistic = evaluate(corpus).statistics[name]
        assert statistic.from_sums(weights @ statistic.row_sums) == pytest.approx(
            by_pycocoevalcap(repeated)[name], abs=1e-9
        )


def test_a_bleu_of_no_rows_is_undefined() -> None:
    statistic = evaluate([("a b c d", ["a b c d"]), ("b", ["b"])], ["changed", "unchanged"]).statistics[
        "bleu_4/changed"
    ]
    assert np.isnan(statistic.from_sums(np.zeros((2, statistic.row_sums.shape[1])))).all()
    assert interval(statistic, ["x", "y"]) == pytest.approx((1, 1))


def test_change_accuracy_counts_rows_of_both_categories() -> None:
    corpus = [(answer, ["x"]) for answer in ("a road is built", "no change", "no change", "", "a road")]
    statistic: Statistic = evaluate(corpus, ["changed", "changed", "unchanged", "unchanged", ""]).statistics[
        "change_accuracy"
    ]
    assert (point_estimate(statistic), statistic.n) == (0.5, 4)
    assert "change_accuracy" not in evaluate(corpus).statistics


@pytest.mark.parametrize(
    "text",
    [
        "there is no difference .",
        "the two scenes seem identical .",
        "the scene is the same as before .",
        "no change has occurred .",
        "almost nothing has changed .",
        "There is almost no difference between the two images.",
        "Nothing has changed",
        "no difference",
        "there is no obvious change in this area",
        "there are no significant differences",
        "the two images appear identical to each other",
        "the buildings and the road are the same as before",
        "the scene remains unchanged",
        "the scene has not changed",
        "The area hasn't been changed.",
        "not much has changed",
        "no new buildings have been built",
        "no houses appear",
        "nothing new has been constructed",
        "there is nothing new here",
        "both scenes look alike",
        "everything is as it was before",
    ],
)
def test_sentences_for_unchanged_pairs_describe_no_change(text: str) -> None:
    assert not describes_change(text)


@pytest.mark.parametrize(
    "text",
    [
        "a road is built in the bareland .",
        "some trees are removed and houses are constructed",
        "the road has not changed but a house is built",
        "there is no difference except a new house",
        "many villas appear and there are no other changes",
        "the scene is no longer the same",
        "the trees are no longer there",
        "the two scenes are not identical",
        "houses have replaced the trees at the same place",
        "the bareland gives way to a parking lot in the same area",
        "no trees and some houses appear",
        "the bare land has changed into a road",
        "there is a difference in the upper left corner",
    ],
)
def test_other_sentences_describe_a_change(text: str) -> None:
    assert describes_change(text)


def test_a_text_without_words_describes_no_change() -> None:
    assert not describes_change(" .")
