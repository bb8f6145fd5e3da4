"""Write-ahead log of answers: an interrupted evaluation resumes after the last answer that reached the disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unirs.errors import DataError, UniRSError
from unirs.metrics.base import Prediction
from unirs.utils.io import read_json, write_atomically


class PredictionLog:
    """The answers to one evaluation set, as JSON lines in one file for each process.

    Args:
        folder: of the evaluation set; made if it does not exist.
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
        """
        if resume and (self.folder / "key.json").is_file():
            if self.matches():
                return
            raise UniRSError(
                f"{self.folder} holds answers to other questions, of another model or of another decoding. "
                "Leave out '--resume', or choose another folder."
            )
        for path in self.folder.glob("*.jsonl"):
            path.unlink()
        write_atomically(self.folder / "key.json", json.dumps(self.key, indent=2).encode())

    def append(self, rank: int, rows: Iterable[Prediction]) -> None:
        """Appends answers to the file of a process; they survive a killed process.

        Args:
            rank: of the process.
            rows: answered queries.
        """
        lines = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
        with (self.folder / f"{rank}.jsonl").open("a", encoding="utf-8") as file:
            file.write(lines)

    def read(self) -> dict[str, Prediction]:
        """All answers by id. A last line that an interruption left incomplete is removed from its file.

        Raises:
            DataError: another line is damaged; names file and line.
        """
        rows: dict[str, Prediction] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            text = path.read_text(encoding="utf-8")
            complete, _, rest = text.rpartition("\n")
            if rest:
                write_atomically(path, f"{complete}\n".encode() if complete else b"")
            for number, line in enumerate(filter(None, complete.split("\n")), start=1):
                try:
                    values = json.loads(line)
                    values |= {name: tuple(values[name]) for name in ("media", "references")}
                    row = Prediction(**values)
                except (ValueError, TypeError, KeyError) as error:
                    raise DataError(
                        f"{path}, line {number} is damaged ({error}). Delete the file, or run again."
                    ) from error
                rows.setdefault(row.id, row)
        return rows
