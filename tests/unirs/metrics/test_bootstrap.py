import math

import numpy as np
import pytest

from unirs.metrics.base import Statistic
from unirs.metrics.bootstrap import difference, interval, intervals, point_estimate
from unirs.metrics.statistics import accuracies, constant, mean


def test_point_estimate_is_the_value_over_all_rows() -> None:
    assert point_estimate(mean([1.0, 0.0, 0.5])) == pytest.approx(0.5)


def test_interval_of_a_proportion_is_the_binomial_one() -> None:
    hits = np.repeat([1.0, 0.0], [300, 700])
    low, high = interval(mean(hits), range(1000), resamples=4000)
    spread = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert (low, high) == pytest.approx((0.3 - spread, 0.3 + spread), abs=0.003)


def test_intervals_cover_the_true_value_as_often_as_their_level() -> None:
    samples = np.random.default_rng(1).random((200, 100)) < 0.4
    ends = [interval(mean(sample), range(100), resamples=200) for sample in samples]
    covered = np.mean([low <= 0.4 <= high for low, high in ends])
    assert 0.88 < covered < 0.99


def test_rows_of_a_group_stay_together() -> None:
    hits = np.repeat([1.0, 0.0], [50, 50])
    by_row = interval(mean(hits), range(100))
    by_media = interval(mean(hits), [("a.tif",)] * 50 + [("b.tif",)] * 50)
    assert by_media == (0.0, 1.0)
    assert 0.35 < by_row[0] < by_row[1] < 0.65


