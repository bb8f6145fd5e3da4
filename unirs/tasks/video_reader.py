"""Decodes selected frames of a video, and no more of the file than they need.

A coded frame refers to frames before it in the file, back to a key frame. Packets between the last selected frame and
the next key frame are skipped, and so are H.264 frames that no other frame refers to.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from unirs.errors import MediaError
from unirs.tasks.image_source import InMemory, Source, check_pixels, frame_indices

_FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf"
"""FFmpeg's names of the container formats that are read."""

_SKIP, _IF_REFERENCE, _DECODE = range(3)
"""How a packet is handled: skipped; decoded if other frames may refer to it; decoded."""


def read_frames(source: Source, num_frames: int) -> list[np.ndarray]:
    """Decodes frames that are spread evenly from the first to the last.

    Returns:
        `num_frames` frames in time order, upright, uint8 `[H, W, 3]` each.

    Raises:
        MediaError: the file is missing, does not decode, or has fewer than `num_frames` frames.
    """
    if isinstance(source, Path) and not source.is_file():
        state = "is not a file" if source.exists() else "does not exist"
        raise MediaError(f"Video {source} {state}. Add the file, or correct its folder.")
    try:
        index = _read_index(source)
    except (av.error.FFmpegError, _DamageError) as error:
        raise MediaError(f"Video {source} does not open ({_reason(error)}). Replace the file.") from error
    keys = sorted(packet.key for packet in index.packets if not packet.hidden)
    if len(keys) < num_frames:
        raise MediaError(
            f"Video {source} has {len(keys)} frames, {num_frames} are needed. Set num_frames to at most {len(keys)}, "
            "or remove the video."
        )
    try:
        return _decode_keys(source, index, [keys[position] for position in frame_indices(len(keys), num_frames)])
    except (av.error.FFmpegError, _DamageError) as error:
        raise MediaError(f"Video {source} does not decode ({_reason(error)}). Replace the file.") from error


class _DamageError(Exception):
    """Damage that FFmpeg skips or conceals without an error."""


@dataclass(frozen=True, slots=True)
class _Packet:
    """A coded frame. Its key sorts by time: the timestamp, or the index if `_Index.timed` is False."""

    key: int
    is_keyframe: bool
    hidden: bool


@dataclass(frozen=True, slots=True)
class _Index:
    """The packets of a video in decoding order, which differs from time order."""

    packets: Sequence[_Packet]
    timed: bool
    h264: bool


def _open(source: Source) -> InputContainer:
    # A path could be read as a URL, and other formats are scripts that name further files and URLs.
    file = io.BytesIO(source.data) if isinstance(source, InMemory) else f"file:{source}"
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
    try:
        return av.open(file, "r", options=options, metadata_errors="replace")
    except av.error.ArgumentError as error:
        raise _DamageError(f"it has none of the formats {_FORMATS}") from error


def _read_index(source: Source) -> _Index:
    with _open(source) as file:
        stream = _stream(file)
        context = stream.codec_context
        check_pixels(f"Video {source}", context.width, context.height)
        is_hidden = _is_hidden_vp8 if context.name in ("vp8", "libvpx") else lambda packet: packet.is_discard
        found = [(packet.pts, packet.is_keyframe, is_hidden(packet), packet.size) for packet in file.demux(stream)]
        # FFmpeg adds an empty packet at the end.
        if len(found) - 1 < stream.frames:
            raise _DamageError(f"it holds {len(found) - 1} of {stream.frames} frames")
        coded = [(time, is_keyframe, hidden) for time, is_keyframe, hidden, size in found if size]
        times = [time for time, _, hidden in coded if not hidden and time is not None]
        # AVI has no timestamps. FFmpeg invents some in file order, which is wrong if frames refer to later ones.
        invented = times == sorted(times) and context.has_b_frames
        timed = len(set(times)) == sum(not hidden for _, _, hidden in coded) and not invented
        numbers = itertools.count()
        packets = [
            _Packet(time if timed and time is not None else -1 if hidden else next(numbers), is_keyframe, hidden)
            for time, is_keyframe, hidden in coded
        ]
        return _Index(packets, timed, context.name == "h264")


def _is_hidden_vp8(packet: Packet[VideoStream]) -> bool:
    """Whether a VP8 packet holds a frame that is only a reference of others (RFC 6386, section 9.1: `show_frame`)."""
    return packet.is_discard or (packet.size > 0 and not bytes(packet)[0] & 0x10)


def _stream(file: InputContainer) -> VideoStream:
    if not file.streams.video:
        raise _DamageError("it holds no video")
    stream = file.streams.video[0]
    # PyAV's types do not include None.
    context: VideoCodecContext | None = stream.codec_context
    if context is None:
        raise _DamageError("its codec is unknown")
    return stream


def _decode_keys(source: Source, index: _Index, keys: Sequence[int]) -> list[np.ndarray]:
    frames = _decode(source, index, keys, _plan(index, keys))
    if len(frames) < len(keys):
        # Videos with gradual intra refresh need more packets after a key frame than the file's flags suggest.
        frames = _decode(source, index, keys, bytes([_DECODE]) * len(index.packets))
    if len(frames) < len(keys):
        raise _DamageError(f"{len(keys) - len(frames)} of {len(keys)} frames are missing")
    return [frames[key] for key in keys]


def _plan(index: _Index, keys: Collection[int]) -> bytes:
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
                b"\0", bytes([_IF_REFERENCE if index.h264 else _DECODE])
            )
            plan[position] = _DECODE
    return bytes(plan)


def _decode(source: Source, index: _Index, keys: Collection[int], plan: bytes) -> dict[int, np.ndarray]:
    frames: dict[int, np.ndarray] = {}
    numbers = itertools.count()
    with _open(source) as file:
        stream = _stream(file)
        context = stream.codec_context
        width, height = context.width, context.height
        # Loader workers decode several videos at once.
        context.thread_count = 1
        context.options = {"err_detect": "explode"}
        coded = (packet for packet in file.demux(stream) if packet.size)
        for packet, handling, following in zip(coded, plan, plan[1:] + b"\0", strict=True):
            if handling == _SKIP:
                continue
            if packet.is_corrupt:
                raise _DamageError("it is cut short")
            context.skip_frame = "NONREF" if handling == _IF_REFERENCE else "DEFAULT"
            decoded = context.decode(packet)
            if following == _SKIP:
                # Decoding continues at another key frame.
                decoded += context.decode(None)
                context.flush_buffers()
            for frame in decoded:
                if frame.is_corrupt:
                    raise _DamageError("a frame is damaged")
                key = frame.pts if index.timed else next(numbers)
                if key is not None and key in keys:
                    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
                    frames[key] = _upright(frame, pixels)
    return frames


def _upright(frame: VideoFrame, pixels: np.ndarray) -> np.ndarray:
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


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
