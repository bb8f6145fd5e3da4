"""Decodes the shown frames of a video, and no more of the file than they need.

A frame is built from frames that stand before it in the file, back to a key frame. So what stands between the last
shown frame and the next key frame is passed over, and so are frames of H.264 that no other is built from.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from unirs.errors import MediaError

_PASSED, _REFERENCE, _WHOLE = range(3)
"""What becomes of a packet: nothing; decoded where a frame may be built from it; decoded."""


def read_frames(path: Path, num_frames: int) -> list[np.ndarray]:
    """Decodes frames that are spread evenly from the first to the last.

    Args:
        path: the video.
        num_frames: how many.

    Returns:
        The frames in time order, upright, uint8 `[H, W, 3]` each.

    Raises:
        MediaError: the file is missing, does not decode, or has fewer than `num_frames` frames.
    """
    if not path.is_file():
        state = "is not a file" if path.exists() else "does not exist"
        raise MediaError(f"Video {path} {state}. Add the file, or correct the folder it is in.")
    try:
        index = _index(path)
    except (av.error.FFmpegError, _DamageError) as error:
        raise MediaError(f"Video {path} does not open ({_reason(error)}). Replace the file.") from error
    names = sorted(packet.name for packet in index.packets if not packet.hidden)
    if len(names) < num_frames:
        raise MediaError(
            f"Video {path} has {len(names)} frames, {num_frames} were asked for. "
            f"Ask for at most {len(names)} frames, or drop the video."
        )
    wanted = [names[place] for place in np.linspace(0, len(names) - 1, num_frames).round().astype(int)]
    try:
        frames = _frames(path, index, wanted)
    except (av.error.FFmpegError, _DamageError) as error:
        raise MediaError(f"Video {path} does not decode ({_reason(error)}). Replace the file.") from error
    return frames


class _DamageError(Exception):
    """What FFmpeg passes over or patches."""


@dataclass(frozen=True, slots=True)
class _Packet:
    """A coded frame.

    Attributes:
        name: tells the frame apart and gives its place: its time, or its number.
        key: whether the decoder can begin here.
        hidden: whether the file says not to show it.
    """

    name: int
    key: bool
    hidden: bool


@dataclass(frozen=True, slots=True)
class _Index:
    """The packets of a video in the order of the file, which is not that of time.

    Attributes:
        packets: all of them.
        timed: whether frames are named by their times.
        h264: whether the decoder can tell which frames others are built from.
    """

    packets: Sequence[_Packet]
    timed: bool
    h264: bool


def _index(path: Path) -> _Index:
    with av.open(str(path)) as file:
        stream = _stream(file)
        found = [(packet.pts, packet.is_keyframe, packet.is_discard, packet.size) for packet in file.demux(stream)]
        # The last one is FFmpeg's own.
        if len(found) - 1 < stream.frames:
            raise _DamageError(f"it holds {len(found) - 1} of {stream.frames} frames")
        coded = [(time, key, hidden) for time, key, hidden, size in found if size]
        times = [time for time, _, _ in coded if time is not None]
        # AVI holds no times. Those made up for it follow the order of the file, as if no frame were built from a later.
        made_up = times == sorted(times) and stream.codec_context.has_b_frames
        timed = len(set(times)) == len(coded) and not made_up
        numbers = itertools.count()
        packets = [
            _Packet(time if timed and time is not None else -1 if hidden else next(numbers), key, hidden)
            for time, key, hidden in coded
        ]
        return _Index(packets, timed, stream.codec_context.name == "h264")


def _stream(file: InputContainer) -> VideoStream:
    """The video in a file.

    Raises:
        _DamageError: there is none, or FFmpeg does not know how it is coded.
    """
    if not file.streams.video:
        raise _DamageError("it holds no video")
    stream = file.streams.video[0]
    # What the types leave out.
    context: VideoCodecContext | None = stream.codec_context
    if context is None:
        raise _DamageError("its codec is unknown")
    return stream


def _frames(path: Path, index: _Index, wanted: Sequence[int]) -> list[np.ndarray]:
    frames = _decode(path, index, wanted, _least(index, wanted))
    if len(frames) < len(wanted):
        # From a key frame on the decoder takes longer than the file says: where pictures refresh in steps.
        frames = _decode(path, index, wanted, bytes([_WHOLE]) * len(index.packets))
    if len(frames) < len(wanted):
        raise _DamageError(f"{len(wanted) - len(frames)} of {len(wanted)} frames are missing")
    return [frames[name] for name in wanted]


def _least(index: _Index, wanted: Collection[int]) -> bytes:
    """For each packet, the least to be done with it that decodes the wanted frames."""
    packets = index.packets
    use = bytearray(len(packets))
    begin = 0
    for place, packet in enumerate(packets):
        if packet.key:
            begin = place
        if not index.timed or packet.name < packets[begin].name:
            # Without times, frames are told apart by counting; one before its key frame needs what precedes both.
            return bytes([_WHOLE]) * len(packets)
        if packet.name in wanted:
            use[begin:place] = use[begin:place].replace(b"\0", bytes([_REFERENCE if index.h264 else _WHOLE]))
            use[place] = _WHOLE
    return bytes(use)


def _decode(path: Path, index: _Index, wanted: Collection[int], use: bytes) -> dict[int, np.ndarray]:
    frames: dict[int, np.ndarray] = {}
    numbers = itertools.count()
    with av.open(str(path)) as file:
        stream = _stream(file)
        context = stream.codec_context
        width, height = context.width, context.height
        # Several are decoded at a time by the workers of a loader.
        context.thread_count = 1
        context.options = {"err_detect": "explode"}
        coded = (packet for packet in file.demux(stream) if packet.size)
        for packet, what, following in zip(coded, use, use[1:] + b"\0", strict=True):
            if what == _PASSED:
                continue
            if packet.is_corrupt:
                raise _DamageError("it is cut short")
            context.skip_frame = "NONREF" if what == _REFERENCE else "DEFAULT"
            decoded = context.decode(packet)
            if following == _PASSED:
                # The decoder goes on from another key frame.
                decoded += context.decode(None)
                context.flush_buffers()
            for frame in decoded:
                if frame.is_corrupt:
                    raise _DamageError("a frame is damaged")
                name = frame.pts if index.timed else next(numbers)
                if name is not None and name in wanted:
                    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
                    frames[name] = np.rot90(pixels, round(frame.rotation / 90))
    return frames


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
