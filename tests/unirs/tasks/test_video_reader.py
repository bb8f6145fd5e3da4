import struct
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from unirs.errors import MediaError
from unirs.tasks.video_reader import read_frames

FRAMES = 60
# Name, codec, its options, container options: they differ in timestamps and in the positions of key frames.
FILES: list[tuple[str, str, dict[str, str], dict[str, str]]] = [
    ("plain.mp4", "libx264", {}, {}),
    ("keys.mp4", "libx264", {"g": "12"}, {}),
    ("open.mp4", "libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3"}, {}),
    ("refreshed.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=12"}, {}),
    ("fragments.mp4", "libx264", {}, {"movflags": "frag_keyframe+empty_moov"}),
    ("untimed.avi", "libx264", {"g": "12"}, {}),
    ("old.avi", "mpeg4", {"bf": "2"}, {}),
    ("pictures.avi", "mjpeg", {}, {}),
    ("a.mkv", "libx264", {"g": "12"}, {}),
    ("a.webm", "libvpx-vp9", {"g": "12"}, {}),
    ("a.mov", "mpeg4", {"g": "12", "bf": "2"}, {}),
]


def write(path: Path, codec: str = "libx264", options: dict[str, str] | None = None, **container: str) -> Path:
    """A window that slides over coarse noise, so that all frames differ."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    world = noise.repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), "w", options=container) as file:
        stream = file.add_stream(codec, rate=24, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = 128, 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.thread_count = 1
        for place in range(FRAMES):
            window = np.ascontiguousarray(world[place : place + 64, 2 * place : 2 * place + 128])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(window, format="rgb24")))
        file.mux(stream.encode())
    return path


def read_through(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


@pytest.mark.parametrize(("name", "codec", "options", "container"), FILES, ids=[name for name, *_ in FILES])
def test_frames_equal_those_of_sequential_decoding(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], container: dict[str, str]
) -> None:
    path = write(tmp_path / name, codec, options, **container)
    whole = read_through(path)
    assert len(whole) == FRAMES
    for count in (1, 3, 8, FRAMES):
        indices = np.linspace(0, FRAMES - 1, count).round().astype(int)
        np.testing.assert_array_equal(np.stack(read_frames(path, count)), whole[indices])


def test_unreferenced_frames_are_not_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", options={"g": "12"})
    before = read_frames(path, 2)
    with av.open(str(path)) as file:
        packets = [(packet.pos, packet.size, packet.is_keyframe) for packet in file.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    # The rest of the first key frame's share: the last frame is built from another.
    (second,) = [place for place, (_, _, key) in enumerate(packets) if key][1:2]
    for begin, size, _ in packets[1:second]:
        assert begin is not None
        content[begin : begin + size] = bytes(size)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_frames(path, 2), before)
    with pytest.raises(MediaError, match=r"a\.mp4 does not decode"):
        read_frames(path, 8)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("turns", "matrix"), [(0, (1, 0, 0, 1)), (1, (0, -1, 1, 0)), (2, (-1, 0, 0, -1)), (-1, (0, 1, -1, 0))]
)
def test_turned_and_mirrored_videos_give_upright_frames(
    tmp_path: Path, turns: int, matrix: tuple[int, ...], *, mirrored: bool
) -> None:
    path = write(tmp_path / "a.mp4")
    whole = read_through(path)
    content = path.read_bytes()
    one = 1 << 16
    upright = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    a, b, c, d = (value * one for value in matrix)
    # Mirrored from left to right after it is turned.
    a, c = (-a, -c) if mirrored else (a, c)
    place = content.index(upright, content.index(b"tkhd"))
    turned = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:place] + turned + content[place + len(turned) :])
    expected = np.rot90(whole[[0, -1]], turns, axes=(1, 2))
    np.testing.assert_array_equal(read_frames(path, 2), expected[:, :, ::-1] if mirrored else expected)


@pytest.mark.parametrize("ahead", [0, 1])
def test_hidden_frames_of_vp8_are_not_counted(tmp_path: Path, ahead: int) -> None:
    """Two-pass encoders write alternate reference frames, which are decoded but never shown."""
    path = write(tmp_path / "shown.webm", "libvpx", {"g": "1"})
    with av.open(str(path)) as source, av.open(str(tmp_path / "a.webm"), "w") as target:
        (stream,) = source.streams.video
        copy = target.add_stream_from_template(stream)
        for number, packet in enumerate(source.demux(stream)):
            content = bytes(packet)
            if number % 5 == 3:
                hidden = av.Packet(bytes([content[0] & ~0x10]) + content[1:])
                assert packet.pts is not None
                assert stream.time_base is not None
                hidden.time_base, hidden.is_keyframe = stream.time_base, True
                hidden.pts = hidden.dts = packet.pts - ahead
                hidden.stream = copy
                target.mux(hidden)
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    with av.open(str(tmp_path / "a.webm")) as file:
        assert sum(packet.size > 0 for packet in file.demux(video=0)) == FRAMES + FRAMES // 5
    for count in (2, 7, FRAMES):
        np.testing.assert_array_equal(read_frames(tmp_path / "a.webm", count), read_frames(path, count))


def test_metadata_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(write(tmp_path / "b.mkv"))) as source, av.open(str(path), "w") as target:
        target.metadata["title"] = "a title"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    content = path.read_bytes()
    assert b"a title" in content
    path.write_bytes(content.replace(b"a title", b"\xff\xfe title"[:7]))
    np.testing.assert_array_equal(read_frames(path, 2), read_frames(tmp_path / "b.mkv", 2))


def test_the_pixel_limit_covers_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4")
    monkeypatch.setenv("UNIRS_MAX_PIXELS", "8191")
    with pytest.raises(MediaError, match=r"a\.mp4 has more than 8,191 pixels \(128x64\)"):
        read_frames(path, 2)


def test_a_file_with_only_audio_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000))
    with pytest.raises(MediaError, match=r"a\.mp4 does not open \(it has none of the formats mov,"):
        read_frames(path, 1)
