"""The video reader `torchcodec`, PyTorch's decoder, with the FFmpeg of the system."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unirs.errors import PluginError
from unirs.tasks.image_source import InMemory, Source
from unirs.tasks.seeking import count_seekable_frames
from unirs.tasks.video_reader import RefusedVideoError


class TorchCodecReader:
    """Decodes with torchcodec, see `VideoReader`. It is exact for the videos that it does not refuse.

    Raises:
        PluginError: torchcodec or the libraries of FFmpeg are not installed.
    """

    def __init__(self) -> None:
        try:
            # Imported by name: its public names are not exported to type checkers.
            self._torchcodec: Any = importlib.import_module("torchcodec")
            ffmpeg = self._torchcodec.ffmpeg_major_version
        except (ImportError, OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise PluginError(
                f"The video reader 'torchcodec' needs the package torchcodec, which does not import ({reason}). "
                "Install it (pip install 'unirs[torchcodec]'), or set 'video_reader: pyav'."
            ) from error
        if ffmpeg is None:
            raise PluginError(
                "The video reader 'torchcodec' finds no libraries of FFmpeg that it can load. Install FFmpeg 4 or "
                "later with the package manager of the system, or set 'video_reader: pyav'."
            )
        self.version = f"{self._torchcodec.__version__} (FFmpeg {ffmpeg})"

    def read(self, source: Source, select: Callable[[int], list[int]]) -> Sequence[np.ndarray]:
        """See `VideoReader.read`."""
        total = count_seekable_frames(source, open_gops=True)
        indices = select(total)
        file = source.data if isinstance(source, InMemory) else os.path.abspath(source)  # noqa: PTH100 - never a URL
        try:
            # One thread, since loader workers decode several videos at once.
            video = self._torchcodec.decoders.VideoDecoder(
                file, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
            )
            if len(video) != total:
                raise RefusedVideoError(f"it has {total} frames, torchcodec counts {len(video)}")
            return list(video.get_frames_at(indices).data.numpy())
        except RuntimeError as error:
            raise RefusedVideoError("torchcodec fails to decode it") from error
