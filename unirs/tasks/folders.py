"""Class folders and the media files in them."""

from collections.abc import Collection
from pathlib import Path

from unirs.errors import DataError


def class_folders(folder: Path) -> list[Path]:
    """The visible sub-folders of a folder, sorted; empty if it does not exist. No file is opened."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def files_of(folder: Path, suffixes: Collection[str], what: str) -> list[Path]:
    """The visible files of a folder, sorted.

    Args:
        folder: of a class.
        suffixes: allowed, in lower case: `{".mp4"}`.
        what: description of such a file, for messages: `an .mp4 file`.

    Raises:
        DataError: an entry has another suffix.
    """
    files = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    for path in files:
        if path.suffix.lower() not in suffixes:
            raise DataError(f"{path} is not {what}. Convert it, or move it elsewhere.")
    return files