def test_intervals_are_those_of_each_statistic() -> None:
    generator = np.random.default_rng(0)
    hits, categories = generator.random(60) < 0.5, [f"k{index % 3}" for index in range(60)]
    statistics = [*accuracies("accuracy", hits.tolist(), categories).values(), mean(generator.random(60))]
    groups = [index // 2 for index in range(60)]
    alone = [interval(statistic, groups, resamples=100, seed=1) for statistic in statistics]
    together = intervals(statistics, groups, resamples=100, seed=1)
    assert np.array(together) == pytest.approx(np.array(alone), rel=1e-12)
    assert intervals([], groups) == []


def test_equal_seeds_give_equal_intervals_and_others_do_not() -> None:
    statistic = mean(np.random.default_rng(0).random(50))
    assert interval(statistic, range(50), seed=3) == interval(statistic, range(50), seed=3)
    assert interval(statistic, range(50), seed=3) != interval(statistic, range(50), seed=4)


def test_interval_depends_on_the_grouping_and_no_labels() -> None:
    statistic = mean(np.random.default_rng(0).random(6))
    assert interval(statistic, [5, 5, 3, 3, 1, 1]) == interval(statistic, ["x", "x", "y", "y", "z", "z"])


def test_resamples_without_a_value_are_excluded() -> None:
    statistic = accuracies("accuracy", [True, False, False], ["a", "b", "b"])["accuracy/a"]
    assert interval(statistic, range(3)) == (1.0, 1.0)


def test_categories_without_rows_in_a_resample_do_not_count_in_its_macro_mean() -> None:
    macro = accuracies("accuracy", [True, False], ["a", "b"])["accuracy_macro"]
    assert interval(macro, range(2)) == (0.0, 1.0)


def test_a_statistic_of_no_rows_is_undefined() -> None:
    nothing = mean([1.0, 1.0], np.array([False, False]))
    assert nothing.n == 0
    assert math.isnan(point_estimate(nothing))
    assert all(math.isnan(end) for end in interval(nothing, range(2)))
    assert all(math.isnan(end) for end in interval(mean([]), []))


def test_many_groups_are_drawn_in_chunks() -> None:
    low, high = interval(mean(np.arange(30_000) % 2), range(30_000), resamples=150)
    assert 0.49 < low < 0.5 < high < 0.51


def test_wrong_arguments_raise() -> None:
    statistic = Statistic(row_sums=np.ones((2, 2)), from_sums=lambda sums: sums[..., 0], n=2)
    with pytest.raises(ValueError, match="1 group labels for 2 rows"):
        interval(statistic, ["a"])
    with pytest.raises(ValueError, match="resamples"):
        interval(statistic, ["a", "b"], resamples=0)


def test_pairing_cancels_rows_that_are_hard_for_both() -> None:
    generator = np.random.default_rng(2)
    hard = generator.random(400) < 0.5
    first = np.where(hard, 0.0, 1.0)
    second = first.copy()
    second[np.flatnonzero(hard)[:12]] = 1.0  # 12 of 400 rows become right, none wrong
    found = difference(mean(first), mean(second), range(400), resamples=2000)
    assert found.value == pytest.approx(12 / 400)
    spread = 1.96 * math.sqrt(0.03 * 0.97 / 400)
    assert (found.ci_low, found.ci_high) == pytest.approx((0.03 - spread, 0.03 + spread), abs=0.004)
    assert found.p < 0.01
    ends = interval(mean(first), range(400)), interval(mean(second), range(400))
    assert ends[0][1] > ends[1][0]  # alone, the two intervals overlap


def test_difference_of_a_statistic_from_itself_is_zero() -> None:
    statistic = mean(np.random.default_rng(0).random(50) / 3)
    found = difference(statistic, statistic, range(50))
    assert (found.value, found.ci_low, found.ci_high) == pytest.approx((0, 0, 0), abs=1e-12)
    assert found.p == 1.0


def test_swapped_sides_negate_the_difference() -> None:
    first, second = (mean(values) for values in np.random.default_rng(1).random((2, 60)))
    there, back = difference(first, second, range(60)), difference(second, first, range(60))
    assert (there.value, there.ci_low, there.ci_high) == pytest.approx((-back.value, -back.ci_high, -back.ci_low))
    assert there.p == back.p


def test_p_is_below_005_for_about_5_percent_of_equal_pairs() -> None:
    draws = np.random.default_rng(5).random((200, 2, 80)) < 0.6
    found = [difference(mean(first), mean(second), range(80), resamples=300).p for first, second in draws]
    assert 0.01 < np.mean(np.array(found) < 0.05) < 0.12


def test_p_agrees_with_the_interval() -> None:
    draws = np.random.default_rng(6).random((100, 2, 40))
    found = [difference(mean(first), mean(second), range(40), resamples=999) for first, second in draws]
    clear = [it for it in found if abs(it.p - 0.05) > 0.01]
    assert [it.p < 0.05 for it in clear] == [it.ci_low > 0 or it.ci_high < 0 for it in clear]
    assert any(it.p < 0.05 for it in clear)


def test_corpus_metrics_share_resamples() -> None:
    def ratio(rows: np.ndarray) -> Statistic:
        return Statistic(row_sums=rows, from_sums=lambda sums: np.exp(-sums[..., 0] / sums[..., 1]), n=len(rows))

    first = np.random.default_rng(0).random((30, 2)) + 0.5
    second = np.concatenate([first * [0.9, 1], np.ones((30, 1))], axis=1)  # other sums, and more of them
    found = difference(ratio(first), ratio(second), range(30), resamples=500)
    assert found.value == pytest.approx(point_estimate(ratio(second)) - point_estimate(ratio(first)))
    assert 0 < found.ci_low < found.value < found.ci_high


def test_undefined_differences_are_nan() -> None:
    one = difference(mean([1.0, 1.0]), mean([0.0, 0.0]), ["a", "a"])
    assert (one.value, one.ci_low, one.ci_high) == (-1.0, -1.0, -1.0)
    assert math.isnan(one.p)
    nothing = mean([1.0, 1.0], np.array([False, False]))
    undefined = difference(nothing, mean([1.0, 1.0]), range(2))
    assert all(map(math.isnan, (undefined.value, undefined.ci_low, undefined.ci_high, undefined.p)))
    with pytest.raises(ValueError, match="1 and 2 rows"):
        difference(mean([1.0]), mean([1.0, 0.0]), ["a"])


def test_constants_have_a_value_but_no_interval_or_p() -> None:
    first, second = constant(0.25, 3), constant(0.75, 3)
    assert (point_estimate(first), first.n) == (0.25, 3)
    alone, beside = interval(first, range(3)), intervals([mean([1.0, 0.0, 1.0]), first, second], range(3))
    assert np.isnan([alone, *beside[1:]]).all()
    assert beside[0] == interval(mean([1.0, 0.0, 1.0]), range(3))
    found = difference(first, second, range(3))
    assert found.value == 0.5
    assert np.isnan([found.ci_low, found.ci_high, found.p]).all()


def test_statistics_of_zeros_and_ones_are_stored_in_bytes_and_equal_those_of_floats() -> None:
    chooser = np.random.default_rng(0)
    scores, categories = chooser.integers(2, size=500), chooser.choice(["", "a", "b", "c"], size=500).tolist()
    compact = accuracies("accuracy", scores.tolist(), categories)
    # Halves of them are no integers, and exact in binary.
    halves = accuracies("accuracy", (scores / 2).tolist(), categories)
    groups = [number // 3 for number in range(500)]
    assert list(compact) == list(halves) == ["accuracy", "accuracy_macro", "accuracy/a", "accuracy/b", "accuracy/c"]
    assert {statistic.row_sums.itemsize for statistic in compact.values()} == {1}
    assert {statistic.row_sums.itemsize for statistic in halves.values()} == {8}
    for name, statistic in compact.items():
        assert point_estimate(statistic) == 2 * point_estimate(halves[name])
        assert interval(statistic, groups) == tuple(2 * end for end in interval(halves[name], groups))
        assert statistic.n == halves[name].n
