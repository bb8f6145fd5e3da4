import contextlib
import pickle
import struct
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from unirs.errors import MediaError, PluginError
from unirs.tasks.image_source import InMemory
from unirs.tasks.media import Video
from unirs.tasks.video_reader import RefusedVideoError, create_reader, describe_reader, read_frames, sample_frames

FRAMES = 60
READERS = ("pyav", "decord", "torchcodec")
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


def usable(reader: str) -> str:
    """The reader; skips the test if what it needs is not installed."""
    try:
        create_reader(reader)
    except PluginError as error:
        pytest.skip(str(error))
    return reader


@pytest.fixture(params=[name for name in READERS if name != "pyav"])
def reader(request: pytest.FixtureRequest) -> str:
    return usable(request.param)


def is_exact(path: Path, reader: str, *counts: int) -> bool:
    """Whether a reader returns the pixels of the default one; False if it refuses the video. Fails on other pixels."""
    accepted = set()
    for count in counts or (1, 2, 7):
        expected = read_frames(path, count)
        for source in (path, InMemory(path.read_bytes())):
            try:
                frames = read_frames(source, count, reader=reader)
            except RefusedVideoError as error:
                assert f"is refused by the video reader {reader}: " in str(error)  # noqa: PT017 - or accepted
                assert str(error).startswith(f"Video {source}")  # noqa: PT017
                accepted.add(False)
            else:
                np.testing.assert_array_equal(frames, expected)
                accepted.add(True)
    (answer,) = accepted
    return answer


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


ACCEPTED = {
    "decord": {"plain.mp4", "keys.mp4", "a.mkv", "a.webm"},
    "torchcodec": {"plain.mp4", "keys.mp4", "a.mkv", "a.webm", "a.mov"},
}


@pytest.mark.parametrize(("name", "codec", "options", "container"), FILES, ids=[name for name, *_ in FILES])
def test_readers_return_exact_frames_or_refuse(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], container: dict[str, str], reader: str
) -> None:
    path = write(tmp_path / name, codec, options, **container)
    assert is_exact(path, reader, 1, 3, 8, FRAMES) == (name in ACCEPTED[reader])


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("open.mp4", {"x264-params": "open-gop=1:keyint=12:bframes=3"}, "precede their key frame|depend on earlier"),
        ("refreshed.mp4", {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}, "key frames depend on earlier"),
        ("a.avi", {"bf": "0"}, "positions in the format avi are not exact"),
        ("a.ts", {"bf": "0"}, "positions in the format mpegts are not exact"),
        ("interlaced.mp4", {"flags": "+ildct+ilme"}, "frames are interlaced"),
    ],
)
def test_refusals_name_the_file_the_reason_and_the_remedy(
    tmp_path: Path, name: str, options: dict[str, str], reason: str, reader: str
) -> None:
    path = write(tmp_path / name, options=options)
    with pytest.raises(RefusedVideoError, match=rf"{name} is .*({reason}).*\. Set 'video_reader: pyav'\."):
        read_frames(path, 3, reader=reader)


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


def test_videos_whose_packets_are_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", options={"g": "12"})
    before = read_frames(path, 5)
    monkeypatch.setattr("unirs.tasks.video_index._MAX_CODED", path.stat().st_size // 2)
    np.testing.assert_array_equal(read_frames(path, 5), before)


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
    for other in READERS[1:]:
        assert is_exact(path, usable(other)) == (turns == 0 and not mirrored)


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
    for other in READERS[1:]:
        assert not is_exact(tmp_path / "a.webm", usable(other))


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
    for other in READERS[1:]:
        assert is_exact(path, usable(other))


@pytest.mark.parametrize("name", READERS)
def test_the_pixel_limit_covers_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = write(tmp_path / "a.mp4")
    monkeypatch.setenv("UNIRS_MAX_PIXELS", "8191")
    with pytest.raises(MediaError, match=r"a\.mp4 has more than 8,191 pixels \(128x64\)"):
        read_frames(path, 2, reader=usable(name))


@pytest.mark.parametrize("name", READERS)
def test_a_file_with_only_audio_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.mp4"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000))
    with pytest.raises(MediaError, match=r"a\.mp4 does not open \(it has none of the formats mov,"):
        read_frames(path, 1, reader=usable(name))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"x264-params": "crop-rect=8,4,8,4"}, "cropped"),
        ({"profile": "high10"}, "more than 8 bits"),
    ],
)
def test_colours_and_sizes_that_decoders_convert_differently(
    tmp_path: Path, options: dict[str, str], problem: str, reader: str
) -> None:
    path = tmp_path / "a.mp4"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=24, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = 128, 64
        stream.pix_fmt = "yuv420p10le" if "profile" in options else "yuv420p"
        for _ in range(4):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    with pytest.raises(RefusedVideoError, match=problem):
        read_frames(path, 2, reader=reader)


