import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import point_estimate
from unirs.metrics.vqa import VqaAccuracy, normalize_answer

CDVQA = Path(__file__).parents[4] / "shared" / "data" / "cdvqa"


def row(number: int, prediction: str, *references: str, category: str = "") -> Prediction:
    return Prediction(str(number), "rsvqa_lr", ("a.tif",), category, "", prediction, references)


@pytest.mark.parametrize(
    ("texts", "normalized"),
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
def test_case_surrounding_space_and_punctuation_are_removed(texts: str, normalized: str) -> None:
    assert normalize_answer(texts) == normalized


@given(st.text())
def test_normalizing_twice_changes_nothing(text: str) -> None:
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)


def test_accuracy_is_micro_macro_and_by_category() -> None:
    rows = [
        row(1, "Yes.", "yes", category="presence"),
        row(2, "no", "yes", category="presence"),
        row(3, "yes yes", "yes", category="presence"),
        row(4, "rural", "urban", "Rural", category="rural_urban"),
        row(5, "no", "no", category="comp"),
    ]
    evaluation = VqaAccuracy(categories=("presence", "comp", "count")).evaluate(rows)
    assert evaluation.normalized == ["yes", "no", "yes yes", "rural", "no"]
    assert evaluation.scores == [1.0, 0.0, 0.0, 1.0, 1.0]
    assert {name: point_estimate(statistic) for name, statistic in evaluation.statistics.items()} == pytest.approx(
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


def test_primary_metric_is_the_accuracy_over_all_rows() -> None:
    assert VqaAccuracy().evaluate([row(1, "a", "a", category="comp")]).primary_metric == "accuracy"


def test_rows_without_category_have_accuracy_only() -> None:
    assert list(VqaAccuracy().evaluate([row(1, "a", "a"), row(2, "b", "a")]).statistics) == ["accuracy"]


def test_an_answer_without_words_is_wrong_even_if_the_reference_has_none() -> None:
    assert VqaAccuracy().evaluate([row(1, "", "yes"), row(2, "-", "+")]).scores == [0.0, 0.0]


# Real rows of RSVQA's schema.

needs_cdvqa = pytest.mark.skipif(not CDVQA.is_dir(), reason="the CDVQA annotations are not beside the checkout")


def real_rows() -> list[dict[str, Any]]:
    """Id, image, type and answer of each question, joined by hand."""
    read = {name: json.loads((CDVQA / f"Val_{name}.json").read_text())[name] for name in ("questions", "answers")}
    answers = {answer["id"]: answer["answer"] for answer in read["answers"]}
    return [question | {"answer": answers[question["answers_ids"][0]]} for question in read["questions"]]


def answered(real: list[dict[str, Any]], texts: list[str]) -> list[Prediction]:
    return [
        Prediction(str(it["id"]), "cdvqa", (str(it["img_id"]),), it["type"], it["question"], text, (it["answer"],))
        for it, text in zip(real, texts, strict=True)
    ]


@needs_cdvqa
def test_right_answers_to_real_questions_score_one_in_every_category() -> None:
    real = real_rows()
    texts = [f" {it['answer'].upper()}." if it["id"] % 2 else it["answer"] for it in real]
    statistics = VqaAccuracy().evaluate(answered(real, texts)).statistics
    assert {name: point_estimate(statistic) for name, statistic in statistics.items()} == dict.fromkeys(statistics, 1.0)
    counts = Counter(it["type"] for it in real)
    assert sum(counts.values()) == statistics["accuracy"].n == 16_441
    assert {name: statistics[f"accuracy/{name}"].n for name in counts} == counts


@needs_cdvqa
@pytest.mark.parametrize("within", ["type", "all"])
def test_shuffled_answers_to_real_questions_score_the_share_of_matches(within: str) -> None:
    real = real_rows()
    texts = [""] * len(real)
    for group in {it["type"] for it in real} if within == "type" else {"all"}:
        positions = [position for position, it in enumerate(real) if group in ("all", it["type"])]
        for position, source in zip(positions, random.Random(3).sample(positions, len(positions)), strict=True):  # noqa: S311
            texts[position] = real[source]["answer"]
    matches, totals = Counter[str](), Counter[str]()
    for it, text in zip(real, texts, strict=True):
        totals[it["type"]] += 1
        matches[it["type"]] += text == it["answer"]
    statistics = VqaAccuracy().evaluate(answered(real, texts)).statistics
    assert 0 < sum(matches.values()) < len(real)
    shares = {kind: matches[kind] / totals[kind] for kind in totals}
    assert {name: point_estimate(statistic) for name, statistic in statistics.items()} == pytest.approx(
        {
            "accuracy": sum(matches.values()) / len(real),
            "accuracy_macro": sum(shares.values()) / len(shares),
            **{f"accuracy/{kind}": share for kind, share in shares.items()},
        },
        abs=1e-12,
    )
