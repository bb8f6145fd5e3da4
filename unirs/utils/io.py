"""Reading annotation files with errors that say what to do, and writing files whole."""

import codecs
import csv
import json
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from unirs.errors import DataError, did_you_mean


def read_json(path: Path, *, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:  # noqa: ANN401
    """Reads a JSON file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        object_hook: as in `json.loads`: gets each JSON object, innermost first, and what it returns takes its place. So
            a large file need not stand in memory as dictionaries.

    Returns:
        What the file holds.

    Raises:
        DataError: the file is missing, cannot be read, is not UTF-8, is cut short, or is not JSON. Whatever
            `object_hook` raises passes through.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Download it, or correct the folder it is looked for in.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). It must be a readable JSON file.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text (byte {error.start}). Download it again, or save it as UTF-8."
        ) from error
    try:
        return json.loads(text, object_hook=object_hook)
    except json.JSONDecodeError as error:
        raise broken_json(path, error) from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply to be an annotation file. Download it again.") from error


def broken_json(path: Path, error: json.JSONDecodeError, place: str = "", *, begun: bool = False) -> DataError:
    """What to raise where a file is not JSON.

    Args:
        path: the file.
        error: what the decoder said; its document may be the end of the file alone.
        place: line and column in the file; those of the document where left out.
        begun: whether anything stands before the document.
    """
    text = error.doc
    place = place or f"line {error.lineno}, column {error.colno}"
    if not text.strip() and not begun:
        return DataError(f"{path} is empty. Download it again.")
    # A string without an end swallows the rest of the file, and is reported where it begins.
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return DataError(f"{path} is cut short ({place}: {error.msg}). Download it again.")
    return DataError(f"{path} is not JSON ({place}: {error.msg}). Correct that place, or download the file again.")


class Row(NamedTuple):
    """A row of an annotation file, and which bytes of the file hold it."""

    value: Any
    start: int
    end: int


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads a file with one JSON object a line, one by one; empty lines are passed over.

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
    """As `read_json_lines`, with the line's number, and where in the file each object stands for `read_row`."""
    number, start = 0, 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                mark = len(codecs.BOM_UTF8) if number == 1 and line.startswith(codecs.BOM_UTF8) else 0
                text = line[mark:].decode()
                if text.strip():
                    value = _object(f"{path}, line {number}", text)
                    yield number, Row(value, start + mark, start + len(line))
                start += len(line)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Correct its path.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text after line {number - 1}. Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). It must be a readable file of JSON lines."
        ) from error


def read_row(path: Path, start: int, end: int) -> Any:  # noqa: ANN401 - any JSON
    """Reads a row again.

    Args:
        path: the file.
        start: its first byte, as in `Row`.
        end: the byte behind it.

    Raises:
        DataError: the file has changed since the row was found.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            return json.loads(file.read(end - start))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} was changed while it was in use ({error}). Start again.") from error


def read_csv(path: Path, columns: Collection[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Reads a CSV file with a head row, row by row.

    Args:
        path: the file, in UTF-8 with or without a byte order mark.
        columns: what its head must name; it may name more.

    Yields:
        `<path>, line <number>`, for messages, and the row by column.

    Raises:
        DataError: the file is missing, cannot be read, is not UTF-8, lacks a column, or a row is short; names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
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
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Correct its path.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}). It must be a CSV file in UTF-8.") from error


def _object(where: str, line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where} is not JSON ({error}). The file must hold one JSON object a line; correct that line."
        ) from error
    if not isinstance(content, dict):
        raise DataError(f"{where} is not a JSON object. The file must hold one a line, and no list around them.")
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file whole: an interrupted write leaves a former one as it was. Makes its folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty sibling folder that takes the place of `folder` when the block ends without an error.

    An interrupted write leaves the former folder as it was.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    former = folder.with_name(f".{folder.name}.former")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _put_back(former, folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        # No portable call replaces a folder that is not empty, so the old one steps aside first. A process that is
        # killed between the two renames leaves it as `.<name>.former`, and the next write begins by putting it back.
        if folder.exists():
            folder.replace(former)
        partial.replace(folder)
    except BaseException:
        _put_back(former, folder)
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _put_back(former: Path, folder: Path) -> None:
    if former.exists() and not folder.exists():
        former.replace(folder)
    shutil.rmtree(former, ignore_errors=True)