def test_several_video_streams_are_refused(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as file:
        streams = [file.add_stream("libx264", rate=24) for _ in range(2)]
        for size, stream in zip((64, 128), streams, strict=True):
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        for size, stream in zip((64, 128), streams, strict=True):
            assert isinstance(stream, av.VideoStream)
            for _ in range(4):
                image = np.full((size, size, 3), size, np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            file.mux(stream.encode())
    assert read_frames(path, 2)[0].shape == (64, 64, 3)
    with pytest.raises(RefusedVideoError, match="several video streams"):
        read_frames(path, 2, reader=reader)


@pytest.mark.parametrize("name", READERS)
def test_no_files_stay_open(tmp_path: Path, name: str) -> None:
    path, refused = write(tmp_path / "a.mp4"), write(tmp_path / "a.avi")
    read_frames(path, 3, reader=usable(name))
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc").is_dir() else 0
    for _ in range(5):
        read_frames(path, 3, reader=name)
        read_frames(InMemory(path.read_bytes()), 3, reader=name)
        with contextlib.suppress(RefusedVideoError):
            read_frames(refused, 3, reader=name)
    assert (len(list(Path("/proc/self/fd").iterdir())) if Path("/proc").is_dir() else 0) == before


def test_sampling_of_the_public_code() -> None:
    for total in range(8, 400):
        assert sample_frames(total, 8, "vila") == np.linspace(0, total - 2, 8, dtype=int).tolist()
    assert sample_frames(120, 8, "vila") == [0, 16, 33, 50, 67, 84, 101, 118]
    assert sample_frames(120, 8, "uniform") == [0, 17, 34, 51, 68, 85, 102, 119]
    assert sample_frames(1, 1, "vila") == [0]
    # There is one frame fewer before the last but one than are needed.
    assert sample_frames(8, 8, "vila") == [0, 0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", READERS)
def test_sampling_chooses_frames_of_files_and_of_arrays(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.mp4")
    whole = read_through(path)
    video = Video(path, 8, reader=usable(name), frame_sampling="vila")
    expected = whole[np.linspace(0, FRAMES - 2, 8, dtype=int)].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(video.load_frames().numpy(), expected)
    np.testing.assert_array_equal(Video(whole, 8, frame_sampling="vila").load_frames().numpy(), expected)
    np.testing.assert_array_equal(
        Video(path, FRAMES, reader=name, frame_sampling="vila").load_frames().numpy(),
        whole[[0, *range(FRAMES - 1)]].transpose(0, 3, 1, 2),
    )


def test_unknown_sampling() -> None:
    with pytest.raises(MediaError, match=r"There is no frame_sampling 'villa'\..*'vila'"):
        Video("a.mp4", frame_sampling="villa")  # type: ignore[arg-type]


def test_keys_contain_reader_its_version_and_sampling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4")
    other = usable("decord")
    videos = [Video(path), Video(path, reader=other), Video(path, frame_sampling="vila")]
    assert len({video.content_key() for video in videos}) == len({pickle.dumps(video) for video in videos}) == 3
    assert Video(path, reader="pyav").content_key() == Video(path).content_key()
    assert Video(path).with_reader(other) == Video(path, reader=other) == Video(path, reader=other).with_reader("pyav")
    assert describe_reader("pyav") == f"pyav {av.__version__}"
    key = Video(path).content_key()
    monkeypatch.setattr(create_reader("pyav"), "version", "0", raising=False)
    assert Video(path).content_key() != key
    frames = read_frames(path, 8)
    assert Video(frames).content_key() == Video(frames, reader=other).content_key()


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, remedy in (("decord", "pip install decord"), ("torchcodec", r"pip install 'unirs\[torchcodec\]'")):
        monkeypatch.setitem(sys.modules, name, None)
        create_reader.cache_clear()
        with pytest.raises(PluginError, match=rf"'{name}' needs the package {name}.*{remedy}.*'video_reader: pyav'"):
            create_reader(name)
    create_reader.cache_clear()


def test_a_missing_ffmpeg_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    torchcodec = pytest.importorskip("torchcodec")
    monkeypatch.setattr(torchcodec, "ffmpeg_major_version", None)
    create_reader.cache_clear()
    with pytest.raises(PluginError, match=r"finds no libraries of FFmpeg.* Install FFmpeg 4 or later"):
        create_reader("torchcodec")
    create_reader.cache_clear()


def test_unknown_reader() -> None:
    with pytest.raises(PluginError, match=r"Unknown plugin 'decrod' in group 'unirs\.video_readers'.*'decord'"):
        create_reader("decrod")


@pytest.mark.parametrize("faststart", [False, True])
def test_truncated_files_never_give_wrong_frames(tmp_path: Path, reader: str, faststart: bool) -> None:
    path = write(tmp_path / "a.mp4", options={"g": "12"}, movflags="faststart" if faststart else "0")
    content, whole = path.read_bytes(), read_frames(path, 4)
    refused = 0
    for share in (0.05, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999):
        path.write_bytes(content[: int(share * len(content))])
        try:
            np.testing.assert_array_equal(read_frames(path, 4, reader=reader), whole)
        except MediaError as error:
            assert str(path) in str(error)  # noqa: PT017 - truncated metadata at the end do no harm
            refused += 1
    assert refused >= 5


@pytest.mark.parametrize("name", READERS)
def test_scripts_that_name_other_files_are_no_videos(tmp_path: Path, name: str) -> None:
    secret = write(tmp_path / "secret.mp4")
    for text in (
        f"ffconcat version 1.0\nfile '{secret}'\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n",
    ):
        (tmp_path / "a.mp4").write_text(text)
        for source in (tmp_path / "a.mp4", InMemory(text.encode())):
            with pytest.raises(MediaError, match="does not open"):
                read_frames(source, 2, reader=usable(name))
