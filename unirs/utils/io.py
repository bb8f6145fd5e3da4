"""Reads annotation files, with errors that name the position and the remedy, and writes files atomically."""

import codecs
import csv
import errno
import json
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import msgspec

from unirs.errors import DataError, UniRSError, did_you_mean

_T = TypeVar("_T")


def is_file_name(name: str) -> bool:
    """Whether a name is that of a visible file or folder in any other folder, and not a path."""
    return 0 < len(name) <= 100 and name.isprintable() and name[0] != "." and not {"/", "\\"} & {*name}


def check_regular(path: Path) -> None:
    """Raises an `OSError` if a path is a FIFO, which waits for a writer, or a device or socket, which may not end."""
    with suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))


@contextmanager
def reading(path: Path, content: str) -> Iterator[None]:
    """Turns what a block raises while it reads a file into a `DataError`; `content` is what the file must be."""
    try:
        check_regular(path)
        yield
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Download it, or correct its path.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). It must be {content}.") from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply to be an annotation file. Download it again.") from error


def read_text(path: Path) -> str:
    """Reads a text file in UTF-8, with or without a byte order mark.

    Raises:
        DataError: the file is missing, cannot be read, or is not UTF-8.
    """
    with reading(path, "a text file in UTF-8"):
        try:
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise not_utf8(path, error.start) from error


def read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON
    """Reads a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        DataError: the file is missing, cannot be read, is not UTF-8, is truncated, or is not JSON.
    """
    with reading(path, "a readable JSON file"):
        try:
            return json.loads(read_text(path))
        except json.JSONDecodeError as error:
            raise broken_json(path, error) from error
        except ValueError as error:
            raise DataError(f"{path} holds an integer that is too long. Correct it.") from error


def convert(value: object, schema: type[_T]) -> _T:
    """Converts parsed JSON or YAML to a type; raises a `msgspec.ValidationError`."""
    try:
        return msgspec.convert(value, schema)
    except UnicodeEncodeError as error:
        raise msgspec.ValidationError("A text contains a lone surrogate, which is no character") from error


def not_utf8(path: Path, byte: int) -> DataError:
    """The error for a file that is not UTF-8 at the byte of an index."""
    return DataError(f"{path} is not UTF-8 text (byte {byte}). Download it again, or save it as UTF-8.")


def broken_json(path: Path, error: json.JSONDecodeError, position: str = "", *, begun: bool = False) -> DataError:
    """The error for a file that is not JSON.

    The document of the decoder's error may be only the end of the file: then `position` is line and column in the file,
    and `begun` whether the file has content before the document.
    """
    text = error.doc
    position = position or f"line {error.lineno}, column {error.colno}"
    if not text.strip() and not begun:
        return DataError(f"{path} is empty. Download it again.")
    # An unterminated string extends to the end of the file, but is reported at its first character.
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return DataError(f"{path} is cut short ({position}: {error.msg}). Download it again.")
    return DataError(f"{path} is not JSON ({position}: {error.msg}). Correct it there, or download the file again.")


has_surrogate = re.compile(r"\\ud[89a-f]", re.IGNORECASE).search
"""Searches JSON for an escaped surrogate, which may be one of a pair."""


def is_text(value: Any) -> bool:  # noqa: ANN401 - any JSON
    """Whether no text in a JSON value contains a lone surrogate, unless for a byte of a file name (`os.fsdecode`)."""
    if isinstance(value, str):
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return False
        return True
    if isinstance(value, dict):
        return all(is_text(key) and is_text(each) for key, each in value.items())
    return not isinstance(value, list) or all(map(is_text, value))


def not_text(where: str) -> DataError:
    """The error for a row for which `is_text` is false."""
    return DataError(f"{where}: a text contains a lone surrogate, which is no character. Correct the row.")


MAX_ROW = 4 << 20
"""Bytes of the largest row of an annotation file: longer texts would stall tokenizers."""


def too_large(where: str, size: int) -> DataError:
    """The error for a row of more than `MAX_ROW` bytes; `where` is its file and position."""
    return DataError(f"{where} has {size:,} bytes, more than {MAX_ROW:,}. Remove the row, or shorten its texts.")


