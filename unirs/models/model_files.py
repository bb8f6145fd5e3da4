"""The files of a model: errors name the file, and checksums detect damage that would load."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unirs.errors import DataError, ModelError, UniRSError
from unirs.utils.io import check_regular, read_json

CHECKSUMS = "checksums.json"
"""SHA-256 of each file of a saved model, by name."""


@contextmanager
def loading(path: Path) -> Iterator[None]:
    """Names a file or folder in every error of a block that builds components from its content.

    The libraries that build components raise errors of any class for values that they do not expect.

    Raises:
        UniRSError: of the same class, if the block raises one; else a `ModelError`.
    """
    try:
        yield
    except UniRSError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(
            f"{path} does not load ({problem[:500]}). It is damaged, or of another version: save or download it again."
        ) from error


def write_checksums(folder: Path) -> None:
    """Writes the checksums of all files of a saved model."""
    content = {path.name: _digest(path) for path in sorted(folder.iterdir()) if path.is_file()}
    (folder / CHECKSUMS).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def verify_checksums(folder: Path) -> None:
    """Compares the files of a saved model with its checksums, if it has them.

    Raises:
        ModelError: a file is missing, cannot be read, or differs.
    """
    path = folder / CHECKSUMS
    if not path.exists():
        return
    try:
        expected = read_json(path)
    except DataError as error:
        raise ModelError(f"{error} Or delete it: the model then loads unchecked.") from error
    if not isinstance(expected, dict):
        raise ModelError(f"{path} is damaged: it holds no JSON object. Save or download the model again.")
    for name, digest in expected.items():
        # Only names of files in the folder.
        file = folder / Path(name).name
        with loading(file):
            found = _digest(file)
        if found != digest:
            raise ModelError(
                f"{file} is damaged: it differs from its checksum in {CHECKSUMS}. Save or download the model again. If "
                f"you changed the file, delete {CHECKSUMS}."
            )


def _digest(path: Path) -> str:
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
