"""The statistics that several metrics share: means, and accuracies as a whole and by kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unirs.metrics.base import Statistic

if TYPE_CHECKING:
    import numpy as np


def mean(values: Sequence[float] | np.ndarray, mask: np.ndarray | None = None) -> Statistic:
    """The mean of one number a row.

    Args:
        values: `[n]`.
        mask: bool `[n]`, the rows to speak of; all where left out.

    Returns:
        A statistic over rows `(value, 1)`; undefined (nan) where no row is left.
    """
    import numpy as np

    weights = np.ones(len(values)) if mask is None else np.asarray(mask, dtype=np.float64)
    rows = np.stack([np.asarray(values, dtype=np.float64) * weights, weights], axis=1)
    return Statistic(row_sums=rows, from_sums=_ratio, n=int(weights.sum()))


def accuracies(
    name: str, correct: Sequence[bool], categories: Sequence[str], order: Sequence[str] = ()
) -> dict[str, Statistic]:
    """Accuracy over all rows, the mean over kinds, and for each kind.

    Args:
        name: what to call it; the others are `<name>_macro` and `<name>/<kind>`.
        correct: one a row.
        categories: one a row. Rows of kind `""` count for the accuracy over all rows only.
        order: kinds to print first, in this order; the others follow by name.

    Returns:
        Statistics by name, in the order to print. Only kinds that occur; none of them where no row has a kind.
    """
    import numpy as np

    hits, labels = np.asarray(correct, dtype=np.float64), np.asarray(categories, dtype=object)
    present = set(categories) - {""}
    ordered = [kind for kind in dict.fromkeys(order) if kind in present]
    ordered += sorted(present.difference(ordered))
    by_kind = {kind: mean(hits, labels == kind) for kind in ordered}
    statistics = {name: mean(hits)}
    if by_kind:
        rows = np.concatenate([statistic.row_sums for statistic in by_kind.values()], axis=1)
        n = sum(statistic.n for statistic in by_kind.values())
        statistics[f"{name}_macro"] = Statistic(row_sums=rows, from_sums=_mean_of_ratios, n=n)
    return statistics | {f"{name}/{kind}": statistic for kind, statistic in by_kind.items()}


def _ratio(sums: np.ndarray) -> np.ndarray:
    import numpy as np

    numerator, denominator = sums[..., 0], sums[..., 1]
    undefined = np.full(numerator.shape, np.nan)
    ratio: np.ndarray = np.divide(numerator, denominator, out=undefined, where=denominator > 0)
    return ratio


def _mean_of_ratios(sums: np.ndarray) -> np.ndarray:
    """Over pairs of columns `(correct, 1)`, one pair a kind; a kind that a resample misses does not count in it."""
    import numpy as np

    ratios = _ratio(sums.reshape(*sums.shape[:-1], -1, 2))
    present = ~np.isnan(ratios)
    return _ratio(np.stack([np.where(present, ratios, 0.0).sum(axis=-1), present.sum(axis=-1).astype(float)], axis=-1))
