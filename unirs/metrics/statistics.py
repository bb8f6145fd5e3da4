"""Statistics that several metrics share: means, constants, and accuracies in total and by category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unirs.metrics.base import Statistic


def mean(values: Sequence[float] | np.ndarray, mask: np.ndarray | None = None) -> Statistic:
    """The mean of `values` `[n]` over the rows that the bool `mask` `[n]` selects; nan if it selects none."""
    column = _compact(values)
    selected = np.ones(len(column), dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    rows = np.stack([column * selected, selected], axis=1)
    return Statistic(row_sums=rows, from_sums=_ratio, n=int(selected.sum()))


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
    hits = _compact(correct)
    present = set(categories) - {""}
    ordered = [category for category in dict.fromkeys(order) if category in present]
    ordered += sorted(present.difference(ordered))
    numbers = {category: number for number, category in enumerate(ordered)}
    codes = np.fromiter((numbers.get(category, -1) for category in categories), dtype=np.int32, count=len(categories))
    by_category = {category: mean(hits, codes == number) for category, number in numbers.items()}
    statistics = {name: mean(hits)}
    if by_category:
        rows = np.concatenate([statistic.row_sums for statistic in by_category.values()], axis=1)
        n = sum(statistic.n for statistic in by_category.values())
        statistics[f"{name}_macro"] = Statistic(row_sums=rows, from_sums=_mean_of_ratios, n=n)
        # Views, since a task may have a million rows.
        by_category = {
            category: replace(by_category[category], row_sums=rows[:, 2 * number : 2 * number + 2])
            for category, number in numbers.items()
        }
    return statistics | {f"{name}/{category}": statistic for category, statistic in by_category.items()}


def _compact(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Values as float64, or as bool if all are 0 or 1, as most are: a task may have a million rows."""
    column = np.asarray(values)
    if column.dtype == bool:
        return column
    column = column.astype(np.float64, copy=False)
    return column.astype(bool) if ((column == 0) | (column == 1)).all() else column


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
