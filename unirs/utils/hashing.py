"""Hashes of data files and weights, for `manifest.json` and caches."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from unirs.errors import DataError

if TYPE_CHECKING:
    import torch


def hash_parts(*parts: str | int) -> str:
    """SHA-256 of values as hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def hash_files(paths: Iterable[Path], root: Path) -> str:
    """Hashes the files that a task reads; SHA-256 in hexadecimal.

    For a file, its name and contents are hashed. For a folder, the names and sizes of all files below it are hashed: a
    million images cost only a listing, but an edit that does not change the size of a file is not detected. Names are
    relative to `root`, so a copy elsewhere has the same hash, and the order of `paths` does not matter.

    Raises:
        DataError: a path does not exist or cannot be read.
    """
    entries = []
    for path in paths:
        name = Path(os.path.relpath(path, root)).as_posix()
        try:
            if path.is_dir():
                entries += [(f"{name}/{below}", str(size)) for below, size in _sizes(path)]
            else:
                with path.open("rb") as file:
                    entries.append((name, hashlib.file_digest(file, "sha256").hexdigest()))
        except OSError as error:
            raise DataError(f"{error.filename or path} cannot be read ({error.strerror}). Check the data.") from error
    digest = hashlib.sha256()
    for entry in sorted(set(entries)):
        _add(digest, *entry)
    return digest.hexdigest()


def hash_tensors(state: Mapping[str, torch.Tensor], max_values: int | None = None) -> str:
    """Hashes tensors by name, dtype, shape and bytes, independent of order and device; SHA-256 in hexadecimal.

    With `max_values`, at most so many values of each are hashed, evenly spread from first to last.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        _add(digest, name, str(tensor.dtype), str(tuple(tensor.shape)))
        values = tensor.detach().reshape(-1)
        if max_values is not None and len(values) > max_values:
            values = values[torch.arange(max_values, device=values.device) * (len(values) - 1) // (max_values - 1)]
        # Viewed as bytes because numpy has no bfloat16; flattened first because a scalar cannot be viewed.
        digest.update(values.cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """Hashes 4096 values of each tensor: fast, and enough, as training changes nearly all weights."""
    return hash_tensors(state, 4096)


def _add(digest: hashlib._Hash, *components: str) -> None:
    for component in components:
        data = os.fsencode(component)
        # The length prefix separates a component from the next.
        digest.update(len(data).to_bytes(8, "little") + data)


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from ((f"{entry.name}/{name}", size) for name, size in _sizes(folder / entry.name))
            else:
                yield entry.name, entry.stat().st_size
