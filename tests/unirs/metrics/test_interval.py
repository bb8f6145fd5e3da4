import math

import numpy as np
import pytest

from unirs.metrics.base import Statistic
from unirs.metrics.interval import interval, point
from unirs.metrics.statistics import accuracies, mean


def test_the_point_is_the_value_over_all_rows() -> None:
    assert point(mean([1.0, 0.0, 0.5])) == pytest.approx(0.5)


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    hits = np.repeat([1.0, 0.0], [300, 700])
    low, high = interval(mean(hits), range(1000), resamples=4000)
    spread = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert (low, high) == pytest.approx((0.3 - spread, 0.3 + spread), abs=0.003)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    samples = np.random.default_rng(1).random((200, 100)) < 0.4
    ends = [interval(mean(sample), range(100), resamples=200, level=0.8) for sample in samples]
    covered = np.mean([low <= 0.4 <= high for low, high in ends])
    assert 0.7 < covered < 0.9


def test_rows_of_a_cluster_stay_together() -> None:
    hits = np.repeat([1.0, 0.0], [50, 50])
    by_row = interval(mean(hits), range(100))
    by_media = interval(mean(hits), [("a.tif",)] * 50 + [("b.tif",)] * 50)
    assert by_media == (0.0, 1.0)
    assert 0.35 < by_row[0] < by_row[1] < 0.65


def test_equal_seeds_give_equal_intervals_and_others_do_not() -> None:
    statistic = mean(np.random.default_rng(0).random(50))
    assert interval(statistic, range(50), seed=3) == interval(statistic, range(50), seed=3)
    assert interval(statistic, range(50), seed=3) != interval(statistic, range(50), seed=4)


def test_the_cluster_labels_do_not_matter_only_their_grouping() -> None:
    statistic = mean(np.random.default_rng(0).random(6))
    assert interval(statistic, [5, 5, 3, 3, 1, 1]) == interval(statistic, ["x", "x", "y", "y", "z", "z"])


def test_resamples_without_a_value_are_left_out() -> None:
    statistic = accuracies("accuracy", [True, False, False], ["a", "b", "b"])["accuracy/a"]
    assert interval(statistic, range(3)) == (1.0, 1.0)


def test_a_kind_that_a_resample_misses_does_not_count_in_its_macro_mean() -> None:
    macro = accuracies("accuracy", [True, False], ["a", "b"])["accuracy_macro"]
    assert interval(macro, range(2)) == (0.0, 1.0)


def test_a_statistic_of_no_rows_is_undefined() -> None:
    nothing = mean([1.0, 1.0], np.array([False, False]))
    assert nothing.n == 0
    assert math.isnan(point(nothing))
    assert all(math.isnan(end) for end in interval(nothing, range(2)))
    assert all(math.isnan(end) for end in interval(mean([]), []))


def test_many_clusters_are_drawn_in_parts() -> None:
    low, high = interval(mean(np.arange(30_000) % 2), range(30_000), resamples=150)
    assert 0.49 < low < 0.5 < high < 0.51


def test_wrong_arguments_are_refused() -> None:
    statistic = Statistic(rows=np.ones((2, 2)), value=lambda sums: sums[..., 0], n=2)
    with pytest.raises(ValueError, match="1 cluster labels for 2 rows"):
        interval(statistic, ["a"])
    with pytest.raises(ValueError, match="resamples"):
        interval(statistic, ["a", "b"], resamples=0)
    with pytest.raises(ValueError, match="level"):
        interval(statistic, ["a", "b"], level=95)
