"""The packets of a video file: which frames it has, and from where they can be decoded."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import av
import av.error
from av.container import InputContainer
from av.packet import Packet as CodedPacket
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from unirs.tasks.image_source import InMemory, Source, check_pixels

_FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf"
"""FFmpeg's names of the container formats that are read."""

_MAX_CODED = 1 << 26


class DamageError(Exception):
    """Damage that FFmpeg skips or conceals without an error."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A coded frame. Its key sorts by time: the timestamp, or the index if `VideoIndex.timed` is False."""

    key: int
    is_keyframe: bool
    hidden: bool


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """The packets of a video in decoding order, which differs from time order.

    Attributes:
        packets: The coded frames.
        timed: Whether all visible frames have timestamps.
        codec: FFmpeg's name of the codec.
        idr: Whether decoding can start at each key frame of H.264: those of open GOPs and of gradual intra refresh are
            not IDR frames. True for other codecs.
        coded: The packets with their content, in the same order; empty if the content has more than 64 MiB.
    """

    packets: Sequence[Packet]
    timed: bool
    codec: str
    idr: bool
    coded: Sequence[CodedPacket[VideoStream]]

    @property
    def keys(self) -> list[int]:
        """Keys of the visible frames in time order."""
        return sorted(packet.key for packet in self.packets if not packet.hidden)

    @property
    def is_open(self) -> bool:
        """Whether a frame precedes its key frame in time: it refers to frames before both."""
        start = 0
        for position, packet in enumerate(self.packets):
            start = packet.key if packet.is_keyframe or not position else start
            if packet.key < start:
                return True
        return False


def open_video(source: Source) -> InputContainer:
    """Opens a video with PyAV; raises a `DamageError` or `FFmpegError`."""
    # A path could be read as a URL, and other formats are scripts that name further files and URLs.
    file = io.BytesIO(source.data) if isinstance(source, InMemory) else f"file:{source}"
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
    try:
        return av.open(file, "r", options=options, metadata_errors="replace")
    except av.error.ArgumentError as error:
        raise DamageError(f"it has none of the formats {_FORMATS}") from error


def first_stream(file: InputContainer) -> VideoStream:
    """The video stream that is read."""
    if not file.streams.video:
        raise DamageError("it holds no video")
    stream = file.streams.video[0]
    # PyAV's types do not include None.
    context: VideoCodecContext | None = stream.codec_context
    if context is None:
        raise DamageError("its codec is unknown")
    return stream


def read_index(source: Source, file: InputContainer) -> VideoIndex:
    """Reads the packets of an open video to its end, without decoding them.

    Raises:
        MediaError: its frames are too large.
        DamageError: it is damaged, or no video.
    """
    stream = first_stream(file)
    context = stream.codec_context
    check_pixels(f"Video {source}", context.width, context.height)
    is_hidden = _is_hidden_vp8 if context.name in ("vp8", "libvpx") else lambda packet: packet.is_discard
    found: list[tuple[int | None, bool, bool]] = []
    contents: list[CodedPacket[VideoStream]] = []
    idr, count, num_bytes = True, 0, 0
    for count, packet in enumerate(file.demux(stream)):  # noqa: B007 - FFmpeg adds an empty packet at the end
        if packet.is_keyframe and context.name == "h264":
            idr = idr and _is_idr(bytes(packet), context.extradata or b"")
        if packet.size:
            found.append((packet.pts, packet.is_keyframe, is_hidden(packet)))
            num_bytes += packet.size
            contents.append(packet)
            if num_bytes > _MAX_CODED:
                contents.clear()
    if count < stream.frames:
        raise DamageError(f"it holds {count} of {stream.frames} frames")
    times = [time for time, _, hidden in found if not hidden and time is not None]
    # AVI has no timestamps. FFmpeg invents some in file order, which is wrong if frames refer to later ones.
    invented = times == sorted(times) and context.has_b_frames
    timed = len(set(times)) == sum(not hidden for _, _, hidden in found) and not invented
    numbers = itertools.count()
    packets = [
        Packet(time if timed and time is not None else -1 if hidden else next(numbers), is_keyframe, hidden)
        for time, is_keyframe, hidden in found
    ]
    return VideoIndex(packets, timed, context.name, idr, contents)


def _is_hidden_vp8(packet: CodedPacket[VideoStream]) -> bool:
    """Whether a VP8 packet holds a frame that is only a reference of others (RFC 6386, section 9.1: `show_frame`)."""
    return packet.is_discard or (packet.size > 0 and not bytes(packet)[0] & 0x10)


def _is_idr(content: bytes, header: bytes) -> bool:
    """Whether an H.264 packet holds an IDR slice: a NAL unit of type 5 (ITU-T H.264, 7.4.1)."""
    if header[:1] != b"\1":
        return re.search(b"\x00\x00\x01[\x05\x25\x45\x65]", content) is not None
    # Lengths precede NAL units in MP4 and Matroska (ISO/IEC 14496-15, 5.3.3).
    size, start = (header[4] & 3) + 1, 0
    while start + size < len(content):
        if content[start + size] & 31 == 5:
            return True
        start += size + int.from_bytes(content[start : start + size], "big")
    return False
