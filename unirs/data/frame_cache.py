"""Decoded frames, cached in memory for later epochs."""

from __future__ import annotations

import hashlib
import mmap
import os
import pickle
import struct
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from multiprocessing import reduction
from typing import Any

import torch

from unirs.errors import DataError
from unirs.tasks.media import ResizeSpec
from unirs.tasks.perturbation import PerturbedMedia
from unirs.tasks.sample import Sample

if sys.platform == "linux":
    import fcntl

# Offset of the next entry; stored before all entries.
_END = struct.Struct("<Q")
# Key and shape of an entry; stored before its frames.
_ENTRY = struct.Struct("<16s4I")


class FrameCache:
    """Decodes the media of samples, and caches the resized frames in memory within a budget.

    On Linux, worker processes share this memory; on other systems each process has its own. Frames are read without a
    copy; LMDB would copy them, since its buffers are valid within a transaction only.

    Args:
        image_size: height and width in pixels of the frames; None for their own size.
        resize: how images of another shape are resized.
        limit: budget in bytes.
    """

    def __init__(self, image_size: tuple[int, int] | None, resize: ResizeSpec, limit: int) -> None:
        self.image_size, self.resize = image_size, resize
        try:
            self._log = _Log(_END.size + limit)
        except (OSError, OverflowError) as error:
            raise DataError(f"No memory for {limit / 1e9:g} GB of frames ({error}). Lower data.cache_gb.") from error

    def __call__(self, sample: Sample) -> torch.Tensor:
        """The frames of a sample, uint8 `[k, 3, H, W]`; read-only by convention."""
        if isinstance(sample.media, PerturbedMedia):
            # Cheap to compute, or used once.
            return self.load(sample)
        key = hashlib.blake2b(pickle.dumps(sample.media), digest_size=16).digest()
        frames = self._log.get(key)
        if frames is None:
            frames = self.load(sample)
            self._log.put(key, frames)
        return frames

    def load(self, sample: Sample) -> torch.Tensor:
        """The frames of a sample as its files are now, past the cache."""
        return sample.media.load_frames(self.image_size, self.resize)


class _Log:
    """Append-only log of frames by key in shared memory.

    Args:
        length: in bytes; the system allocates them when they are first written.
        file: descriptor of another process's log, which this object closes; None creates a log.
    """

    def __init__(self, length: int, file: int | None = None) -> None:
        if sys.platform == "linux":
            # Not in /dev/shm, which is small in containers.
            self._file = os.memfd_create("frames") if file is None else file
            weakref.finalize(self, os.close, self._file)
            os.truncate(self._file, length)
            self._bytes = mmap.mmap(self._file, length)
        else:
            self._bytes = mmap.mmap(-1, length, access=mmap.ACCESS_COPY)
        # Index of the entries that this process has read.
        self._entries: dict[bytes, tuple[int, tuple[int, ...]]] = {}
        self._scanned = _END.size

    def __reduce__(self) -> tuple[Any, ...]:
        # For processes that are not forks of this one.
        if sys.platform == "linux":
            return _attached, (len(self._bytes), reduction.DupFd(self._file))
        return _Log, (len(self._bytes),)

    def get(self, key: bytes) -> torch.Tensor | None:
        """The frames that any process has stored, without a copy."""
        if key not in self._entries:
            with self._locked():
                self._scan()
            if key not in self._entries:
                return None
        start, shape = self._entries[key]
        return torch.frombuffer(self._bytes, dtype=torch.uint8, count=prod(shape), offset=start).view(shape)

    def put(self, key: bytes, frames: torch.Tensor) -> None:
        """Adds frames, uint8 `[k, 3, H, W]`, within the budget."""
        with self._locked():
            self._scan()
            start = self._scanned + _ENTRY.size
            if key in self._entries or start + frames.nbytes > len(self._bytes):
                return
            self._bytes[start : start + frames.nbytes] = frames.numpy().tobytes()
            _ENTRY.pack_into(self._bytes, self._scanned, key, *frames.shape)
            # Written last, so that an interrupted write leaves no partial entry.
            _END.pack_into(self._bytes, 0, start + frames.nbytes)

    def _scan(self) -> None:
        (end,) = _END.unpack_from(self._bytes)
        while self._scanned < end:
            key, *shape = _ENTRY.unpack_from(self._bytes, self._scanned)
            start = self._scanned + _ENTRY.size
            self._entries[key] = start, tuple(shape)
            self._scanned = start + prod(shape)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Locks the log against other processes; the system releases the locks of a process that ends."""
        if sys.platform == "linux":
            fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if sys.platform == "linux":
                fcntl.lockf(self._file, fcntl.LOCK_UN)


def _attached(length: int, handle: Any) -> _Log:  # noqa: ANN401 - `reduction.DupFd`, missing in the type stubs
    return _Log(length, handle.detach())
