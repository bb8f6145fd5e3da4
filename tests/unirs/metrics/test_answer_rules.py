from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirs.errors import DataError
from unirs.metrics.answer_rules import Contains, EarthDialRecall, LrsVqa, VrsBenchVqa
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import interval, point_estimate
from unirs.metrics.scorer import Scorer
from unirs.metrics.treebank import treebank_tokens
from unirs.metrics.vqa import VqaAccuracy

# WordNet's format: lemma, part of speech, synsets, pointers, their kinds, two counts, offsets of synsets.
INDEX = {
    "noun": "  1 a license line\n"
    "road n 1 1 @ 1 1 00000010\nroute n 2 1 @ 2 1 00000010 00000020\nlake n 1 1 @ 1 1 00000030\n"
    "man n 1 1 @ 1 1 00000040\ncar n 1 1 @ 1 1 00000050\nauto n 1 1 @ 1 1 00000050\nbuild n 1 1 @ 1 1 00000060\n"
    "physique n 1 1 @ 1 1 00000060\nswimming_pool n 1 1 @ 1 1 00000070\npool n 1 1 @ 1 1 00000070\n",
    "verb": "build v 1 1 @ 1 1 00000010\nconstruct v 1 1 @ 1 1 00000010\ngo v 1 1 @ 1 1 00000080\n"
    "travel v 1 1 @ 1 1 00000080\n",
    "adj": "",
    "adv": "",
}
EXCEPTIONS = {"noun": "", "verb": "went go\n", "adj": "", "adv": ""}


def write_wordnet(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, text in INDEX.items():
        (folder / f"index.{part}").write_text(text)
        (folder / f"{part}.exc").write_text(EXCEPTIONS[part])
    return folder


def row(answer: str, *references: str, category: str = "") -> Prediction:
    return Prediction("1", "t", ("a.png",), category, "", answer, references)


def score(scorer: Scorer, answer: str, reference: str) -> float:
    return scorer.evaluate([row(answer, reference)]).scores[0]


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "earthdial", "contains"),
    [
        ("yes", "yes", 1, 1, 1),
        ("Yes.", "yes", 1, 1, 1),
        ("yes, it is", "yes", 0, 1, 1),
        ("yesterday", "yes", 0, 0, 1),
        ("dense residential", "denseresidential", 0, 1, 0),
        ("no", "no-damage", 0, 0, 0),
        ("12", "2", 0, 0, 1),
        ("a road", "road, a", 0, 0, 0),
        ("road", "road, trees", 0, 1 / 3, 0),
        ("it's a road", "it's", 0, 0, 1),
        ("", "yes", 0, 0, 0),
        ("yes", "", 0, 0, 0),
    ],
)
def test_the_same_answer_by_three_rules(
    answer: str, reference: str, exact: float, earthdial: float, contains: float
) -> None:
    scorers: tuple[Scorer, ...] = (VqaAccuracy(), EarthDialRecall(), Contains())
    assert [score(each, answer, reference) for each in scorers] == pytest.approx([exact, earthdial, contains])


@given(st.text(max_size=20), st.text(max_size=20))
def test_rules_stay_between_0_and_1_and_a_text_is_right_by_itself(answer: str, reference: str) -> None:
    for scorer in (EarthDialRecall(), Contains()):
        assert 0 <= score(scorer, answer, reference) <= 1
    assert score(Contains(), reference, reference) == float(bool(reference.strip()))


@pytest.mark.slow
def test_tokens_are_those_of_nltk() -> None:
    tokenizer = pytest.importorskip("nltk.tokenize", exc_type=ImportError).NLTKWordTokenizer()
    pieces = [
        "yes",
        "12",
        "3,4",
        "'s",
        "n't",
        "do",
        "cannot",
        ".",
        ",",
        ":",
        "'",
        '"',
        "(",
        "]",
        "--",
        "`",
        "%",
        "\u2019",
    ]

    @given(st.lists(st.sampled_from(pieces)).map("".join))
    def check(text: str) -> None:
        assert list(treebank_tokens(text)) == tokenizer.tokenize(text)

    check()


