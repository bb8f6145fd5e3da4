"""Reads the rows of a large JSON list one by one, so that the file never stands in memory as a whole."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from unirs.errors import DataError
from unirs.utils.io import Row, broken_json

_CHUNK = 1 << 20

_SPACES = " \t\n\r"

_SPACE = re.compile(f"[{_SPACES}]*")

# The longest thing but a string that the end of a chunk can cut in two: `-Infinity`.
_LONGEST_WORD = 16


def read_json_list(path: Path, key: str | None = None) -> Iterator[Row]:
    """Reads a JSON list, row by row.

    Args:
        path: the file, in UTF-8 with or without a byte order mark.
        key: the list is the value of this key of a JSON object; None where the file holds nothing but the list.

    Yields:
        The rows, in the file's order; `unirs.utils.io.read_row` reads one again.

    Raises:
        DataError: the file is missing, cannot be read, is not UTF-8, is cut short, is not JSON, or holds no such list.
            What stands behind the last row is checked as well.
    """
    try:
        with path.open("rb") as file:
            yield from _rows(_Scanner(path, file), key)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Download it, or correct the folder it is looked for in.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). It must be a readable JSON file.") from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply to be an annotation file. Download it again.") from error


class _Scanner:
    """A window on the file's text that moves on with what is read."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.text, self.place = "", 0
        self.ended = False
        # Of the window's first character; the byte of another character is counted on from `_known`.
        self._line, self._column, self._begun = 1, 1, False
        self._known = (0, len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0)
        self._read = file.seek(self._known[1])
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._raw_decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no space; empty at the end of the file."""
        found = self.text[self.place : self.place + 1]
        if found and found not in _SPACES:
            return found
        while True:
            space = _SPACE.match(self.text, self.place)
            self.place = space.end() if space else self.place
            if self.place < len(self.text) or self.ended:
                return self.text[self.place : self.place + 1]
            self._more()

    def take(self, characters: str) -> str:
        """Takes one of these characters.

        Raises:
            DataError: another one stands there.
        """
        found = self.peek()
        if not found or found not in characters:
            wanted = " or ".join(f"'{character}'" for character in characters)
            raise self.broken(json.JSONDecodeError(f"Expecting {wanted}", self.text, self.place))
        self.place += 1
        return found

    def value(self) -> Any:  # noqa: ANN401 - any JSON
        """Takes a JSON value."""
        self.peek()
        while True:
            try:
                value, end = self._raw_decode(self.text, self.place)
            except json.JSONDecodeError as error:
                cut = error.pos >= len(self.text) - _LONGEST_WORD or error.msg.startswith("Unterminated string")
                if self.ended or not cut:
                    raise self.broken(error) from error
            else:
                # A number at the window's end may go on behind it, and `1e+` reads as 1 up to there.
                if end + 2 < len(self.text) or self.ended:
                    self.place = end
                    return value
            self._more()

    def byte(self) -> int:
        """Where in the file the next character stands."""
        place, byte = self._known
        # Python knows of a text whether it is ASCII: most windows need not be encoded.
        ascii_only = self.text.isascii()
        byte += self.place - place if ascii_only else len(self.text[place : self.place].encode())
        self._known = self.place, byte
        return byte

    def broken(self, error: json.JSONDecodeError) -> DataError:
        """What to raise where the file is not JSON."""
        line = self._line + error.lineno - 1
        column = error.colno + (self._column - 1 if error.lineno == 1 else 0)
        return broken_json(self.path, error, f"line {line}, column {column}", begun=self._begun)

    def _more(self) -> None:
        """Drops what was read and reads on, twice as much where a value is longer than the window."""
        self._known = 0, self.byte()
        passed, self.text, self.place = self.text[: self.place], self.text[self.place :], 0
        self._begun = self._begun or bool(passed.strip())
        self._line += passed.count("\n")
        self._column = len(passed) - passed.rfind("\n") if "\n" in passed else self._column + len(passed)
        chunk = self.file.read(max(_CHUNK, len(self.text)))
        before = self._read - len(self._decoder.getstate()[0])
        self._read += len(chunk)
        self.ended = not chunk
        try:
            self.text += self._decoder.decode(chunk, final=self.ended)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path} is not UTF-8 text (byte {before + error.start}). Download it again, or save it as UTF-8."
            ) from error


def _rows(scanner: _Scanner, key: str | None) -> Iterator[Row]:
    if key is None:
        if scanner.peek() not in ("[", ""):
            raise DataError(f"{scanner.path} holds no JSON list. Download it again.")
        yield from _items(scanner)
    else:
        yield from _items_of(scanner, key)
    if scanner.peek():
        raise scanner.broken(json.JSONDecodeError("Extra data", scanner.text, scanner.place))


def _items_of(scanner: _Scanner, key: str) -> Iterator[Row]:
    missing = DataError(f"{scanner.path} has no list '{key}'. Download it again, or correct the name of the file.")
    if scanner.peek() not in ("{", ""):
        raise missing
    found = False
    end = scanner.take("{")
    if scanner.peek() == "}":
        end = scanner.take("}")
    while end != "}":
        name = scanner.value()
        scanner.take(":")
        if name == key and scanner.peek() == "[":
            found = True
            yield from _items(scanner)
        else:
            scanner.value()
        end = scanner.take(",}")
    if not found:
        raise missing


def _items(scanner: _Scanner) -> Iterator[Row]:
    end = scanner.take("[")
    if scanner.peek() == "]":
        end = scanner.take("]")
    while end != "]":
        scanner.peek()
        start = scanner.byte()
        value = scanner.value()
        yield Row(value, start, scanner.byte())
        end = scanner.take(",]")
