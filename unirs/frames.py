"""Decoded frames, kept in memory for later epochs."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import tempfile
import weakref
from contextlib import contextmanager
from math import prod
from multiprocessing import reduction
from typing import TYPE_CHECKING, Any

import torch

from unirs.media import Altered

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unirs.interfaces import Encoder
    from unirs.sample import Sample

_END = struct.Struct("<Q")
"""Where the next entry begins; stands before all entries."""
_ENTRY = struct.Struct("<16s4I")
"""The key and the shape of an entry; stands before its frames."""


class FrameCache:
    """Decodes a sample's media, and keeps the resized frames in memory while there is room.

    Worker processes that are given the cache share its memory: what one of them has decoded, no other decodes again.
    On Windows each has memory of its own.

    Args:
        encoder: what the frames are for.
        limit: bytes, in all processes together.
    """

    def __init__(self, encoder: Encoder, limit: int) -> None:
        # Not the encoder itself: workers would be sent its weights.
        self.size, self.fit = encoder.size, encoder.fit
        self._kept = _empty(_END.size + limit)

    def __call__(self, sample: Sample) -> torch.Tensor:
        """The frames of a sample, uint8 `[k, 3, H, W]`; not to be written to."""
        key = hashlib.blake2b(repr(sample.media).encode(), digest_size=16).digest()
        frames = self._kept.get(key)
        if frames is None:
            frames = sample.media.frames(self.size, self.fit)
            # What is altered costs more to keep than to make, or is shown once.
            if not isinstance(sample.media, Altered):
                self._kept.put(key, frames)
        return frames


class _Log:
    """Frames by key in memory that processes share. Entries stand behind each other, and none ever changes.

    Args:
        file: descriptor of a file as long as the log may become, of zeros at first; belongs to the log from now on.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        weakref.finalize(self, os.close, file)
        self._bytes = mmap.mmap(file, 0)
        # What this process has seen of it.
        self._found: dict[bytes, tuple[int, tuple[int, ...]]] = {}
        self._read = _END.size

    def __reduce__(self) -> tuple[Any, ...]:
        # To a process that is not a fork of this one.
        if fcntl is None:
            return _empty, (len(self._bytes),)
        return _attached, (reduction.DupFd(self._file),)

    def get(self, key: bytes) -> torch.Tensor | None:
        """Frames that any process has put there, without a copy."""
        if key not in self._found:
            with self._locked():
                self._catch_up()
        if key not in self._found:
            return None
        start, shape = self._found[key]
        return torch.frombuffer(self._bytes, dtype=torch.uint8, count=prod(shape), offset=start).view(shape)

    def put(self, key: bytes, frames: torch.Tensor) -> None:
        """Adds frames, uint8 `[k, 3, H, W]`, while there is room."""
        with self._locked():
            self._catch_up()
            start = self._read + _ENTRY.size
            if key in self._found or start + frames.nbytes > len(self._bytes):
                return
            self._bytes[start : start + frames.nbytes] = frames.numpy().tobytes()
            _ENTRY.pack_into(self._bytes, self._read, key, *frames.shape)
            # Last, so that a process that ends here leaves no half entry.
            _END.pack_into(self._bytes, 0, start + frames.nbytes)

    def _catch_up(self) -> None:
        (end,) = _END.unpack_from(self._bytes)
        while self._read < end:
            key, *shape = _ENTRY.unpack_from(self._bytes, self._read)
            start = self._read + _ENTRY.size
            self._found[key] = start, tuple(shape)
            self._read = start + prod(shape)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keeps other processes out. The system opens the lock when a process ends."""
        if fcntl is None:
            yield
            return
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)


def _attached(handle: Any) -> _Log:  # noqa: ANN401 - `reduction.DupFd`, which the types leave out
    return _Log(handle.detach())


def _empty(length: int) -> _Log:
    """A log in memory where the system can, and in a file without a name elsewhere.

    Not in the system's shared memory, which containers keep small.
    """
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("frames")
    else:
        with tempfile.TemporaryFile() as unnamed:
            file = os.dup(unnamed.fileno())
    os.truncate(file, length)
    return _Log(file)
