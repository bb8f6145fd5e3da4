"""Statistics that several metrics share: means, constants, and accuracies in total and by category."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unirs.metrics.base import Statistic


def mean(values: Sequence[float] | np.ndarray, mask: np.ndarray | None = None) -> Statistic:
    """The mean of `values` `[n]` over the rows that the bool `mask` `[n]` selects; nan if it selects none."""
    weights = np.ones(len(values)) if mask is None else np.asarray(mask, dtype=np.float64)
    rows = np.stack([np.asarray(values, dtype=np.float64) * weights, weights], axis=1)
    return Statistic(row_sums=rows, from_sums=_ratio, n=int(weights.sum()))


def ratio(pairs: np.ndarray, n: int) -> Statistic:
    """The sum of the first column of `pairs` `[rows, 2]` over that of the second; nan if that is 0."""
    return Statistic(row_sums=np.asarray(pairs, dtype=np.float64), from_sums=_ratio, n=n)


def total(values: Sequence[float] | np.ndarray) -> Statistic:
    """The sum of `values` `[n]`, such as the number of rows without a number."""
    column = np.asarray(values, dtype=np.float64)[:, None]
    return Statistic(row_sums=column, from_sums=lambda sums: sums[..., 0], n=len(column))


def constant(value: float, n: int) -> Statistic:
    """A value of all `n` rows together, which has no interval."""
    return Statistic(row_sums=np.zeros((n, 0)), from_sums=lambda sums: np.full(sums.shape[:-1], value), n=n)


def accuracies(
    name: str, correct: Sequence[float], categories: Sequence[str], order: Sequence[str] = ()
) -> dict[str, Statistic]:
    """Accuracy over all rows, the mean over categories, and the accuracy of each category.

    Args:
        name: Name of the accuracy over all rows; the others are `<name>_macro` and `<name>/<category>`.
        correct: Whether each row is right, or to which degree, 0..1.
        categories: Category of each row. Rows of category `""` count for the accuracy over all rows only.
        order: Categories to print first, in this order; the others follow by name.

    Returns:
        Statistics by name, in the order to print.
    """
    hits, labels = np.asarray(correct, dtype=np.float64), np.asarray(categories, dtype=object)
    present = set(categories) - {""}
    ordered = [category for category in dict.fromkeys(order) if category in present]
    ordered += sorted(present.difference(ordered))
    by_category = {category: mean(hits, labels == category) for category in ordered}
    statistics = {name: mean(hits)}
    if by_category:
        rows = np.concatenate([statistic.row_sums for statistic in by_category.values()], axis=1)
        n = sum(statistic.n for statistic in by_category.values())
        statistics[f"{name}_macro"] = Statistic(row_sums=rows, from_sums=_mean_of_ratios, n=n)
    return statistics | {f"{name}/{category}": statistic for category, statistic in by_category.items()}


def _ratio(sums: np.ndarray) -> np.ndarray:
    numerator, denominator = sums[..., 0], sums[..., 1]
    undefined = np.full(numerator.shape, np.nan)
    ratio: np.ndarray = np.divide(numerator, denominator, out=undefined, where=denominator > 0)
    return ratio


def _mean_of_ratios(sums: np.ndarray) -> np.ndarray:
    """Averages over pairs of columns `(correct, 1)`, one pair per category; categories without rows do not count."""
    ratios = _ratio(sums.reshape(*sums.shape[:-1], -1, 2))
    present = ~np.isnan(ratios)
    return _ratio(np.stack([np.where(present, ratios, 0.0).sum(axis=-1), present.sum(axis=-1).astype(float)], axis=-1))