def test_tokens_by_hand() -> None:
    assert treebank_tokens("it's.") == ("it", "'s", ".")
    assert treebank_tokens("3,400,no(road)") == ("3,400", ",", "no", "(", "road", ")")
    assert treebank_tokens("cannot") == ("can", "not")


def test_vrsbench_without_a_judge() -> None:
    rows = [
        row("It is a bridge.", "Bridge", category="object category"),
        row("12", "2", category="object quantity"),
        row("three", "3", category="object quantity"),
        row("a soccer field", "football field", category="image"),
        row("rural", "rural", category="rural or urban"),
        row("no", "yes", category="Object existence"),
    ]
    evaluation = VrsBenchVqa().evaluate(rows)
    assert evaluation.scores == [1, 1, 0, 0, 1, 0]
    values = {name: point_estimate(each) for name, each in evaluation.statistics.items()}
    assert values == pytest.approx(
        {
            "accuracy": 3 / 6,
            "accuracy_macro": (1 + 1 / 2 + 1 / 2 + 0) / 4,
            "accuracy/object category": 1,
            "accuracy/object existence": 0,
            "accuracy/object quantity": 1 / 2,
            "accuracy/scene type": 1 / 2,
            "needs_judge": 1 / 6,
        }
    )
    assert evaluation.notes == ("judge: none. 1 of 6 answers need a judge and are scored by the substring alone.",)


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("Road", "road", True),
        ("route", "road", True),  # a common synset
        ("cars", "auto", True),  # plural
        ("men", "man", True),
        ("building", "construct", True),  # of the verb
        ("building", "physique", False),  # `build` is a noun too, but `-ing` is an ending of verbs only
        ("construct", "road", False),  # offsets of verbs and of nouns differ in meaning
        ("went", "travel", True),  # irregular
        ("lake", "road", False),
        ("swimming pool", "pool", False),  # WordNet writes `swimming_pool`
        ("swimming_pool", "pool", True),
        ("unknown", "road", False),
        ("", "", False),
    ],
)
def test_lrsvqa_accepts_synonyms(tmp_path: Path, answer: str, reference: str, right: bool) -> None:
    assert score(LrsVqa(write_wordnet(tmp_path / "dict")), answer, reference) == float(right)


def test_wordnet_is_found_in_nltks_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wordnet(tmp_path / "corpora" / "wordnet")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    assert score(LrsVqa(), "route", "road") == 1
    assert LrsVqa().mismatch([row("a", "b")]) == ""


def test_wordnet_may_be_zipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    folder = write_wordnet(tmp_path / "files" / "wordnet")
    (tmp_path / "corpora").mkdir()
    with zipfile.ZipFile(tmp_path / "corpora" / "wordnet.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"wordnet/{path.name}")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    assert score(LrsVqa(), "route", "road") == 1


def test_absent_or_damaged_wordnet_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unirs.metrics.wordnet._candidates", lambda: iter(()))
    with pytest.raises(DataError, match=r"WordNet's database is not found\. Install it with .*nltk"):
        score(LrsVqa(), "route", "road")
    assert "not found" in LrsVqa().mismatch([row("a", "b")])
    with pytest.raises(DataError, match=r"index\.noun does not exist"):
        score(LrsVqa(tmp_path / "nowhere"), "route", "road")
    folder = write_wordnet(tmp_path / "dict")
    (folder / "index.verb").write_text("build v many 1 @ 1 1 00000010\n")
    with pytest.raises(DataError, match=r"index\.verb, line 1 is no entry of WordNet"):
        score(LrsVqa(folder), "route", "road")


def test_category_means_have_intervals() -> None:
    rows = [row("yes", "yes", category="a"), row("no", "yes", category="b")]
    statistics = EarthDialRecall().evaluate(rows).statistics
    assert list(statistics) == ["accuracy", "accuracy_macro", "accuracy/a", "accuracy/b"]
    assert interval(statistics["accuracy"], [1, 2], resamples=100) == (0, 1)


def test_rules_are_for_one_reference_that_is_no_box() -> None:
    assert Contains().mismatch([row("a", "b")]) == ""
    assert Contains().mismatch([row("a", "b"), row("a", "b", "c")]) == "1 of 2 rows have several references"
    assert Contains().mismatch([row("a", "[[1, 2, 3, 4, 0]]")]) == "the references are boxes (rotated)"
