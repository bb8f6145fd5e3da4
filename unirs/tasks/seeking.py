"""Which videos can be read exactly by seeking to a key frame and counting from there, as decord and torchcodec do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from av.container import InputContainer

from unirs.tasks.image_source import Source
from unirs.tasks.pyav_reader import upright
from unirs.tasks.video_index import DamageError, VideoIndex, first_stream, open_video, read_index
from unirs.tasks.video_reader import RefusedVideoError

_CONTAINERS = ("mov", "matroska")
"""FFmpeg's names of the formats with timestamps in which it seeks to key frames exactly."""


def count_seekable_frames(source: Source, *, open_gops: bool) -> int:
    """Number of frames of a video in which seeking finds the right ones, upright and in the colours of PyAV.

    Args:
        source: The video.
        open_gops: Whether the decoder handles frames that precede their key frame.

    Raises:
        RefusedVideoError: Seeking may find other frames.
        DamageError: The video is damaged.
    """
    with open_video(source) as file:
        index = read_index(source, file)
    with open_video(source) as file:
        for reason in (*_index_reasons(index, open_gops=open_gops), *_stream_reasons(file)):
            raise RefusedVideoError(reason)
    return len(index.keys)


def _index_reasons(index: VideoIndex, *, open_gops: bool) -> Iterator[str]:
    if not index.timed:
        yield "frames have no timestamps"
    if any(packet.hidden for packet in index.packets):
        yield "some frames are hidden"
    if not open_gops and index.is_open:
        yield "frames precede their key frame (open GOP)"
    if not index.idr:
        yield "key frames depend on earlier frames (intra refresh or open GOP)"


def _stream_reasons(file: InputContainer) -> Iterator[str]:
    stream = first_stream(file)
    context = stream.codec_context
    container = file.format.name.split(",")[0]
    if len(file.streams.video) > 1:
        yield "it has several video streams"
    if container not in _CONTAINERS:
        yield f"positions in the format {container} are not exact"
    if container == "mov" and not stream.frames:
        yield "the file is fragmented"
    if context.format is None or any(component.bits > 8 for component in context.format.components):
        yield "colours have more than 8 bits"
    context.thread_count = 1
    for frame in file.decode(stream):
        if frame.interlaced_frame:
            yield "frames are interlaced"
        if (frame.width, frame.height) != (context.width, context.height):
            yield "frames are cropped"
        probe = np.arange(4).reshape(2, 2)
        if (upright(frame, probe) != probe).any():
            yield "frames are turned or mirrored"
        return
    raise DamageError("it holds no frame")
