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
    low: float
    high: float
    p: float


def point(statistic: Statistic) -> float:
    """The statistic's value over all its rows; nan where it is undefined (no rows to speak of)."""
    return float(statistic.value(statistic.rows.sum(axis=0)))


def interval(
    statistic: Statistic,
    clusters: Sequence[Hashable],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """A percentile bootstrap interval (Efron and Tibshirani, 1993, chapter 13).

    Questions about one image are not independent, so whole clusters are drawn, with replacement, as many as there are.
    Statistics over the same clusters and seed see the same resamples.

    Args:
        statistic: what to resample.
        clusters: one label a row; rows of equal label stay together, e.g. `[row.media for row in rows]`.
        resamples: how many resamples. Those in which the statistic is undefined are left out.
        seed: equal seeds give equal intervals.
        level: the interval's coverage, in 0..1.

    Returns:
        Low and high end; nan where the statistic is undefined in every resample. With a single cluster both equal the
        statistic's value, as nothing is known about its spread.

    Raises:
        ValueError: the labels are not one a row, or `resamples` or `level` is out of range.
    """
    return intervals([statistic], clusters, resamples, seed, level)[0]


def intervals(
    statistics: Sequence[Statistic],
    clusters: Sequence[Hashable],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[tuple[float, float]]:
    """The `interval` of each of several statistics over the same rows; the resamples are drawn once for all.

    Args:
        statistics: what to resample.
        clusters: as in `interval`.
        resamples: as in `interval`.
        seed: as in `interval`.
        level: as in `interval`.

    Raises:
        ValueError: as in `interval`.
    """
    return [_percentiles(values, level) for values in _resampled(statistics, clusters, resamples, seed, level)]


def difference(
    first: Statistic,
    second: Statistic,
    clusters: Sequence[Hashable],
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
        clusters: as in `interval`.
        resamples: as in `interval`.
        seed: as in `interval`.
        level: as in `interval`.

    Raises:
        ValueError: the statistics have different numbers of rows, or as in `interval`.
    """
    import numpy as np

    if len(first.rows) != len(second.rows):
        raise ValueError(f"{len(first.rows)} and {len(second.rows)} rows cannot be paired.")
    width = first.rows.shape[1]

    def value(sums: np.ndarray) -> np.ndarray:
        above: np.ndarray = second.value(sums[..., width:]) - first.value(sums[..., :width])
        return above

    both = Statistic(rows=np.concatenate([first.rows, second.rows], axis=1), value=value, n=second.n)
    (values,) = _resampled([both], clusters, resamples, seed, level)
    low, high = _percentiles(values, level)
    # Sums of equal columns may differ in their last bits, which is no difference.
    smaller = min(np.sum(values <= _ROUNDING), np.sum(values >= -_ROUNDING))
    known = values.size and len(set(clusters)) > 1
    p = min(1.0, 2 * (float(smaller) + 1) / (len(values) + 1)) if known else np.nan
    return Difference(point(both), low, high, p)


def _resampled(
    statistics: Sequence[Statistic], clusters: Sequence[Hashable], resamples: int, seed: int, level: float
) -> list[np.ndarray]:
    """Each statistic's value in the resamples where it is defined, `[resamples or fewer]`."""
    import numpy as np

    for statistic in statistics:
        if len(clusters) != len(statistic.rows):
            raise ValueError(f"{len(clusters)} cluster labels for {len(statistic.rows)} rows: give one a row.")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"Need resamples >= 1 and 0 < level < 1, not {resamples} and {level}.")
    if not len(clusters) or not statistics:
        return [np.zeros(0) for _ in statistics]
    sums = _sums_by_cluster([statistic.rows for statistic in statistics], clusters)
    totals = _resampled_sums(sums, resamples, np.random.default_rng(seed))
    ends = np.cumsum([statistic.rows.shape[1] for statistic in statistics])
    parts = np.split(totals, ends[:-1], axis=1)
    values = [np.asarray(statistic.value(part)) for statistic, part in zip(statistics, parts, strict=True)]
    return [value[~np.isnan(value)] for value in values]


def _percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    import numpy as np

    if not values.size:
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sums_by_cluster(rows: Sequence[np.ndarray], clusters: Sequence[Hashable]) -> np.ndarray:
    """Several `[n, k]` -> `[clusters, sum of k]`."""
    import numpy as np

    numbers: dict[Hashable, int] = {}
    codes = np.fromiter(
        (numbers.setdefault(label, len(numbers)) for label in clusters), dtype=np.intp, count=len(clusters)
    )
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
