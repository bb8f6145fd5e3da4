"""Values of statistics, and their bootstrap intervals."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from unirs.metrics.base import Statistic

if TYPE_CHECKING:
    import numpy as np

_DRAWS_AT_ONCE = 2_000_000
"""Clusters drawn in one go: bounds memory to some tens of megabytes."""


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
    import numpy as np

    if len(clusters) != len(statistic.rows):
        raise ValueError(f"{len(clusters)} cluster labels for {len(statistic.rows)} rows: give one a row.")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"Need resamples >= 1 and 0 < level < 1, not {resamples} and {level}.")
    if not len(clusters):
        return np.nan, np.nan
    sums = _sums_by_cluster(statistic.rows, clusters)
    values = np.asarray(statistic.value(_resampled_sums(sums, resamples, np.random.default_rng(seed))))
    values = values[~np.isnan(values)]
    if not values.size:
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sums_by_cluster(rows: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    """`[n, k]` -> `[clusters, k]`."""
    import numpy as np

    numbers: dict[Hashable, int] = {}
    codes = np.fromiter((numbers.setdefault(label, len(numbers)) for label in clusters), dtype=np.intp, count=len(rows))
    columns = [np.bincount(codes, weights=column, minlength=len(numbers)) for column in rows.T]
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
