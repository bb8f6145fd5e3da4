"""`manifest.json`: what it takes to know later what a run was made of."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from unirs.errors import DataError

if TYPE_CHECKING:
    import torch


_SPREAD = 4096  # Values that `fingerprint` takes of a tensor.


def hash_files(paths: Iterable[Path], root: Path) -> str:
    """Hashes what a task reads from disk.

    A file counts with its name and contents. A folder counts with the names and sizes of all files below it, not with
    their contents: a million pictures cost a listing, but an edit that keeps a picture's size goes unseen. Names are
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

    if len(flat) <= _SPREAD:
        return flat
    return flat[torch.arange(_SPREAD, device=flat.device) * (len(flat) - 1) // (_SPREAD - 1)]


def _add(digest: hashlib._Hash, *parts: str) -> None:
    for part in parts:
        data = os.fsencode(part)
        # With its length before it, a part cannot run into the next.
        digest.update(len(data).to_bytes(8, "little") + data)


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from ((f"{entry.name}/{name}", size) for name, size in _sizes(folder / entry.name))
            else:
                yield entry.name, entry.stat().st_size
