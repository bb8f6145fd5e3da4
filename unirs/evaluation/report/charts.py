"""Charts as inline SVG, whose text and axes take the colour of the page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stands for the page's colour in the SVG; no chart has it otherwise.
_INK = "#010203"
_BLUE, _GREY, _RED = "#3b7dd8", "#8a919c", "#c8553d"
_STYLE: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    # Equal charts have equal ids.
    "svg.hashsalt": "unirs",
}


def bars(numbers: Mapping[str, Mapping[str, Any]], label: str, highlighted: Sequence[str] = ()) -> str:
    """Horizontal bars with 95 % intervals.

    Args:
        numbers: `value`, `ci_low` and `ci_high` by name, None if unknown; from top to bottom.
        label: of the axis.
        highlighted: names in another colour than grey; all if empty.
    """
    names = list(numbers)
    with _figure(6.4, 0.6 + 0.3 * len(names)) as (figure, axes):
        for position, name in enumerate(reversed(names)):
            one = numbers[name]
            axes.barh(position, one["value"], color=_BLUE if name in (highlighted or names) else _GREY, height=0.65)
            if one["ci_low"] is not None and one["ci_high"] is not None:
                axes.hlines(position, one["ci_low"], one["ci_high"], color=_INK, linewidth=1.2)
        axes.set_yticks(range(len(names)), reversed(names))
        axes.set_xlabel(label)
        axes.grid(axis="x", color=_GREY, alpha=0.3)
        axes.set_axisbelow(True)
        return _svg(figure, f"{label}: " + ", ".join(f"{name} {numbers[name]['value']:.4g}" for name in names))


def confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A confusion matrix: rows are references, columns answers; shades are shares of a row."""
    size = 1.6 + 0.3 * len(labels)
    with _figure(size + 1, size) as (figure, axes):
        shares = [[count / max(1, sum(row)) for count in row] for row in counts]
        axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="none")
        for row, values in enumerate(counts):
            for column, count in enumerate(values):
                if count:
                    colour = "white" if shares[row][column] > 0.5 else "black"
                    axes.text(column + 0.5, row + 0.5, str(count), ha="center", va="center", color=colour, fontsize=8)
        middles = [index + 0.5 for index in range(len(labels))]
        axes.set_xticks(middles, labels, rotation=45, ha="right")
        axes.set_yticks(middles, labels)
        axes.invert_yaxis()
        axes.set_xlabel("answer")
        axes.set_ylabel("reference")
        right = sum(counts[index][index] for index in range(len(labels)))
        return _svg(figure, f"Confusion matrix: {right} of {sum(map(sum, counts))} answers are the reference.")


def lines(curves: Mapping[str, Sequence[tuple[float, float]]], label: str) -> str:
    """Curves of points (step, value) by name."""
    with _figure(6.4, 2.8) as (figure, axes):
        for (name, points), colour in zip(curves.items(), (_BLUE, _RED, _GREY) * len(curves), strict=False):
            marker = "o" if len(points) < 30 else ""
            axes.plot(*zip(*points, strict=True), color=colour, label=name, marker=marker, markersize=3, linewidth=1.5)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.grid(color=_GREY, alpha=0.3)
        if len(curves) > 1:
            axes.legend(frameon=False)
        ends = ", ".join(f"{name} ends at {points[-1][1]:.4g}" for name, points in curves.items())
        return _svg(figure, f"{label} by step: {ends}.")


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = _STYLE
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def _svg(figure: Figure, description: str) -> str:
    from markupsafe import escape

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
