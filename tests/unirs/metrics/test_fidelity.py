"""Caption scores against pycocoevalcap's own scorers, on corpora of the size of a test set."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from unirs_tasks.synth.sentences import Topic, describe_changes

from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import point_estimate
from unirs.metrics.caption import CaptionMetrics, tokenize

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="METEOR needs Java")

COCO = Path(__file__).parents[3] / "data" / "coco_captions"
"""pycocoevalcap's example: `captions_val2014.json` of MS COCO, `captions_val2014_fakecap_results.json` of its API."""

TOPICS: tuple[Topic, ...] = ("many houses", "a building", "a road", "trees", "a pond", "a parking lot")


def change_captions(count: int) -> list[Prediction]:
    """Five references a pair, and answers that are right, of another pair, cut short, shuffled or empty."""
    generator = np.random.default_rng(count)
    rows: list[Prediction] = []
    for number in range(count):
        topics = generator.permutation(len(TOPICS))[: number % 3]
        events = [(TOPICS[index], bool(generator.random() < 0.7), "top left") for index in topics if index != 5]
        predicted, *references = describe_changes(generator, events, 6)
        words = predicted.split()
        answers = (
            predicted,
            rows[-1].references[0] if rows else "",
            " ".join(words[:4]),
            " ".join(generator.permutation(words)),
            "",
        )
        answer = answers[generator.choice(5, p=[0.5, 0.2, 0.15, 0.14, 0.01])]
        category = "changed" if events else "unchanged"
        rows.append(Prediction(str(number), "levir_cc", (f"{number}.png",), category, "", answer, tuple(references)))
    return rows


def zipf_captions(count: int) -> list[Prediction]:
    """Words as rare as in real text, and 1 to 5 references of unequal length."""
    generator = np.random.default_rng(count)

    def sentence() -> str:
        return " ".join(f"w{min(word, 5000)}" for word in generator.zipf(1.4, size=generator.integers(1, 25)))

    rows = []
    for number in range(count):
        references = [sentence() for _ in range(generator.integers(1, 6))]
        kept = [word for word in references[0].split() if generator.random() < 0.7]
        answer = " ".join([*kept, sentence()]) if number % 2 else " ".join(kept)
        rows.append(Prediction(str(number), "t", (f"{number}.png",), "", "", answer, tuple(references)))
    return rows


def by_pycocoevalcap(rows: Sequence[Prediction], *, meteor: bool) -> dict[str, float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge

    references = {row.id: [tokenize(text) for text in row.references] for row in rows}
    predicted = {row.id: [tokenize(row.text)] for row in rows}
    scores = {f"bleu_{n}": s for n, s in enumerate(Bleu(4).compute_score(references, predicted, verbose=0)[0], start=1)}
    scores["rouge_l"] = Rouge().compute_score(references, predicted)[0]
    scores["cider"] = Cider().compute_score(references, predicted)[0]
    if meteor:
        scorer = Meteor()
        scores["meteor"] = scorer.compute_score(references, predicted)[0]
        for pipe in (scorer.meteor_p.stdin, scorer.meteor_p.stdout, scorer.meteor_p.stderr):
            pipe.close()
    return {name: float(score) for name, score in scores.items()}


def assert_equal_scores(rows: Sequence[Prediction], *, meteor: bool) -> None:
    expected = by_pycocoevalcap(rows, meteor=meteor)
    statistics = CaptionMetrics().evaluate(rows, slow=meteor).statistics
    assert {name: point_estimate(statistics[name]) for name in expected} == pytest.approx(expected, rel=0, abs=1e-9)
    assert all(score > 0.01 for score in expected.values())


@pytest.mark.parametrize("rows", [change_captions(600), zipf_captions(300)], ids=["changes", "zipf"])
def test_scores_equal_pycocoevalcaps(rows: Sequence[Prediction]) -> None:
    assert_equal_scores(rows, meteor=False)


@needs_java
@pytest.mark.slow
@pytest.mark.parametrize("rows", [change_captions(600), zipf_captions(300)], ids=["changes", "zipf"])
def test_meteor_equals_pycocoevalcaps_too(rows: Sequence[Prediction]) -> None:
    assert_equal_scores(rows, meteor=True)


@needs_java
@pytest.mark.slow
@pytest.mark.skipif(not COCO.is_dir(), reason="the MS COCO captions are not in data/coco_captions")
def test_scores_equal_pycocoevalcaps_on_its_example() -> None:
    references: dict[int, list[str]] = {}
    listed: Mapping[str, list[dict[str, object]]] = json.loads((COCO / "captions_val2014.json").read_text())
    for row in listed["annotations"]:
        references.setdefault(int(str(row["image_id"])), []).append(str(row["caption"]))
    answers = json.loads((COCO / "captions_val2014_fakecap_results.json").read_text())
    rows = [
        Prediction(key, "coco", (key,), "", "", row["caption"], tuple(references[row["image_id"]]))
        for row in answers
        if (key := str(row["image_id"]))
    ]
    assert_equal_scores(rows, meteor=True)
