"""The video reader `pyav`: exact for all files, and reads no more of a file than the selected frames need.

A coded frame refers to frames before it in the file, back to a key frame. Packets between the last selected frame and
the next key frame are skipped, and so are H.264 frames that no other frame refers to.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import av
import numpy as np
from av.packet import Packet as CodedPacket
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from unirs.tasks.image_source import Source
from unirs.tasks.video_index import DamageError, VideoIndex, first_stream, open_video, read_index

_SKIP, _IF_REFERENCE, _DECODE = range(3)
"""How a packet is handled: skipped; decoded if other frames may refer to it; decoded."""


class PyAVReader:
    """Decodes with the FFmpeg that PyAV contains, see `VideoReader`."""

    version = av.__version__

    def read(self, source: Source, select: Callable[[int], list[int]]) -> Sequence[np.ndarray]:
        """See `VideoReader.read`."""
        with open_video(source) as file:
            index = read_index(source, file)
            keys = index.keys
            keys = [keys[position] for position in select(len(keys))]
            plan = _plan(index, keys)
            # Opening the file again would take as long as a key frame, which FFmpeg decodes to find the format.
            frames = _decode(first_stream(file), index.coded, index, keys, plan) if index.coded else {}
        if not index.coded:
            frames = _decode_file(source, index, keys, plan)
        if len(frames) < len(keys):
            # Videos with gradual intra refresh need more packets after a key frame than the file's flags suggest.
            frames = _decode_file(source, index, keys, bytes([_DECODE]) * len(plan))
        if len(frames) < len(keys):
            raise DamageError(f"{len(keys) - len(frames)} of {len(keys)} frames are missing")
        return [frames[key] for key in keys]


def _plan(index: VideoIndex, keys: Collection[int]) -> bytes:
    """The cheapest handling of each packet with which the frames of `keys` decode."""
    packets = index.packets
    plan = bytearray(len(packets))
    start = 0
    for position, packet in enumerate(packets):
        if packet.is_keyframe:
            start = position
        if not index.timed or packet.key < packets[start].key:
            # Without timestamps, frames are identified by counting. A frame that precedes its key frame in time refers
            # to frames before both.
            return bytes([_DECODE]) * len(packets)
        if packet.key in keys:
            plan[start:position] = plan[start:position].replace(
                b"\0", bytes([_IF_REFERENCE if index.codec == "h264" else _DECODE])
            )
            plan[position] = _DECODE
    return bytes(plan)


def _decode_file(source: Source, index: VideoIndex, keys: Collection[int], plan: bytes) -> dict[int, np.ndarray]:
    with open_video(source) as file:
        stream = first_stream(file)
        return _decode(stream, (packet for packet in file.demux(stream) if packet.size), index, keys, plan)


def _decode(
    stream: VideoStream,
    coded: Iterable[CodedPacket[VideoStream]],
    index: VideoIndex,
    keys: Collection[int],
    plan: bytes,
) -> dict[int, np.ndarray]:
    frames: dict[int, np.ndarray] = {}
    numbers = itertools.count()
    context = stream.codec_context
    width, height = context.width, context.height
    # Loader workers decode several videos at once.
    context.thread_count = 1
    context.options = {"err_detect": "explode"}
    for packet, handling, following in zip(coded, plan, plan[1:] + b"\0", strict=True):
        if handling == _SKIP:
            continue
        if packet.is_corrupt:
            raise DamageError("it is cut short")
        context.skip_frame = "NONREF" if handling == _IF_REFERENCE else "DEFAULT"
        decoded = context.decode(packet)
        if following == _SKIP:
            # Decoding continues at another key frame.
            decoded += context.decode(None)
            context.flush_buffers()
        for frame in decoded:
            if frame.is_corrupt:
                raise DamageError("a frame is damaged")
            key = frame.pts if index.timed else next(numbers)
            if key is not None and key in keys:
                pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
                frames[key] = upright(frame, pixels)
    return frames


def upright(frame: VideoFrame, pixels: np.ndarray) -> np.ndarray:
    """Turns and mirrors pixels `[H, W, 3]` as the frame's display matrix has it, in steps of 90 degrees."""
    # PyAV's types do not include its keys and values.
    side_data: Any = frame.side_data
    matrix = side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return pixels
    # Column x and row y are displayed at column `a * x + c * y` and row `b * x + d * y`.
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
