import json
from pathlib import Path

import pytest

from unirs.errors import DataError
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import interval, point_estimate
from unirs.metrics.caption import CaptionMetrics
from unirs.metrics.rsicc import UNCHANGED, RsiccCaptions

WORDS = sorted({word for sentence in UNCHANGED for word in sentence.split()} | {"a", "road", "is", "built", "house"})


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.json"
    marks = ["<NULL>", "<UNK>", "<START>", "<END>"]
    path.write_text(json.dumps({word: number for number, word in enumerate([*marks, *WORDS])}))
    return path


def row(answer: str, *references: str) -> Prediction:
    return Prediction(answer, "levir_cc", (answer,), "", "", answer, references)


ROWS = (
    row("A road is built.", "a road is built", "a house is built", "a villa is built"),
    row("there is no difference", "a road is built", "a house is built"),
    row("There is no difference.", UNCHANGED[0], UNCHANGED[1]),
    row("a villa is built", UNCHANGED[3], UNCHANGED[4]),
)


def test_captions_are_ids_and_unknown_words_are_equal(vocabulary: Path) -> None:
    evaluation = RsiccCaptions(vocabulary, meteor=False).evaluate(ROWS)
    number = {word: index for index, word in enumerate(WORDS, 4)}
    assert evaluation.normalized[0] == " ".join(str(number[word]) for word in ["a", "road", "is", "built"])
    assert evaluation.normalized[3].split()[1] == "1"
    assert evaluation.notes == ("1 words of the answers are not among the 24 of vocab.json.",)
    same = row("a barn is built", "a villa is built", "x y")
    assert point_estimate(
        RsiccCaptions(vocabulary, meteor=False).evaluate([same]).statistics["bleu_1"]
    ) == pytest.approx(1)
    assert point_estimate(CaptionMetrics(meteor=False).evaluate([same]).statistics["bleu_1"]) < 0.9


def test_pairs_are_split_by_their_first_reference(vocabulary: Path) -> None:
    statistics = RsiccCaptions(vocabulary, meteor=False).evaluate(ROWS).statistics
    numbers = {name: point_estimate(each) for name, each in statistics.items() if name.startswith("change_accuracy")}
    assert numbers == {"change_accuracy": 0.5, "change_accuracy/changed": 0.5, "change_accuracy/unchanged": 0.5}
    assert statistics["bleu_1/changed"].n == 2


def test_a_split_is_scored_as_a_corpus_of_its_own(vocabulary: Path) -> None:
    scorer = RsiccCaptions(vocabulary, meteor=False)
    all_rows, changed = scorer.evaluate(ROWS).statistics, scorer.evaluate(ROWS[:2]).statistics
    for name in ("bleu_4", "rouge_l", "cider"):
        assert point_estimate(all_rows[f"{name}/changed"]) == pytest.approx(point_estimate(changed[name]))
    assert interval(all_rows["cider/changed"], [1, 2, 3, 4], resamples=50)[0] >= 0


def test_numbers_are_those_of_the_plain_protocol_if_all_words_are_known(vocabulary: Path) -> None:
    rows = [row("a road is built", "a house is built", "a road is built"), row("there is a house", "a house", "a road")]
    by_ids, by_words = (
        scorer.evaluate(rows).statistics
        for scorer in (RsiccCaptions(vocabulary, meteor=False), CaptionMetrics(meteor=False))
    )
    for name, statistic in by_words.items():
        assert point_estimate(by_ids[name]) == pytest.approx(point_estimate(statistic), abs=1e-12)


def test_vocabulary_is_required_and_checked(vocabulary: Path) -> None:
    assert RsiccCaptions().mismatch(ROWS) == "it needs --option vocabulary=FILE"
    assert RsiccCaptions(vocabulary).mismatch(ROWS) == ""
    assert RsiccCaptions(vocabulary).mismatch([row("a", "b")]) == "1 of 1 rows have a single reference"
    with pytest.raises(DataError, match="needs the ids of words"):
        RsiccCaptions().evaluate(ROWS)
    for content, message in (("[]", "no vocabulary"), ('{"a": "b"}', "no vocabulary"), ('{"a": 1}', "lacks '<UNK>'")):
        path = vocabulary.with_name(f"{len(content)}.json")
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            RsiccCaptions(path).evaluate(ROWS)
