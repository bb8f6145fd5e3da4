"""The video reader `decord`."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unirs.errors import PluginError
from unirs.tasks.image_source import InMemory, Source
from unirs.tasks.seeking import count_seekable_frames
from unirs.tasks.video_reader import RefusedVideoError

# Any frame that decord replaces by another one is more than this share of a video.
_NO_FAULTS = 1e-9


class DecordReader:
    """Decodes with decord, see `VideoReader`. It is exact for the videos that it does not refuse.

    Raises:
        PluginError: decord is not installed.
    """

    def __init__(self) -> None:
        try:
            self._decord: Any = importlib.import_module("decord")
        except (ImportError, OSError) as error:
            raise PluginError(
                f"The video reader 'decord' needs the package decord, which does not import ({error}). Install it (pip "
                "install decord; there are wheels for x86-64 on Linux and Windows), or set 'video_reader: pyav'."
            ) from error
        self._decord.logging.set_level(self._decord.logging.QUIET)
        self.version: str = self._decord.__version__

    def read(self, source: Source, select: Callable[[int], list[int]]) -> Sequence[np.ndarray]:
        """See `VideoReader.read`."""
        total = count_seekable_frames(source, open_gops=False)
        indices = select(total)
        # An absolute path is never a URL.
        file = io.BytesIO(source.data) if isinstance(source, InMemory) else os.path.abspath(source)  # noqa: PTH100
        try:
            # One thread, since loader workers decode several videos at once.
            video = self._decord.VideoReader(file, num_threads=1, fault_tol=_NO_FAULTS)
            if len(video) != total:
                raise RefusedVideoError(f"it has {total} frames, decord counts {len(video)}")
            return list(video.get_batch(indices).asnumpy())
        except (self._decord.DECORDError, self._decord.DECORDLimitReachedError) as error:
            raise RefusedVideoError("decord fails to decode it") from error
