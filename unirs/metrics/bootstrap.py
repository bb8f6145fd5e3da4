"""Values of statistics, their bootstrap intervals, and whether two of them differ."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from unirs.metrics.base import Statistic

_DRAWS_PER_CHUNK = 2_000_000
"""Groups drawn at once; bounds memory to some tens of megabytes."""

_LEVEL, _ROUNDING = 0.95, 1e-12


@dataclass(frozen=True)
class Difference:
    """Difference of two statistics over the same rows.

    Attributes:
        value: The second minus the first; nan if either is undefined.
        ci_low: Lower end of its interval, or nan.
        ci_high: Upper end of its interval, or nan.
        p: Two-sided probability of a difference at least as far from 0 under the hypothesis that there is none, in
            0..1; nan if it cannot be estimated, as with a single group.
    """

    value: float
    ci_low: float
    ci_high: float
    p: float


def point_estimate(statistic: Statistic) -> float:
    """The statistic's value over all its rows; nan if it is undefined (no rows)."""
    return float(statistic.from_sums(statistic.row_sums.sum(axis=0, dtype=np.float64)))


def interval(
    statistic: Statistic, groups: Sequence[Hashable], resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The interval of one statistic, see `intervals`."""
    return intervals([statistic], groups, resamples, seed)[0]


def intervals(
    statistics: Sequence[Statistic], groups: Sequence[Hashable], resamples: int = 1000, seed: int = 0
) -> list[tuple[float, float]]:
    """95 % percentile bootstrap intervals (Efron and Tibshirani, 1993, chapter 13), from the same resamples.

    Questions about one image are not independent, so whole groups are drawn with replacement, as many as there are.
    Statistics over the same groups and seed share the same resamples.

    Args:
        statistics: Statistics to resample.
        groups: Label of each row; rows of equal label stay together, e.g. `[row.media for row in rows]`.
        resamples: Number of resamples. Those in which a statistic is undefined are excluded.
        seed: Equal seeds give equal intervals.

    Returns:
        Lower and upper end; nan if the statistic is undefined in every resample or has no row sums (see `constant`).
        With a single group both equal the statistic's value, as its spread is unknown.

    Raises:
        ValueError: The number of labels is not that of the rows, or `resamples` is below 1.
    """
    return [_percentiles(values) for values in _resampled(statistics, groups, resamples, seed)]


def difference(
    first: Statistic, second: Statistic, groups: Sequence[Hashable], resamples: int = 1000, seed: int = 0
) -> Difference:
    """The paired bootstrap of `second` minus `first`, both over the same rows; options are those of `intervals`.

    Each resample draws the same groups for both, so that rows that are hard for both cancel out. Twice the smaller
    share of resamples on either side of 0 is p, which agrees with the interval: it is below 0.05 if 0 is outside of
    95 % (Efron and Tibshirani, 1993, section 15.4; one is added to both counts, as no p is exactly 0).

    Raises:
        ValueError: The statistics have different numbers of rows, or as `intervals` raises it.
    """
    if len(first.row_sums) != len(second.row_sums):
        raise ValueError(f"{len(first.row_sums)} and {len(second.row_sums)} rows cannot be paired.")
    width = first.row_sums.shape[1]

    def value(sums: np.ndarray) -> np.ndarray:
        gap: np.ndarray = second.from_sums(sums[..., width:]) - first.from_sums(sums[..., :width])
        return gap

    both = Statistic(row_sums=np.concatenate([first.row_sums, second.row_sums], axis=1), from_sums=value, n=second.n)
    (values,) = _resampled([both], groups, resamples, seed)
    low, high = _percentiles(values)
    # Sums of equal columns may differ in their last bits, which does not count as a difference.
    smaller = min(np.sum(values <= _ROUNDING), np.sum(values >= -_ROUNDING))
    known = values.size and len(set(groups)) > 1
    p = min(1.0, 2 * (float(smaller) + 1) / (len(values) + 1)) if known else np.nan
    return Difference(point_estimate(both), low, high, p)


def _resampled(
    statistics: Sequence[Statistic], groups: Sequence[Hashable], resamples: int, seed: int
) -> list[np.ndarray]:
    """Each statistic's values in the resamples in which it is defined, `[resamples or fewer]`."""
    for statistic in statistics:
        if len(groups) != len(statistic.row_sums):
            raise ValueError(f"{len(groups)} group labels for {len(statistic.row_sums)} rows: give one per row.")
    if resamples < 1:
        raise ValueError(f"Need resamples >= 1, not {resamples}.")
    if not len(groups) or not statistics:
        return [np.zeros(0) for _ in statistics]
    totals = _resampled_sums(_sums_by_group(statistics, groups), resamples, np.random.default_rng(seed))
    ends = np.cumsum([statistic.row_sums.shape[1] for statistic in statistics])
    columns = np.split(totals, ends[:-1], axis=1)
    values = [np.asarray(statistic.from_sums(sums)) for statistic, sums in zip(statistics, columns, strict=True)]
    # Without columns there is nothing to resample.
    return [each[~np.isnan(each)] if sums.shape[1] else np.zeros(0) for each, sums in zip(values, columns, strict=True)]


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    if not values.size:
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _sums_by_group(statistics: Sequence[Statistic], groups: Sequence[Hashable]) -> np.ndarray:
    """Row sums of all statistics, several `[n, k]`, to `[groups, sum of k]`."""
    numbers: dict[Hashable, int] = {}
    codes = np.fromiter((numbers.setdefault(label, len(numbers)) for label in groups), dtype=np.intp, count=len(groups))
    rows = (column for statistic in statistics for column in statistic.row_sums.T)
    columns = [np.bincount(codes, weights=column, minlength=len(numbers)) for column in rows]
    return np.stack(columns, axis=1) if columns else np.zeros((len(numbers), 0))


def _resampled_sums(sums: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """`[groups, k]` -> `[resamples, k]`."""
    count = len(sums)
    chunk = max(1, _DRAWS_PER_CHUNK // count)
    totals = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        weights = np.empty((size, count))
        for row in weights:
            row[:] = np.bincount(generator.integers(count, size=count), minlength=count)
        totals.append(weights @ sums)
    return np.concatenate(totals)
