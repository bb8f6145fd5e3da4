"""Write-ahead log of answers: an interrupted evaluation resumes after the last answer that reached the disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unirs.errors import DataError, UniRSError
from unirs.metrics.base import Prediction
from unirs.utils.io import read_json, write_atomically


class PredictionLog:
    """The answers to one evaluation set, as JSON lines in one file for each process.

    Args:
        folder: of the evaluation set; created if it does not exist.
        key: everything that the answers depend on, as JSON: data, prompts, weights, decoding.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self.folder = folder
        self.key = dict(key)

    def matches(self) -> bool:
        """Whether the folder holds answers for the same key."""
        path = self.folder / "key.json"
        return path.is_file() and bool(read_json(path) == self.key)

    def begin(self, *, resume: bool) -> None:
        """Prepares the folder. Call it on one process, before others read or append.

        Args:
            resume: keep the answers of an interrupted evaluation; otherwise they are deleted.

        Raises:
            UniRSError: the answers to resume from are of another key.
            DataError: a line of them is damaged; names file and line.
        """
        if resume and (self.folder / "key.json").is_file():
            if self.matches():
                self.read()  # Repairs the files before several processes read them at once.
                return
            raise UniRSError(
                f"{self.folder} holds answers of other weights, or to other data, prompts, samples or decoding. Omit "
                "'--resume', or name another folder."
            )
        for path in self.folder.glob("*.jsonl"):
            path.unlink()
        write_atomically(self.folder / "key.json", json.dumps(self.key, indent=2).encode())

    def append(self, rank: int, rows: Iterable[Prediction]) -> None:
        """Appends answers to the file of a process; they survive if the process is killed."""
        with (self.folder / f"{rank}.jsonl").open("ab") as file:
            file.write(b"".join(row.to_json() + b"\n" for row in rows))

    def read(self) -> dict[str, Prediction]:
        """All answers by id. An incomplete last line, of an interrupted write, is removed from its file.

        Raises:
            DataError: another line is damaged; names file and line.
        """
        rows: dict[str, Prediction] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            complete, end, rest = path.read_bytes().rpartition(b"\n")
            if rest:
                write_atomically(path, complete + end)
            for number, line in enumerate(complete.splitlines(), start=1):
                try:
                    row = Prediction.from_json(line)
                except ValueError as error:
                    raise DataError(
                        f"{path}, line {number} is damaged ({error}). Delete the file, or start without '--resume'."
                    ) from error
                rows.setdefault(row.id, row)
        return rows
