"""Class folders and the media files in them."""

from collections.abc import Collection
from pathlib import Path

from unirs.errors import DataError


def class_folders(folder: Path) -> list[Path]:
    """The visible sub-folders of a folder, sorted; none where it does not exist. A listing: no file is opened."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def files_of(folder: Path, suffixes: Collection[str], what: str) -> list[Path]:
    """The visible files of a folder, sorted.

    Args:
        folder: a class's.
        suffixes: endings that its files may have, in lower case: `{".mp4"}`.
        what: what such a file is, for messages: `an .mp4 file`.

    Raises:
        DataError: an entry has another ending.
    """
    files = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    for path in files:
        if path.suffix.lower() not in suffixes:
            raise DataError(f"{path} is not {what}. Convert it, or move it elsewhere.")
    return files
