"""Values of statistics, their bootstrap intervals, and whether two of them differ."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unirs.metrics.base import Statistic

if TYPE_CHECKING:
    import numpy as np


_DRAWS_AT_ONCE = 2_000_000
"""Clusters drawn in one go: bounds memory to some tens of megabytes."""

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Difference:
    """By how much one statistic is above another.

    Attributes:
        value: the difference; nan where either is undefined.
        low: lower end of its interval.
        high: upper end.
        p: two-sided probability of a difference as far from 0 if there were none, in 0..1; nan where there is nothing
            to tell it from, as with a single cluster.
    """

    value: float
    ci_low: float
    ci_high: float
    p: float


def point_estimate(statistic: Statistic) -> float:
    """The statistic's value over all its rows; nan where it is undefined (no rows to speak of)."""
    return float(statistic.from_sums(statistic.row_sums.sum(axis=0)))


def interval(
    statistic: Statistic,
    groups: Sequence[Hashable],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """A percentile bootstrap interval (Efron and Tibshirani, 1993, chapter 13).

    Questions about one image are not independent, so whole clusters are drawn, with replacement, as many as there are.
    Statistics over the same clusters and seed see the same resamples.

    Args:
        statistic: what to resample.
        groups: one label a row; rows of equal label stay together, e.g. `[row.media for row in rows]`.
        resamples: how many resamples. Those in which the statistic is undefined are left out.
        seed: equal seeds give equal intervals.
        level: the interval's coverage, in 0..1.

    Returns:
        Low and high end; nan where the statistic is undefined in every resample. With a single cluster both equal the
        statistic's value, as nothing is known about its spread.

    Raises:
        ValueError: the labels are not one a row, or `resamples` or `level` is out of range.
    """
    return intervals([statistic], groups, resamples, seed, level)[0]


def intervals(
    statistics: Sequence[Statistic],
    groups: Sequence[Hashable],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[tuple[float, float]]:
    """The `interval` of each of several statistics over the same rows; the resamples are drawn once for all.

    Args:
        statistics: what to resample.
        groups: as in `interval`.
        resamples: as in `interval`.
        seed: as in `interval`.
        level: as in `interval`.

    Raises:
        ValueError: as in `interval`.
    """
    return [_percentiles(values, level) for values in _resampled(statistics, groups, resamples, seed, level)]


def difference(
    first: Statistic,
    second: Statistic,
    groups: Sequence[Hashable],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """How far `second` is above `first`, both over the same rows, by the paired bootstrap.

    Each resample draws the same clusters for both, so that what makes some rows hard for both does not count. Twice the
    smaller share of resamples on either side of 0 is p, which agrees with the interval: below 0.05 where 0 is outside
    of 95 % (Efron and Tibshirani, 1993, section 15.4; one is added to both counts, as no p is exactly 0).

    Args:
        first: one system's statistic.
        second: the other's, over the same rows in the same order.
        groups: as in `interval`.
        resamples: as in `interval`.
        seed: as in `interval`.
        level: as in `interval`.

    Raises:
        ValueError: the statistics have different numbers of rows, or as in `interval`.
    """
    import numpy as np

    if len(first.row_sums) != len(second.row_sums):
        raise ValueError(f"{len(first.row_sums)} and {len(second.row_sums)} rows cannot be paired.")
    width = first.row_sums.shape[1]

    def value(sums: np.ndarray) -> np.ndarray:
        above: np.ndarray = second.from_sums(sums[..., width:]) - first.from_sums(sums[..., :width])
        return above

    both = Statistic(row_sums=np.concatenate([first.row_sums, second.row_sums], axis=1), from_sums=value, n=second.n)
    (values,) = _resampled([both], groups, resamples, seed, level)
    low, high = _percentiles(values, level)
    # Sums of equal columns may differ in their last bits, which is no difference.
    smaller = min(np.sum(values <= _ROUNDING), np.sum(values >= -_ROUNDING))
    known = values.size and len(set(groups)) > 1
    p = min(1.0, 2 * (float(smaller) + 1) / (len(values) + 1)) if known else np.nan
    return Difference(point_estimate(both), low, high, p)


def _resampled(
    statistics: Sequence[Statistic], groups: Sequence[Hashable], resamples: int, seed: int, level: float
) -> list[np.ndarray]:
    """Each statistic's value in the resamples where it is defined, `[resamples or fewer]`."""
    import numpy as np

    for statistic in statistics:
        if len(groups) != len(statistic.row_sums):
            raise ValueError(f"{len(groups)} cluster labels for {len(statistic.row_sums)} rows: give one a row.")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"Need resamples >= 1 and 0 < level < 1, not {resamples} and {level}.")
    if not len(groups) or not statistics:
        return [np.zeros(0) for _ in statistics]
    sums = _sums_by_group([statistic.row_sums for statistic in statistics], groups)
    totals = _resampled_sums(sums, resamples, np.random.default_rng(seed))
    ends = np.cumsum([statistic.row_sums.shape[1] for statistic in statistics])
    parts = np.split(totals, ends[:-1], axis=1)
    values = [np.asarray(statistic.from_sums(part)) for statistic, part in zip(statistics, parts, strict=True)]
    return [value[~np.isnan(value)] for value in values]


def _percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    import numpy as np

    if not values.size:
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sums_by_group(rows: Sequence[np.ndarray], groups: Sequence[Hashable]) -> np.ndarray:
    """Several `[n, k]` -> `[clusters, sum of k]`."""
    import numpy as np

    numbers: dict[Hashable, int] = {}
    codes = np.fromiter((numbers.setdefault(label, len(numbers)) for label in groups), dtype=np.intp, count=len(groups))
    columns = [np.bincount(codes, weights=column, minlength=len(numbers)) for each in rows for column in each.T]
    return np.stack(columns, axis=1)


def _resampled_sums(sums: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """`[clusters, k]` -> `[resamples, k]`."""
    import numpy as np

    count = len(sums)
    chunk = max(1, _DRAWS_AT_ONCE // count)
    totals = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        totals.append(weights.astype(np.float64) @ sums)
    return np.concatenate(totals)
