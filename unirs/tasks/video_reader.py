"""Video readers: plugins of the group `unirs.video_readers` that decode selected frames, and what all of them need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from unirs import plugins
from unirs.errors import MediaError, UniRSError
from unirs.tasks.image_source import Source

if TYPE_CHECKING:
    import numpy as np

FrameSampling = Literal["uniform", "vila"]
"""Which frames of a video are loaded, see `sample_frames`."""

DEFAULT_READER = "pyav"


class VideoReader(Protocol):
    """Decodes videos. A plugin of the group `unirs.video_readers` is a function or class that makes one.

    Attributes:
        version: Version of the decoder. Cached features and clues are not shared with other readers or versions.
    """

    @property
    def version(self) -> str: ...  # noqa: D102

    def read(self, source: Source, select: Callable[[int], list[int]]) -> Sequence[np.ndarray]:
        """Opens a video, decodes the frames that `select(total)` returns, and closes it.

        Args:
            source: An existing file, or content in memory, whose `data` are the bytes of a file.
            select: Takes the number of frames, and returns the indices to decode, ascending and without repetition.

        Returns:
            The frames of these indices, upright, RGB, uint8 `[H, W, 3]` each.

        Raises:
            RefusedVideoError: The reader would return wrong frames; its message is the reason.
            Exception: The video does not open or decode. `read_frames` raises a `MediaError` with the reason.
        """
        ...


class RefusedVideoError(MediaError):
    """A video that a reader cannot decode exactly, while the default reader may."""


@lru_cache
def create_reader(name: str) -> VideoReader:
    """Creates a reader by the name of its plugin, once per process.

    Raises:
        PluginError: The plugin is unknown, with the nearest match, or what it needs is not installed.
    """
    reader: VideoReader = plugins.create("unirs.video_readers", name)
    return reader


def describe_reader(name: str) -> str:
    """Name and version of a reader, for keys of caches and manifests; errors are those of `create_reader`."""
    return f"{name} {create_reader(name).version}"


def sample_frames(total: int, num_frames: int, sampling: FrameSampling) -> list[int]:
    """Indices of the frames to load, ascending.

    Args:
        total: Number of frames of the video, at least `num_frames`.
        num_frames: Number of indices.
        sampling: `uniform` spreads them evenly from the first frame to the last. `vila` is the rule of the public code
            of VILA and UniRS, which ends with the last but one frame: `linspace(0, total - 2, num_frames, dtype=int)`.
            It repeats the first frame of a video that has only `num_frames`.
    """
    if sampling == "vila":
        import numpy as np

        return list(map(int, np.linspace(0, total - 2, num_frames, dtype=int)))
    step = (total - 1) / max(num_frames - 1, 1)
    return [round(index * step) for index in range(num_frames)]


def read_frames(
    source: Source, num_frames: int, sampling: FrameSampling = "uniform", reader: str = DEFAULT_READER
) -> list[np.ndarray]:
    """Decodes frames of a video with a reader.

    Returns:
        `num_frames` frames in time order, upright, uint8 `[H, W, 3]` each.

    Raises:
        MediaError: the file is missing, does not decode, is refused by the reader, or has fewer than `num_frames`
            frames; or the reader returns something else.
        PluginError: see `create_reader`.
    """
    if isinstance(source, Path) and not source.is_file():
        state = "is not a file" if source.exists() else "does not exist"
        raise MediaError(f"Video {source} {state}. Add the file, or correct its folder.")
    decoder = create_reader(reader)
    chosen: list[int] = []

    def select(total: int) -> list[int]:
        if total < num_frames:
            raise MediaError(
                f"Video {source} has {total} frames, {num_frames} are needed. Set num_frames to at most {total}, "
                "or remove the video."
            )
        chosen[:] = sample_frames(total, num_frames, sampling)
        return sorted(set(chosen))

    try:
        frames = decoder.read(source, select)
    except RefusedVideoError as error:
        remedy = f"Set 'video_reader: {DEFAULT_READER}'."
        raise RefusedVideoError(f"Video {source} is refused by the video reader {reader}: {error}. {remedy}") from error
    except UniRSError:
        raise
    except Exception as error:  # decoders raise almost anything for damaged files
        state = "decode" if chosen else "open"
        raise MediaError(f"Video {source} does not {state} ({_reason(error)}). Replace the file.") from error
    needed = sorted(set(chosen))
    shapes = [(*frame.shape[2:], str(frame.dtype), frame.ndim) for frame in frames]
    if shapes != [(3, "uint8", 3)] * len(needed) or not needed:
        raise MediaError(
            f"The video reader {reader} returned {len(frames)} frames of {source}, {len(needed)} frames of uint8 "
            "[H, W, 3] are needed. Correct the reader."
        )
    by_index = dict(zip(needed, frames, strict=True))
    return [by_index[index] for index in chosen]


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
