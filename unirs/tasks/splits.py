"""Splits of a data set: by a hash of names, or by a file."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from unirs.errors import DataError, did_you_mean
from unirs.ranges import UnitInterval, check_ranges
from unirs.utils.io import read_csv


def check_split(split: str, splits: Collection[str] = ("train", "val", "test"), where: str = "") -> None:
    """Checks that `split` is one of `splits`; `where` is the file and row that name it, for the message.

    Raises:
        DataError: there is no such split.
    """
    if split not in splits:
        raise DataError(f"{where and f'{where}: '}Unknown split '{split}'. {did_you_mean(split, splits)}")


@dataclass(frozen=True)
class FileSplits:
    """Assigns files to splits: by a split file, or else by a hash of their names, equally on every machine.

    Attributes:
        split_file: CSV file with the columns `file` and `split` (`train`, `val` or `test`); files that it omits are in
            no split. None: by hash.
        test_share: share of all files that is `test` without a split file, 0..1.
        val_share: share of the training files that is `val` if no file defines it, 0..1.
        seed: changes the selection by hash.

    Raises:
        PluginError: a share is not from 0 to 1.
    """

    split_file: Path | None
    test_share: UnitInterval
    val_share: UnitInterval
    seed: int

    def __post_init__(self) -> None:
        check_ranges(FileSplits, self)

    def select(self, split: str, groups: Iterable[Collection[str]]) -> list[str]:
        """Selects the files of a split.

        A share of each group, e.g. of each class, is selected by hash, so that files added to one group do not change
        the split of others.

        Raises:
            DataError: a row of the split file names an unknown split or file, or one a second time; names the row.
        """
        groups = list(groups)
        known = {name for group in groups for name in group}
        listed = _read(self.split_file, known) if self.split_file else None
        selected: list[str] = []
        for group in groups:
            if listed is None:
                test = held_out(group, self.test_share, f"{self.seed}/")
                splits = {name: "test" if name in test else "train" for name in group}
            else:
                splits = listed
            train = [name for name in group if splits.get(name) == "train"]
            val = set() if "val" in splits.values() else self.val_of(train)
            selected += [name for name in group if ("val" if name in val else splits.get(name)) == split]
        return selected

    def val_of(self, names: Iterable[str]) -> set[str]:
        """Selects the validation share of training files by hash."""
        return held_out(names, self.val_share, f"{self.seed}/")


def held_out(names: Iterable[str], share: float, salt: str = "") -> set[str]:
    """Selects a share (0..1) of distinct names by hash, equally on every machine; `salt` changes the selection.

    None are selected if the share is 0 or there are fewer than two names, else at least one and never all.
    """
    ranked = sorted(
        names, key=lambda name: (hashlib.sha256(f"{salt}{name}".encode(errors="surrogateescape")).digest(), name)
    )
    if len(ranked) < 2 or share <= 0:
        return set()
    return set(ranked[: min(max(1, round(len(ranked) * share)), len(ranked) - 1)])


def _read(path: Path, known: Collection[str]) -> dict[str, str]:
    """Split by file."""
    splits: dict[str, str] = {}
    for where, row in read_csv(path, ("file", "split")):
        name = row["file"]
        check_split(row["split"], where=where)
        if name not in known:
            raise DataError(f"{where}: there is no '{name}' in the data. Correct the row, or add the file.")
        if name in splits:
            raise DataError(f"{where}: '{name}' is listed twice. Keep one of its rows.")
        splits[name] = row["split"]
    return splits
