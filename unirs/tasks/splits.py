"""What task plugins share: checked options and fields, class folders, and splits by hash."""

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
        splits: what there is.
        where: file and row that name it, for messages.

    Raises:
        DataError: there is no such split.
    """
    if split not in splits:
        raise DataError(f"{where and f'{where}: '}Unknown split '{split}'. {did_you_mean(split, splits)}")


@dataclass(frozen=True)
class Shares:
    """How much of the data is test and validation data where nothing says so; a hash of the names chooses.

    Attributes:
        test: share of all, 0..1.
        val: share of what is not test, 0..1.
        seed: another one chooses others.

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
        """The test share of some names."""
        return held_out(names, self.test, f"{self.seed}/")

    def of_val(self, names: Iterable[str]) -> set[str]:
        """The validation share of names that are not test."""
        return held_out(names, self.val, f"{self.seed}/")


def held_out(names: Iterable[str], share: float, salt: str = "") -> set[str]:
    """Chooses a share of names by hash, so that the choice is the same on every machine.

    Args:
        names: distinct.
        share: how many of them, 0..1.
        salt: another one chooses others.

    Returns:
        None of them where the share is 0 or there are fewer than two names; else at least one, and never all.
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
    """The files of a split, where a file or else a hash says which split each is in.

    Where no file names validation files, they are a share of each group's training files.

    Args:
        split: which.
        groups: the files, e.g. class by class; a share is taken of each group, so that what is added to one does not
            move another's files.
        given: split by file, from `read_split_file`; files that it leaves out are in no split. None: a hash says.
        shares: of what a hash says.
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
        known: the files that there are.

    Returns:
        The split (`train`, `val`, `test`) of each file that is named.

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
