"""Progress bars on stderr; none if stderr is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

Advance = Callable[..., None]
"""Advances a bar: `advance(count=1, description=None)`; a description replaces the bar's."""


@contextmanager
def progress_bar(description: str, total: int, *, unit: str = "", show: bool = True) -> Iterator[Advance]:
    """Shows a bar of `total` steps, counted in `unit`s, while the block runs; yields a function that advances it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(*columns(unit), console=console, disable=not (show and console.is_terminal)) as bar:
        # Descriptions hold file and model names, whose brackets are no markup.
        task = bar.add_task(escape(description), total=total)

        def advance(count: int = 1, description: str | None = None) -> None:
            bar.update(task, advance=count, description=None if description is None else escape(description))

        yield advance


def columns(unit: str) -> list[Any]:
    """The columns of all bars: what, how much of it, and the time that is left."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    counts = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit)]
    return [*counts, TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn()]


def track(items: Iterable[T], description: str, total: int, *, unit: str = "") -> Iterator[T]:
    """Yields the items, and advances a bar after each."""
    with progress_bar(description, total, unit=unit) as advance:
        for item in items:
            yield item
            advance()
