"""Conversion of what users pass to media."""

from __future__ import annotations

import os
from pathlib import Path

from unirs.errors import MediaError
from unirs.tasks.image_source import as_array, is_pil_image
from unirs.tasks.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Image, Media, Pair, SourceMedia, Video
from unirs.tasks.raster import Raster
from unirs.tasks.series import Series
from unirs.tasks.video_reader import FrameSampling


def as_media(
    value: object, num_frames: int | None = None, reader: str | None = None, frame_sampling: FrameSampling = "uniform"
) -> Media:
    """Converts a value to media.

    Args:
        value: Media; a path with the suffix of an image or a video; a PIL image, or an array or tensor of an image; a
            tuple of two images, before and after, which is a pair; or a tuple of more images, which is a series.
        num_frames: Number of frames of a video.
        reader: Its reader, and `frame_sampling` which frames: see `Video`.
        frame_sampling: See `reader`.

    Raises:
        MediaError: it is unclear what the value is.
    """
    if isinstance(value, Media):
        return value
    if isinstance(value, str | os.PathLike):
        path = Path(value)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return Image(path)
        if path.suffix.lower() in VIDEO_SUFFIXES:
            return Video(path, num_frames, reader=reader, frame_sampling=frame_sampling)
        known = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
        raise MediaError(f"{path} has no suffix of an image or a video ({known}). Pass Image(path) or Video(path).")
    array = as_array(value)
    if is_pil_image(value) or (array is not None and array.ndim < 4):
        return Image(value)  # type: ignore[arg-type]
    if isinstance(value, tuple) and len(value) > 1:
        return Pair(*value) if len(value) == 2 else Series(value)
    raise MediaError(
        f"A value of type {type(value).__name__} is not clearly media. Pass Image(...), Pair(before, after), "
        "Video(...) or Series([...]), and several inputs as a list."
    )


def with_raster(media: Media, raster: Raster) -> Media:
    """Sets the options of media whose frames are GeoTIFF files, unless they have some.

    Raises:
        MediaError: These media are a plugin's.
    """
    if not isinstance(media, SourceMedia):
        raise MediaError(f"Options of a raster do not apply to {type(media).__name__} media. Omit them.")
    return media.with_raster(raster)
