"""The file of `unirs predict --out`: JSON lines of answers, which survive an interruption, or GeoJSON."""

import json
from pathlib import Path
from typing import NotRequired, TypedDict

from unirs.tasks.fields import parse_row
from unirs.utils.io import check_writable, complete_lines, read_json_lines, reading, write_atomically, writing


class AnswerRow(TypedDict):
    """A line of `--out`."""

    task: str
    media: list[str]
    prompt: str
    clue: str
    text: str
    choice_logprobs: NotRequired[dict[str, float]]
    window: NotRequired[list[int]]
    bounds: NotRequired[list[float]]
    crs: NotRequired[str]


class AnswerFile:
    """JSON lines of answers; the hidden file `.<name>.key` holds their key.

    Raises:
        UniRSError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key_file = path.with_name(f".{path.name}.key")
        self.new_key: str | None = None
        check_writable(path.parent, "Name another file with '--out'.")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not path.exists()
            path.open("ab").close()
            if is_new:
                path.unlink()

    def resume(self, key: str) -> dict[tuple[str, ...], AnswerRow]:
        """The rows of an earlier call with the same key, by media. An incomplete last line is removed.

        The first new answer replaces a file with another key.
        """
        if self.key_file.is_file() and self.path.is_file():
            with reading(self.path, "a readable file of JSON lines"):
                is_same = self.key_file.read_bytes() == key.encode()
                if is_same:
                    complete_lines(self.path)
            if is_same:
                rows = (parse_row(row, AnswerRow, where) for where, row in read_json_lines(self.path))
                return {tuple(row["media"]): row for row in rows}
        self.new_key = key
        return {}

    def append(self, row: AnswerRow) -> None:
        """Adds a row."""
        if self.new_key is not None:
            with writing(self.path):
                self.path.unlink(missing_ok=True)
            write_atomically(self.key_file, self.new_key.encode())
            self.new_key = None
        # Names of files may hold bytes that are not UTF-8: lone surrogates in Python, escapes in JSON.
        line = json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        with writing(self.path), self.path.open("ab") as file:
            file.write(line)
