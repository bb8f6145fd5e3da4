import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test
from pycocoevalcap.cider.cider_scorer import CiderScorer
from pycocoevalcap.rouge.rouge import Rouge

from unirs.metrics.ngram import bleu_and_cider, bleu_value, rouge_l

# Few words, so that n-grams recur; up to 80 of them, more than a machine word has bits.
texts = st.lists(st.sampled_from("abc"), min_size=1, max_size=80).map(" ".join)
corpora = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=4)

Corpus = list[tuple[str, list[str]]]


def columns(corpus: Corpus) -> tuple[list[str], list[list[str]]]:
    return [caption for caption, _ in corpus], [references for _, references in corpus]


@settings(deadline=None)
@given(corpora)
def test_counts_are_those_of_pycocoevalcap(corpus: Corpus) -> None:
    counts, _ = bleu_and_cider(*columns(corpus))
    for row, (caption, references) in zip(counts.tolist(), corpus, strict=True):
        cooked = cook_test(caption, cook_refs(references), eff="closest")
        assert row == [*cooked["correct"], *cooked["guess"], cooked["testlen"], cooked["reflen"], 1]


@settings(deadline=None)
@given(corpora)
def test_cider_is_that_of_pycocoevalcap(corpus: Corpus) -> None:
    scorer = CiderScorer()
    for caption, references in corpus:
        scorer += (caption, references)
    assert bleu_and_cider(*columns(corpus))[1] == pytest.approx(scorer.compute_score()[1], rel=0, abs=1e-9)


@settings(deadline=None)
@given(corpora)
def test_rouge_is_that_of_pycocoevalcap(corpus: Corpus) -> None:
    expected = [Rouge().calc_score([caption], references) for caption, references in corpus]
    assert rouge_l(*columns(corpus)) == pytest.approx(expected, rel=0, abs=1e-12)


def test_the_shorter_of_two_references_that_are_as_close() -> None:
    counts, _ = bleu_and_cider(["a b c"], [["a b c d", "a b", "a b c d e f"]])
    assert counts[0, 8:].tolist() == [3, 2, 1]


def test_a_word_counts_no_more_often_than_in_the_reference_that_has_it_most() -> None:
    counts, _ = bleu_and_cider(["the the the the"], [["the cat", "the the mat"]])
    assert counts[0, :8].tolist() == [2, 1, 0, 0, 4, 3, 2, 1]


def test_an_ngram_of_all_rows_has_no_weight() -> None:
    _, cider = bleu_and_cider(["a", "a b"], [["a"], ["a b"]])
    assert cider[0] == 0
    assert cider[1] == pytest.approx(5)  # of the words and the pairs; there is nothing longer


def test_no_rows() -> None:
    counts, cider = bleu_and_cider([], [])
    assert counts.shape == (0, 11)
    assert cider.shape == (0,)
    assert np.isnan(bleu_value(counts.sum(axis=0), order=4))
    assert rouge_l([], []) == []
