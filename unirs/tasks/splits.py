"""Splits of a data set: by a hash of names, or by a file."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from unirs.errors import DataError, PluginError, did_you_mean
from unirs.utils.io import read_csv


def check_split(split: str, splits: Collection[str] = ("train", "val", "test"), where: str = "") -> None:
    """Checks the name of a split.

    Args:
        split: the name.
        splits: existing ones.
        where: file and row that name it, for messages.

    Raises:
        DataError: there is no such split.
    """
    if split not in splits:
        raise DataError(f"{where and f'{where}: '}Unknown split '{split}'. {did_you_mean(split, splits)}")


@dataclass(frozen=True)
class Shares:
    """Shares of test and validation data if no file defines the splits; a hash of the names selects the members.

    Attributes:
        test: share of all names, 0..1.
        val: share of the names that are not test, 0..1.
        seed: changes the selection.

    Raises:
        PluginError: a share is not from 0 to 1.
    """

    test: float
    val: float
    seed: int

    def __post_init__(self) -> None:
        for option, share in {"test_share": self.test, "val_share": self.val}.items():
            if not 0 <= share <= 1:
                raise PluginError(f"'{option}' is {share}, it must be from 0 to 1.")

    def of_test(self, names: Iterable[str]) -> set[str]:
        """Selects the test share of names."""
        return held_out(names, self.test, f"{self.seed}/")

    def of_val(self, names: Iterable[str]) -> set[str]:
        """Selects the validation share of names that are not test."""
        return held_out(names, self.val, f"{self.seed}/")


def held_out(names: Iterable[str], share: float, salt: str = "") -> set[str]:
    """Selects a share of names by hash, equally on every machine.

    Args:
        names: distinct.
        share: of the names to select, 0..1.
        salt: changes the selection.

    Returns:
        The selected names: none if the share is 0 or there are fewer than two names, else at least one and never all.
    """
    ranked = sorted(names, key=lambda name: (hashlib.sha256(f"{salt}{name}".encode()).digest(), name))
    if len(ranked) < 2 or share <= 0:
        return set()
    return set(ranked[: min(max(1, round(len(ranked) * share)), len(ranked) - 1)])


def choose_split(
    split: str,
    groups: Iterable[Collection[str]],
    given: Mapping[str, str] | None,
    shares: Shares,
) -> list[str]:
    """Returns the files of a split, by a split file or else by hash.

    If no split file names validation files, they are a share of the training files of each group.

    Args:
        split: name of the split.
        groups: the files, e.g. by class. A share of each group is selected, so that files added to one group do not
            change the split of others.
        given: split by file, from `read_split_file`; files that it omits are in no split. None: by hash.
        shares: for the selection by hash.
    """
    chosen: list[str] = []
    for group in groups:
        test = shares.of_test(group) if given is None else set()
        named = given if given is not None else {name: "test" if name in test else "train" for name in group}
        training = [name for name in group if named.get(name) == "train"]
        val = set() if given is not None and "val" in given.values() else shares.of_val(training)
        chosen += [name for name in group if ("val" if name in val else named.get(name)) == split]
    return chosen


def read_split_file(path: Path, known: Collection[str]) -> dict[str, str]:
    """Reads a CSV file with the columns `file` and `split`.

    Args:
        path: the CSV file.
        known: the existing files.

    Returns:
        The split (`train`, `val`, `test`) of each named file.

    Raises:
        DataError: a row names an unknown split or file, or one a second time; names the row.
    """
    splits: dict[str, str] = {}
    for where, row in read_csv(path, ("file", "split")):
        name = row["file"]
        check_split(row["split"], where=where)
        if name not in known:
            raise DataError(f"{where}: there is no '{name}' in the data. Correct the row, or add the file.")
        if name in splits:
            raise DataError(f"{where}: '{name}' was named before. Keep one of its rows.")
        splits[name] = row["split"]
    return splits
