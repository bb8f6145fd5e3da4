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


@pytest.mark.parametrize(("turns", "matrix"), [(1, (0, -1, 1, 0)), (2, (-1, 0, 0, -1)), (-1, (0, 1, -1, 0))])
def test_rotated_videos_give_upright_frames(tmp_path: Path, turns: int, matrix: tuple[int, ...]) -> None:
    path = write(tmp_path / "a.mp4")
    whole = read_through(path)
    content = path.read_bytes()
    one = 1 << 16
    upright = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    a, b, c, d = (value * one for value in matrix)
    place = content.index(upright, content.index(b"tkhd"))
    turned = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:place] + turned + content[place + len(turned) :])
    np.testing.assert_array_equal(read_frames(path, 2), np.rot90(whole[[0, -1]], turns, axes=(1, 2)))


def test_a_file_with_only_audio_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000))
    with pytest.raises(MediaError, match=r"a\.mp4 does not open \(it holds no video\)"):
        read_frames(path, 1)
