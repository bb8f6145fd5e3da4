"""Hashes of data files and weights, for `manifest.json` and caches."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from unirs.errors import DataError

if TYPE_CHECKING:
    import torch


_SAMPLED = 4096  # Values per tensor that `fingerprint` hashes.


def hash_files(paths: Iterable[Path], root: Path) -> str:
    """Hashes the files that a task reads.

    For a file, its name and contents are hashed. For a folder, the names and sizes of all files below it are hashed: a
    million images cost only a listing, but an edit that does not change the size of a file is not detected. Names are
    relative to `root`, so a copy elsewhere has the same hash, and the order of `paths` does not matter.

    Returns:
        SHA-256 as 64 hexadecimal digits.

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


def hash_tensors(state: Mapping[str, torch.Tensor]) -> str:
    """Hashes tensors by name, dtype, shape and bytes; neither their order nor their device matters.

    Args:
        state: for example a module's `state_dict()`.

    Returns:
        SHA-256 as 64 hexadecimal digits.
    """
    return _hash_tensors(state, lambda flat: flat)


def fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """Hashes tensors as `hash_tensors` does, but at most 4096 values of each, evenly spread from first to last.

    Cheap for billions of weights, and enough to tell models apart: training changes nearly all of them.

    Args:
        state: for example a module's `state_dict()`.

    Returns:
        SHA-256 as 64 hexadecimal digits.
    """
    return _hash_tensors(state, _spread)


def _hash_tensors(state: Mapping[str, torch.Tensor], values: Callable[[torch.Tensor], torch.Tensor]) -> str:
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        _add(digest, name, str(tensor.dtype), str(tuple(tensor.shape)))
        # Viewed as bytes because numpy knows no bfloat16; flattened first because a scalar cannot be viewed.
        digest.update(values(tensor.detach().reshape(-1)).cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _spread(flat: torch.Tensor) -> torch.Tensor:
    import torch

    if len(flat) <= _SAMPLED:
        return flat
    return flat[torch.arange(_SAMPLED, device=flat.device) * (len(flat) - 1) // (_SAMPLED - 1)]


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
