"""What several task plugins share: samples that stay in their file, and synthetic data."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from unirs import Sample
from unirs.tasks import read_row


@dataclass(frozen=True)
class FileRows:
    """Makes the sample of an index from its row in a file, which is parsed again on each access.

    `make` takes a row's value and its number; `ranges` are the number, start and end in bytes of each row.
    """

    path: Path
    make: Callable[[Any, int], Sample]
    ranges: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, number: int, value: object, start: int, end: int) -> Sample:
        """Adds a row, unless `make` raises."""
        sample = self.make(value, number)
        self.ranges.extend((number, start, end))
        return sample

    def __call__(self, index: int) -> Sample:
        number, start, end = self.ranges[3 * index : 3 * index + 3]
        return self.make(read_row(self.path, start, end), number)


def synthesize(module: str, root: Path, size: int, seed: int) -> None:
    """Writes the synthetic data set of `unirs_tasks.synth.<module>`, which is imported only here."""
    import_module(f"unirs_tasks.synth.{module}").write(root, size, seed)
