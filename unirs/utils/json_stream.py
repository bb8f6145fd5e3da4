"""Reads the rows of a large JSON list one by one, in bounded memory.

msgspec is faster but needs the whole file in one buffer. On a file of a million RSVQA questions this reader takes
5.5 us a row and 2 MB of memory; `msgspec.json.decode` takes 2.2 us and 677 MB into typed structs, or 0.7 us and 286 MB
(most of it the mapped file) into raw rows that are decoded one by one.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from unirs.errors import DataError
from unirs.utils.io import MAX_ROW, Row, broken_json, has_surrogate, is_text, not_text, not_utf8, reading, too_large

_CHUNK = 1 << 20

_SPACES = " \t\n\r"

_SPACE = re.compile(f"[{_SPACES}]*")

# Longer than the longest token except strings that a chunk's end can split: `-Infinity`.
_LONGEST_WORD = 16


def read_json_list(path: Path, key: str | None = None) -> Iterator[Row]:
    """Reads a JSON list, row by row.

    Args:
        path: the file, in UTF-8 with or without a byte order mark.
        key: the key of the list in a JSON object; None if the list is the whole file.

    Yields:
        The rows, in the file's order; `unirs.utils.io.read_row` reads one again.

    Raises:
        DataError: the file is missing, cannot be read, is not UTF-8, is truncated, is not JSON, or holds no such list.
            Content after the list is checked as well.
    """
    with reading(path, "a readable JSON file"), path.open("rb") as file:
        yield from _rows(_Scanner(path, file), key)


def read_json_lists(path: Path) -> Iterator[tuple[str, Row]]:
    """Reads the rows of all lists of a JSON object, such as `{"0.png": [row, row], "1.png": [row]}`, one by one.

    Values that are no lists are skipped. Arguments and errors are those of `read_json_list`.

    Yields:
        Each row with the key of its list, in the file's order.
    """
    with reading(path, "a readable JSON file"), path.open("rb") as file:
        scanner = _Scanner(path, file)
        if scanner.peek() not in ("{", ""):
            raise DataError(f"{path} holds no JSON object. Download it again.")
        for name in _lists(scanner):
            for row in _items(scanner):
                yield name, row
        _check_end(scanner)


class _Scanner:
    """A window on the text of the file that moves forward as rows are read."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.text, self.index = "", 0
        self.ended = False
        # Position of the window's first character. Byte offsets are counted from `_known`: (index, byte).
        self._line, self._column, self._begun = 1, 1, False
        self._known = (0, len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0)
        self._read = file.seek(self._known[1])
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._raw_decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """Returns the next character that is no whitespace; empty at the end of the file."""
        found = self.text[self.index : self.index + 1]
        if found and found not in _SPACES:
            return found
        while True:
            space = _SPACE.match(self.text, self.index)
            self.index = space.end() if space else self.index
            if self.index < len(self.text) or self.ended:
                return self.text[self.index : self.index + 1]
            self._more()

    def take(self, characters: str) -> str:
        """Consumes one of these characters; raises a `DataError` if another one is next."""
        found = self.peek()
        if not found or found not in characters:
            wanted = " or ".join(f"'{character}'" for character in characters)
            raise self.broken(json.JSONDecodeError(f"Expecting {wanted}", self.text, self.index))
        self.index += 1
        return found

    def value(self) -> Any:  # noqa: ANN401 - any JSON
        """Consumes a JSON value."""
        self.peek()
        while True:
            try:
                value, end = self._raw_decode(self.text, self.index)
            except json.JSONDecodeError as error:
                cut = error.pos >= len(self.text) - _LONGEST_WORD or error.msg.startswith("Unterminated string")
                if self.ended or not cut:
                    raise self.broken(error) from error
            except ValueError as error:
                too_long = json.JSONDecodeError("An integer that is too long", self.text, self.index)
                raise self.broken(too_long) from error
            else:
                # A number at the window's end may continue in the next chunk, and `1e+` is decoded as 1.
                if end + 2 < len(self.text) or self.ended:
                    if has_surrogate(self.text, self.index, end) and not is_text(value):
                        line = self._line + self.text.count("\n", 0, self.index)
                        raise not_text(f"{self.path}, value in line {line}")
                    self.index = end
                    return value
            self._more()

    def byte(self) -> int:
        """Returns the byte offset of the next character in the file."""
        index, byte = self._known
        # Python stores whether a string is ASCII: most windows need no encoding.
        byte += self.index - index if self.text.isascii() else len(self.text[index : self.index].encode())
        self._known = self.index, byte
        return byte

    def broken(self, error: json.JSONDecodeError) -> DataError:
        """Makes the error for a file that is not JSON."""
        line = self._line + error.lineno - 1
        column = error.colno + (self._column - 1 if error.lineno == 1 else 0)
        return broken_json(self.path, error, f"line {line}, column {column}", begun=self._begun)

    def _more(self) -> None:
        """Drops the text before the position and reads a chunk; the window doubles until the next value fits."""
        self._known = 0, self.byte()
        consumed, self.text, self.index = self.text[: self.index], self.text[self.index :], 0
        self._begun = self._begun or bool(consumed.strip())
        self._line += consumed.count("\n")
        self._column = len(consumed) - consumed.rfind("\n") if "\n" in consumed else self._column + len(consumed)
        chunk = self.file.read(max(_CHUNK, len(self.text)))
        before = self._read - len(self._decoder.getstate()[0])
        self._read += len(chunk)
        self.ended = not chunk
        try:
            self.text += self._decoder.decode(chunk, final=self.ended)
        except UnicodeDecodeError as error:
            raise not_utf8(self.path, before + error.start) from error


def _rows(scanner: _Scanner, key: str | None) -> Iterator[Row]:
    if key is None:
        if scanner.peek() not in ("[", ""):
            raise DataError(f"{scanner.path} holds no JSON list. Download it again.")
        yield from _items(scanner)
    else:
        missing = DataError(f"{scanner.path} has no list '{key}'. Download it again, or correct the name of the file.")
        if scanner.peek() not in ("{", ""):
            raise missing
        found = False
        for _ in _lists(scanner, key):
            found = True
            yield from _items(scanner)
        if not found:
            raise missing
    _check_end(scanner)


def _check_end(scanner: _Scanner) -> None:
    if scanner.peek():
        raise scanner.broken(json.JSONDecodeError("Extra data", scanner.text, scanner.index))


def _lists(scanner: _Scanner, key: str | None = None) -> Iterator[str]:
    """Yields before each list of an object, or only before those of a key, which the caller consumes."""
    for _ in _entries(scanner, "{}"):
        name = scanner.value()
        scanner.take(":")
        if key in (None, name) and scanner.peek() == "[":
            yield str(name)
        else:
            scanner.value()


def _items(scanner: _Scanner) -> Iterator[Row]:
    for _ in _entries(scanner, "[]"):
        scanner.peek()
        start = scanner.byte()
        value, end = scanner.value(), scanner.byte()
        if end - start > MAX_ROW:
            raise too_large(f"{scanner.path}, byte {start}: a row", end - start)
        yield Row(value, start, end)


def _entries(scanner: _Scanner, brackets: str) -> Iterator[None]:
    """Consumes the brackets and commas of a list or an object; yields before each entry."""
    end = scanner.take(brackets[0])
    if scanner.peek() == brackets[1]:
        end = scanner.take(brackets[1])
    while end != brackets[1]:
        yield
        end = scanner.take(f",{brackets[1]}")
