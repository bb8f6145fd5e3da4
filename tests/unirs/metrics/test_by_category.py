import numpy as np
import pytest

from unirs.errors import DataError
from unirs.metrics import BinaryQuestions, ByCategory, CaptionMetrics, CountError, Prediction, Scorer
from unirs.metrics.base import Statistic

METRIC = ByCategory({"binary": BinaryQuestions(), "count": CountError(), "caption": CaptionMetrics(meteor=False)})


def row(name: str, text: str, *references: str, category: str) -> Prediction:
    return Prediction(name, "t", (name,), category, "", text, references)


ROWS = [
    row("0", "3", "5", category="count"),
    row("1", "Yes", "yes", category="binary/changed"),
    row("2", "a road is built", "a road is built", category="caption/changed"),
    row("3", "no", "yes", category="binary/unchanged"),
    row("4", "many", "1", category="count"),
    row("5", "there is no difference", "there is no difference", category="caption/unchanged"),
]


def value(statistic: Statistic, weights: np.ndarray | None = None) -> float:
    rows = statistic.row_sums if weights is None else statistic.row_sums * weights[:, None]
    return float(statistic.from_sums(rows.sum(0)))


def test_each_category_is_scored_by_its_metric() -> None:
    evaluation = METRIC.evaluate(ROWS)
    values = {name: value(statistic) for name, statistic in evaluation.statistics.items()}
    assert values["binary/accuracy"] == 0.5
    assert values["binary/accuracy/changed"] == 1
    assert values["count/mae"] == 2
    assert values["caption/change_accuracy"] == 1
    assert evaluation.statistics["count/mae"].n == 1
    assert evaluation.primary_metric == "binary/accuracy"
    assert evaluation.normalized[:2] == ["3", "yes"]
    assert evaluation.scores[1] == 1
    assert evaluation.scores[3] == evaluation.scores[4] == 0
    (note,) = evaluation.notes
    assert note.startswith("count: 1 of 2 answers hold no number")


@pytest.mark.parametrize("name", ["binary", "count", "caption"])
def test_statistics_and_resamples_are_those_of_the_metric_alone(name: str) -> None:
    scorer: Scorer = METRIC.scorers[name]
    chosen = [index for index, one in enumerate(ROWS) if one.category.startswith(name)]
    own = [
        row(one.id, one.text, *one.references, category=one.category.partition("/")[2])
        for one in (ROWS[index] for index in chosen)
    ]
    alone, together = scorer.evaluate(own).statistics, METRIC.evaluate(ROWS).statistics
    weights = np.random.default_rng(0).integers(1, 4, len(ROWS))
    for key, statistic in alone.items():
        expected = value(statistic, weights[chosen])
        assert value(together[f"{name}/{key}"], weights) == pytest.approx(expected, nan_ok=True)


def test_a_category_without_a_metric() -> None:
    with pytest.raises(DataError, match=r"Row 9: no metric scores 'counts'\. Did you mean 'count'"):
        METRIC.evaluate([row("9", "1", "1", category="counts/changed")])
