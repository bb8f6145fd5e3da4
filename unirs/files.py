"""Reading annotation files with errors that say what to do, and writing files whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unirs.errors import DataError


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
        raise DataError(_broken(path, text, error)) from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply to be an annotation file. Download it again.") from error


def _broken(path: Path, text: str, error: json.JSONDecodeError) -> str:
    if not text.strip():
        return f"{path} is empty. Download it again."
    place = f"line {error.lineno}, column {error.colno}"
    # A string without an end swallows the rest of the file, and is reported where it begins.
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return f"{path} is cut short ({place}: {error.msg}). Download it again."
    return f"{path} is not JSON ({place}: {error.msg}). Correct that place, or download the file again."


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file whole: an interrupted write leaves a former one as it was. Makes its folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
