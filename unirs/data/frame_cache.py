"""Decoded frames, kept in memory for later epochs."""

from __future__ import annotations

import hashlib
import mmap
import os
import pickle
import struct
import sys
import weakref
from contextlib import contextmanager
from math import prod
from multiprocessing import reduction
from typing import TYPE_CHECKING, Any

import torch

from unirs.errors import DataError
from unirs.tasks.media import ResizeSpec
from unirs.tasks.perturbation import PerturbedMedia

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unirs.tasks.sample import Sample


if sys.platform == "linux":
    import fcntl

_END = struct.Struct("<Q")
"""Where the next entry begins; stands before all entries."""

_ENTRY = struct.Struct("<16s4I")
"""The key and the shape of an entry; stands before its frames."""


class FrameCache:
    """Decodes a sample's media, and keeps the resized frames in memory while there is room.

    On Linux, worker processes that are given the cache share its memory: what one of them has decoded, no other decodes
    again. Elsewhere each has memory of its own.

    Args:
        image_size: height and width in pixels of the frames.
        resize: how images of another shape are brought to that size.
        limit: bytes.

    Raises:
        DataError: the system does not give so much.
    """

    def __init__(self, image_size: tuple[int, int], resize: ResizeSpec, limit: int) -> None:
        self.image_size, self.resize = image_size, resize
        try:
            self._kept = _Log(_END.size + limit)
        except (OSError, OverflowError) as error:
            raise DataError(
                f"There is no room for {limit / 1e9:g} GB of frames ({error}). Lower data.cache_gb."
            ) from error

    def __call__(self, sample: Sample) -> torch.Tensor:
        """The frames of a sample, uint8 `[k, 3, H, W]`; not to be written to."""
        if isinstance(sample.media, PerturbedMedia):
            # It costs more to keep than to make, or is shown once.
            return sample.media.load_frames(self.image_size, self.resize)
        key = hashlib.blake2b(pickle.dumps(sample.media), digest_size=16).digest()
        frames = self._kept.get(key)
        if frames is None:
            frames = sample.media.load_frames(self.image_size, self.resize)
            self._kept.put(key, frames)
        return frames


class _Log:
    """Frames by key in memory that processes share. Entries stand behind each other, and none ever changes.

    Args:
        length: bytes; they are taken from the system as they fill up.
        file: descriptor of another process's log, which belongs to this one from now on; None begins one.
    """

    def __init__(self, length: int, file: int | None = None) -> None:
        if sys.platform == "linux":
            # Not in the system's shared memory, which containers keep small.
            self._file = os.memfd_create("frames") if file is None else file
            weakref.finalize(self, os.close, self._file)
            os.truncate(self._file, length)
            self._bytes = mmap.mmap(self._file, length)
        else:
            self._bytes = mmap.mmap(-1, length, access=mmap.ACCESS_COPY)
        # What this process has seen of it.
        self._found: dict[bytes, tuple[int, tuple[int, ...]]] = {}
        self._read = _END.size

    def __reduce__(self) -> tuple[Any, ...]:
        # To a process that is not a fork of this one.
        if sys.platform == "linux":
            return _attached, (len(self._bytes), reduction.DupFd(self._file))
        return _Log, (len(self._bytes),)

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
        if sys.platform == "linux":
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)
        else:
            yield


def _attached(length: int, handle: Any) -> _Log:  # noqa: ANN401 - `reduction.DupFd`, which the types leave out
    return _Log(length, handle.detach())