class Row(NamedTuple):
    """A row of an annotation file, and the range of its bytes in the file."""

    value: Any
    start: int
    end: int


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads a file with one JSON object a line, one by one; empty lines are skipped.

    Args:
        path: the file, in UTF-8 with or without a byte order mark.

    Yields:
        `<path>, line <number>`, for messages, and the object.

    Raises:
        DataError: the file is missing, cannot be read or is not UTF-8, or a line is no JSON object; names the line.
    """
    for number, row in scan_json_lines(path):
        yield f"{path}, line {number}", row.value


def scan_json_lines(path: Path) -> Iterator[tuple[int, Row]]:
    """Reads a file as `read_json_lines` does; yields line numbers, and rows with their byte range for `read_row`."""
    start = 0
    with reading(path, "a readable file of JSON lines"), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if len(line) > MAX_ROW:
                raise too_large(f"{path}, line {number}", len(line))
            mark = len(codecs.BOM_UTF8) if number == 1 and line.startswith(codecs.BOM_UTF8) else 0
            try:
                value = msgspec.json.decode(line[mark:])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                value = _parse_line(path, number, line[mark:])
            if isinstance(value, dict):
                yield number, Row(value, start + mark, start + len(line))
            elif value is not _EMPTY:
                raise DataError(f"{path}, line {number} is not a JSON object. The file must hold one per line.")
            start += len(line)


_EMPTY = object()


def _parse_line(path: Path, number: int, line: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Parses what msgspec refuses: NaN, infinity, and empty lines as `_EMPTY`; errors say what is wrong."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text after line {number - 1}. Save it as UTF-8.") from error
    if not text.strip():
        return _EMPTY
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number} is not JSON ({error}). Correct that line.") from error
    if isinstance(value, dict) and has_surrogate(text) and not is_text(value):
        raise not_text(f"{path}, line {number}")
    return value


def read_row(path: Path, start: int, end: int) -> Any:  # noqa: ANN401 - any JSON
    """Reads a row again, from its byte range in `Row`; raises a `DataError` if the file has changed."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            return json.loads(file.read(end - start))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} was changed while it was in use ({error}). Start again.") from error


def read_csv(path: Path, columns: Collection[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Reads a CSV file in UTF-8 whose header has at least these columns.

    Yields:
        `<path>, line <number>`, for messages, and the row by column.

    Raises:
        DataError: the file is missing, cannot be read, is not UTF-8, lacks a column, or a row is short; names the line.
    """
    try:
        with reading(path, "a CSV file in UTF-8"), path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            for column in columns:
                if column not in (rows.fieldnames or ()):
                    raise DataError(f"{path} has no column '{column}'. {did_you_mean(column, rows.fieldnames or ())}")
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                for column in columns:
                    if row[column] is None:
                        raise DataError(f"{where} has no '{column}'. Add it, or remove the row.")
                yield where, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}). It must be a CSV file in UTF-8.") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors of the system during a write to a file or folder into one that names it and what to do.

    Raises:
        UniRSError: the path is read-only, the disk is full, or the like.
    """
    try:
        yield
    except OSError as error:
        raise UniRSError(
            f"{error.filename or path} cannot be written ({error.strerror or error}). Make it writable, or free space "
            "on its disk."
        ) from error


def check_writable(folder: Path, remedy: str) -> None:
    """Checks that files can be written to a folder, which need not exist; leaves nothing behind.

    Args:
        folder: to write to.
        remedy: end of the error message.

    Raises:
        UniRSError: it is read-only, its disk is full, or the like.
    """
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        raise UniRSError(f"{folder} cannot be written ({error.strerror or error}). {remedy}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces a file in one step: an interrupted write leaves the old one unchanged. Makes missing parent folders."""
    with writing(path), replacing_file(path) as file:
        file.write(content)


def complete_lines(path: Path) -> list[bytes]:
    """The lines of a file that is appended to; an incomplete last one, of an interrupted write, is removed from it."""
    complete, end, rest = path.read_bytes().rpartition(b"\n")
    if rest:
        write_atomically(path, complete + end)
    return complete.splitlines()


@contextmanager
def replacing_file(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """Yields a sibling file that replaces `path` if the block ends without an error.

    An interrupted write, or a full disk, leaves the old file unchanged. Makes missing parent folders.

    Args:
        path: of the file.
        durable: whether the file outlives a loss of power, which takes milliseconds; else it may then be damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Unique, since several processes may write the same file at once.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if durable:
        # Its new name.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that replaces `folder` if the block ends without an error, and is else removed."""
    partial = folder.with_name(f".{folder.name}.partial")
    former = folder.with_name(f".{folder.name}.former")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _restore(former, folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        # No portable call replaces a folder that is not empty, so the old one is renamed first. A process that is
        # killed between the two renames leaves it as `.<name>.former`, and the next write restores it first.
        if folder.exists():
            folder.replace(former)
        partial.replace(folder)
    except BaseException:
        _restore(former, folder)
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _restore(former: Path, folder: Path) -> None:
    if former.exists() and not folder.exists():
        former.replace(folder)
    shutil.rmtree(former, ignore_errors=True)
