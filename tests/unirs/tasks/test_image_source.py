import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from unirs.errors import MediaError
from unirs.tasks.media import Image, Media, Pair, Video
from unirs.tasks.perturbation import PerturbedMedia


def tiff(pixels: np.ndarray, sample_format: int = 1) -> bytes:
    """An uncompressed TIFF of `[H, W, bands]`: RGB, and other bands as extra samples."""
    height, width, bands = pixels.shape
    data = pixels.tobytes()
    values = struct.pack(f"<{bands}H", *[8 * pixels.itemsize] * bands)
    extra = [0] * (bands - 3)
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, bands, 8), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 8 + len(values)), (277, 3, 1, bands), (278, 4, 1, height), (279, 4, 1, len(data))]
    entries += [(338, 3, 1, 0)] if len(extra) == 1 else []
    entries += [(339, 3, 1, sample_format)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(values) + len(data)) + values + data + directory + bytes(4)


def saved(name: str) -> bytes:
    """The file that Pillow writes in a format."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels(3)).save(file, name)
    return file.getvalue()


def by_pillow(content: bytes) -> torch.Tensor:
    """The upright RGB pixels that Pillow reads, `[3, H, W]`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with PIL.Image.open(io.BytesIO(content)) as image:
            image.load()
            return torch.from_numpy(np.array(PIL.ImageOps.exif_transpose(image).convert("RGB"))).permute(2, 0, 1)


def png(pixels: np.ndarray, color_type: int = 2) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width, *_ = pixels.shape
    rows = b"".join(b"\0" + row.astype(f">u{pixels.itemsize}").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, color_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def jpeg2000_of_16_bits() -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (16, 16), (10, 20, 30)).save(file, "JPEG2000")
    content = bytearray(file.getvalue())
    first = content.index(b"\xff\x4f\xff\x51") + 42
    content[first : first + 9 : 3] = bytes([15]) * 3
    return bytes(content)


def pixels(bands: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (16, 24, bands)).astype(dtype)


@pytest.mark.parametrize("bands", [3, 4])
def test_eight_bit_bands_are_read(bands: int) -> None:
    values = pixels(bands)
    for content in (tiff(values), png(values, 2 if bands == 3 else 6)):
        assert torch.equal(Image(content).load_frames()[0], torch.from_numpy(values[..., :3]).permute(2, 0, 1))


@pytest.mark.parametrize(
    "content",
    [
        tiff(pixels(3, np.uint16)),
        tiff(pixels(4, np.uint16)),
        png(pixels(3, np.uint16)),
        png(pixels(4, np.uint16), 6),
        png(pixels(1, np.uint16), 0),
        png(pixels(2, np.uint16), 4),
        b"P6 24 16 65535\n" + pixels(3, np.uint16).tobytes(),
        jpeg2000_of_16_bits(),
    ],
    ids=["rgb.tif", "rgbx.tif", "rgb.png", "rgba.png", "gray.png", "la.png", "rgb.ppm", "rgb.jp2"],
)
def test_16_bit_channels_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    for media in (Image(path), Image(content)):
        with pytest.raises(MediaError, match=r"has more than 8 bits per channel .* Scale it to 8-bit RGB"):
            media.load_frames()
    with PIL.Image.open(path) as opened, pytest.raises(MediaError, match="has more than 8 bits per channel"):
        Image(opened)


