"""Text metrics of torchmetrics as scorers, and the code of the page on metrics."""

import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from torchmetrics.text import CHRFScore, Perplexity, SacreBLEUScore, WordErrorRate

from unirs.errors import DataError, PluginError
from unirs.evaluation.results import TaskResult, format_table, to_document
from unirs.metrics import Prediction, Scorer, TextMetric
from unirs.metrics.bootstrap import interval, point_estimate
from unirs.metrics.registry import named_metric

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def row(number: int, text: str, *references: str) -> Prediction:
    return Prediction(str(number), "captions", (f"{number}.png",), "", "", text, references)


ROWS = [
    row(1, "a road is built", "a road was built", "a new road"),
    row(2, "no change", "no change", "nothing has changed"),
    row(3, "trees", "the trees are gone", "trees were removed"),
]


def values(scorer: Scorer, rows: list[Prediction]) -> dict[str, float]:
    return {name: point_estimate(one) for name, one in scorer.evaluate(rows).statistics.items()}


@pytest.mark.parametrize(
    ("factory", "name"),
    [
        (CHRFScore, "chrf_score"),
        (partial(CHRFScore, n_char_order=3), "chrf_score"),
        (SacreBLEUScore, "sacre_bleu_score"),
    ],
)
def test_the_value_is_that_of_torchmetrics(factory: Callable[[], Any], name: str) -> None:
    alone = factory()
    alone.update([one.text for one in ROWS], [list(one.references) for one in ROWS])
    assert TextMetric(factory).name == name
    assert values(TextMetric(factory), ROWS) == {name: pytest.approx(float(alone.compute()))}


def test_a_number_over_all_rows_has_no_interval_in_results() -> None:
    evaluation = TextMetric(CHRFScore).evaluate(ROWS)
    assert evaluation.primary_metric == "chrf_score"
    assert all(map(math.isnan, evaluation.scores))
    document = to_document("test", None, [TaskResult("captions", ROWS, evaluation, {})], {})
    numbers = document["tasks"]["captions"]["chrf_score"]
    assert numbers == {"value": numbers["value"], "ci_low": None, "ci_high": None, "n": 3}
    assert re.search(rf"chrf_score +{numbers['value']:.4f} +- +3\n", format_table(document))
    json.dumps(document, allow_nan=False)


class PerRow(torchmetrics.Metric):
    """Values of each form that `compute` may return."""

    primary_metric = "length"

    def __init__(self) -> None:
        super().__init__()
        self.add_state("lengths", torch.zeros(0), dist_reduce_fx="cat")

    def update(self, preds, target) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001, ARG002
        self.lengths = torch.tensor([float(len(text.split())) for text in preds])

    def compute(self) -> dict[str, Any]:
        return {"longest": (self.lengths.max(), self.lengths), "length": self.lengths}


def test_numbers_per_row_are_averaged_with_an_interval() -> None:
    evaluation = TextMetric(PerRow).evaluate(ROWS)
    assert values(TextMetric(PerRow), ROWS) == {"longest": 4, "length": pytest.approx(7 / 3)}
    assert (evaluation.primary_metric, evaluation.scores) == ("length", [4, 2, 1])
    assert interval(evaluation.statistics["length"], range(3)) == (1, 4)


def test_a_metric_of_single_references() -> None:
    single = [row(1, "a road", "a road"), row(2, "trees", "no trees")]
    assert values(TextMetric(WordErrorRate), single) == {"word_error_rate": pytest.approx(1 / 4)}
    with pytest.raises(DataError, match="Row 1 has 2 references; the metric 'word_error_rate' takes exactly one"):
        TextMetric(WordErrorRate).evaluate(ROWS)
    with pytest.raises(DataError, match="Row 4 has 0 references; the metric 'chrf_score' takes at least one"):
        TextMetric(CHRFScore).evaluate([row(4, "a road")])


def test_several_metrics_in_a_collection() -> None:
    pair = TextMetric(lambda: torchmetrics.MetricCollection([CHRFScore(), SacreBLEUScore()]))
    assert set(values(pair, ROWS)) == {"CHRFScore", "SacreBLEUScore"}


def test_unsuitable_metrics() -> None:
    def missing() -> torchmetrics.Metric:
        raise ModuleNotFoundError("pip install nltk")

    class Matrix(PerRow):
        def compute(self) -> Any:  # noqa: ANN401
            return torch.zeros(2, 2)

    class Unnamed(PerRow):
        primary_metric = "f1"

    cases: list[tuple[Any, str]] = [
        (missing, "'missing' cannot be used: pip install nltk"),
        (Perplexity, "'perplexity' takes no list of texts"),
        (Matrix, "Return a number, or one number per row"),
        (Unnamed, "without its primary 'f1'"),
        (dict, "'dict' made a dict"),
    ]
    for factory, message in cases:
        with pytest.raises(PluginError, match=message):
            TextMetric(factory).evaluate(ROWS)


def test_the_pages_metric_and_scorer(tmp_path: Path) -> None:
    own, scorer, use = BLOCKS
    path = tmp_path / "my_metrics.py"
    path.write_text(f"{own}\n{scorer}\n{use}")
    assert len([line for line in own.splitlines() if line]) <= 15
    assert values(TextMetric(named_metric(f"{path}:WordRatio")), ROWS) == {"word_ratio": pytest.approx(7 / 10)}
    first_word = named_metric(f"{path}:FirstWord")
    assert isinstance(first_word, Scorer)
    assert values(first_word, ROWS) == {"first_word": 1}