@pytest.mark.parametrize(
    ("content", "description"),
    [
        (tiff(pixels(13, np.uint16)), "13 bands of 16 bits"),
        (tiff(pixels(13)), "13 bands of 8 bits"),
        (tiff(pixels(3).astype(np.float32), sample_format=3), "3 bands of 32 bits"),
    ],
)
def test_a_tiff_with_other_bands_is_not_called_damaged(content: bytes, description: str) -> None:
    with pytest.raises(MediaError, match=f"it is a TIFF of {description}. Select one or three bands"):
        Image(content).load_frames()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"]),
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"]),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    size=st.none() | st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_frames_have_pillows_pixels(
    name: str, mode: str, height: int, width: int, size: tuple[int, int] | None
) -> None:
    values = np.random.default_rng(height * 71 + width).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    try:
        PIL.Image.fromarray(values).convert(mode).save(file, name)
        with PIL.Image.open(file) as image:
            expected = image.convert("RGB")
    except (OSError, ValueError):
        assume(False)  # the format does not have this mode, or Pillow does not read what it wrote
    if size:
        expected = expected.resize(size[::-1], PIL.Image.Resampling.BICUBIC)
    frames = Image(file.getvalue()).load_frames(size)
    assert frames.is_contiguous()
    assert torch.equal(frames[0], torch.from_numpy(np.array(expected)).permute(2, 0, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_exif_orientation_is_applied(tmp_path: Path, name: str, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[274] = orientation
    PIL.Image.fromarray(pixels(3)).save(tmp_path / name, exif=exif, lossless=True)
    with PIL.Image.open(tmp_path / name) as file:
        upright = torch.from_numpy(np.array(PIL.ImageOps.exif_transpose(file))).permute(2, 0, 1)[None]
    assert upright.shape[2:] == ((24, 16) if orientation > 4 else (16, 24))
    assert torch.equal(Image(tmp_path / name).load_frames(), upright)
    with PIL.Image.open(tmp_path / name) as file:
        assert torch.equal(Image(file).load_frames(), upright)


def test_unreadable_exif_does_not_cost_the_image(tmp_path: Path) -> None:
    PIL.Image.fromarray(pixels(3)).save(tmp_path / "a.png", exif=b"Exif\0\0no TIFF")
    assert torch.equal(Image(tmp_path / "a.png").load_frames()[0], torch.from_numpy(pixels(3)).permute(2, 0, 1))


def test_metadata_that_are_not_utf8_do_not_cost_the_image(tmp_path: Path) -> None:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels(3)).save(file, "PNG", exif=PIL.Image.Exif())
    text = b"iTXtXML:com.adobe.xmp\0\0\0\0\0\xff\xfe tiff:Orientation=\xff"
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    content = file.getvalue()
    (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])
    assert Image(tmp_path / "a.png").load_frames().shape == (1, 3, 16, 24)


class TestPixelLimit:
    def test_the_limit_can_be_raised(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "a.png"
        PIL.Image.new("RGB", (30, 20)).save(path)
        monkeypatch.setenv("UNIRS_MAX_PIXELS", "599")
        message = r"a\.png has more than 599 pixels.* Split it into tiles, or raise the limit.*UNIRS_MAX_PIXELS"
        with pytest.raises(MediaError, match=message):
            Image(path).load_frames()
        monkeypatch.setenv("UNIRS_MAX_PIXELS", "600")
        assert Image(path).load_frames().shape == (1, 3, 20, 30)

    @pytest.mark.parametrize("width", [14_000, 60_000])
    def test_a_small_file_of_many_pixels_is_not_decoded(self, width: int) -> None:
        content = bytearray(png(pixels(3)))
        content[16:24] = struct.pack(">II", width, width)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        with pytest.raises(MediaError, match="has more than 180,000,000 pixels"):
            Image(bytes(content)).load_frames()

    @pytest.mark.parametrize("value", ["", "0", "-1", "1e9", "many", "9" * 5000])
    def test_values_that_are_no_limit(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UNIRS_MAX_PIXELS", value)
        with pytest.raises(MediaError, match=r"UNIRS_MAX_PIXELS is '.*', it must be a positive integer"):
            Image(png(pixels(3))).load_frames()


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(["JPEG", "PNG", "TIFF"]),
    cut=st.none() | st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1) | st.floats(0, 0.1), st.integers(1, 255)), max_size=3),
)
def test_damaged_files_are_errors_or_have_pillows_pixels(
    name: str, cut: float | None, flips: list[tuple[float, int]]
) -> None:
    content = bytearray(saved(name))
    for position, flip in flips:
        content[int(position * (len(content) - 1))] ^= flip
    if cut is not None:
        del content[int(cut * len(content)) :]
    try:
        frames = Image(bytes(content)).load_frames()
    except MediaError:
        return
    assert torch.equal(frames[0], by_pillow(bytes(content)))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF"])
def test_truncated_files_are_errors(name: str) -> None:
    content = saved(name)
    # Two checksums and the last chunk of PNG hold no pixels.
    end = len(content) - (20 if name == "PNG" else 0)
    for length in range(end):
        with pytest.raises(MediaError, match="does not decode"):
            Image(content[:length]).load_frames()


@pytest.mark.parametrize("name", ["AVIF", "DDS", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP"])
def test_damaged_files_decode_or_are_named(tmp_path: Path, name: str) -> None:
    file, path = io.BytesIO(), tmp_path / "a.png"
    PIL.Image.fromarray(pixels(3)).save(file, name)
    generator = np.random.default_rng(len(name))
    for _ in range(100):
        content = bytearray(file.getvalue())
        for position in generator.integers(0, min(len(content), 200), 3):
            content[position] = generator.integers(256)
        path.write_bytes(content)
        try:
            frames = Image(path).load_frames()
        except MediaError as error:
            message = str(error)
            assert str(path) in message
        else:
            assert frames.shape[:2] == (1, 3)


def test_formats_that_run_another_program_are_not_opened() -> None:
    with pytest.raises(MediaError, match="it is no image of the formats AVIF, BMP"):
        Image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n").load_frames()


@pytest.mark.parametrize("name", ["a\0.png", "\ud800.png"])
def test_text_that_is_no_path(name: str) -> None:
    constructors: list[type[Image | Video]] = [Image, Video]
    for constructor in constructors:
        with pytest.raises(MediaError, match="is no path: it contains a NUL character or a lone surrogate"):
            constructor(name)
    with pytest.raises(MediaError, match="is no path"):
        Pair("a.png", Path(name))


def test_file_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.png")
    PIL.Image.fromarray(pixels(3)).save(path)
    media: Media = Image(path)
    assert media.load_frames().shape == (1, 3, 16, 24)
    assert len(media.content_key()) == 64
    shuffled = PerturbedMedia(Video([path] * 3), "shuffle_frames")
    assert shuffled.load_frames().shape == (3, 3, 16, 24)
