"""Sources of images and videos in one hashable and picklable form: a file, or bytes in memory."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from unirs.errors import MediaError
from unirs.tasks.resize_window import resize_window
from unirs.utils.io import check_regular

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    import torch

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | InMemory | PIL.Image.Image | np.ndarray | torch.Tensor"
"""A path, the bytes of an image file, a PIL image, or an array or tensor of pixels: uint8 in 0..255 or floating point
in 0..1, of shape `[H, W]`, `[H, W, C]` or `[C, H, W]` with C = 1 (gray) or 3 (RGB)."""

_FORMATS = ("AVIF", "BMP", "DDS", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP", "TGA")
"""Pillow's names of the decoded formats. Others are vector graphics that it renders by another program, or rare.

TGA is the last since it has no signature: Pillow parses each file that it compares with TGA."""

_MAX_PIXELS = "UNIRS_MAX_PIXELS"

_AS_RASTER = """; or, for a GeoTIFF, set 'bands', and 'stretch' or 'value_range': options of an image, of a task's \
'raster' and of 'unirs predict'"""

# Tags of TIFF and EXIF.
_BITS_PER_SAMPLE, _ORIENTATION, _SAMPLES_PER_PIXEL = 258, 274, 277

# Pillow's transposition (`PIL.Image.Transpose`) for each EXIF orientation.
_TURNS: dict[int | None, Any] = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}


@dataclass(frozen=True, slots=True, repr=False)
class InMemory:
    """Content of an image or a video that is not in a file. Equal content is equal and has the same hash.

    Attributes:
        data: Bytes of an encoded file, or RGB pixels row by row.
        size: Height and width of the pixels; None for an encoded file.
    """

    data: bytes
    size: tuple[int, int] | None = None

    def digest(self) -> str:
        """SHA-256 as 64 hexadecimal digits; that of the file if `data` is an encoded one."""
        header = b"" if self.size is None else repr(self.size).encode()
        return hashlib.sha256(header + self.data).hexdigest()

    def __repr__(self) -> str:
        return f"<in memory, sha256 {self.digest()}>"


Source: TypeAlias = Path | InMemory
"""Where the content of an image or a video is."""


def as_source(image: ImageLike) -> Source:
    """Normalizes an image.

    Raises:
        MediaError: the type is unknown, or it is unclear which 8-bit gray or RGB pixels the values are.
    """
    if isinstance(image, InMemory):
        return image
    if isinstance(image, str | os.PathLike):
        return _checked_path(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return InMemory(bytes(image))
    if is_pil_image(image):
        with decoding("The PIL image"):
            rgb = _to_rgb(image, "The PIL image")
        return InMemory(rgb.tobytes(), (rgb.height, rgb.width))
    array = as_array(image)
    if array is None:
        raise MediaError(
            f"An image cannot be a {type(image).__name__}. Pass a path, the bytes of a file, a PIL image, or an array "
            "or tensor of pixels."
        )
    pixels = _to_pixels(array)
    return InMemory(pixels.tobytes(), (pixels.shape[0], pixels.shape[1]))


def _checked_path(path: Path) -> Path:
    try:
        is_valid = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_valid = False
    if not is_valid:
        raise MediaError(f"{str(path)!r} is no path: it contains a NUL character or a lone surrogate. Correct it.")
    return path


def is_pil_image(value: object) -> TypeGuard[PIL.Image.Image]:
    """Whether a value is a PIL image, without an import of Pillow."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def as_array(value: object) -> np.ndarray | None:
    """The values of a numpy array or torch tensor, without an import of these; None for other types."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        tensor: Any = value.detach().cpu()
        # numpy has no bfloat16.
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # type: ignore[no-any-return]
    return value if numpy is not None and isinstance(value, numpy.ndarray) else None


def _to_pixels(array: np.ndarray) -> np.ndarray:
    """uint8 `[H, W, 3]`."""
    import numpy as np

    is_float = np.issubdtype(array.dtype, np.floating)
    channel_axes = [axis for axis in (0, 2) if array.shape[axis] in (1, 3)] if array.ndim == 3 else []
    shape_is_clear = array.size > 0 and (array.ndim == 2 or len(channel_axes) == 1)
    # NaN is not in the range either.
    in_range = bool(((array >= 0) & (array <= 1)).all()) if is_float else array.dtype == np.uint8
    if not (shape_is_clear and in_range):
        values = f", values {np.min(array)} to {np.max(array)}" if is_float and array.size else ""
        raise MediaError(
            f"An array of shape {list(array.shape)} and type {array.dtype}{values} is not clearly an image. Pass uint8 "
            "in 0..255 or floating point in 0..1, of shape [H, W], [H, W, 3] or [3, H, W]: select one or three bands, "
            "and scale them to 8 bits."
        )
    pixels = np.rint(array.astype(np.float64) * 255).astype(np.uint8) if is_float else array
    if channel_axes == [0]:
        pixels = pixels.transpose(1, 2, 0)
    return np.broadcast_to(pixels.reshape(*pixels.shape[:2], -1), (*pixels.shape[:2], 3))


def open_image(source: Source) -> PIL.Image.Image:
    """Decodes an image as RGB, upright.

    Raises:
        MediaError: the file is missing, does not decode, or has more than 8 bits per channel or `max_pixels` pixels.
    """
    import PIL.Image

    if isinstance(source, InMemory) and source.size is not None:
        height, width = source.size
        return PIL.Image.frombuffer("RGB", (width, height), source.data, "raw", "RGB", 0, 1)
    name = f"Image {source}"
    # Pillow's own limit warns, or is an error at twice its value.
    PIL.Image.MAX_IMAGE_PIXELS = max_pixels()
    try:
        file = source if isinstance(source, Path) else io.BytesIO(source.data)
        with decoding(name):
            if isinstance(source, Path):
                check_regular(source)
        with decoding(name), PIL.Image.open(file, formats=_FORMATS) as image:
            return _to_rgb(image, name)
    except PIL.UnidentifiedImageError as error:
        raise MediaError(_why_unidentified(source, name)) from error


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turns what a block raises while Pillow decodes an image into a `MediaError`."""
    import PIL.Image

    try:
        yield
    except (MediaError, PIL.UnidentifiedImageError):
        raise
    except FileNotFoundError:
        raise MediaError(f"{name} does not exist. Add the file, or correct its folder.") from None
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(name) from error
    # The decoders raise almost anything for damaged files, and warn of others, which is an error if warnings are.
    except Exception as error:
        reason = str(error) or type(error).__name__
        remedy = "Correct its permissions" if isinstance(error, PermissionError) else "Replace the file"
        raise MediaError(f"{name} does not decode ({reason}). {remedy}.") from error


def max_pixels() -> int:
    """Maximum number of pixels of an image or a frame: the environment variable `UNIRS_MAX_PIXELS`, or 180 million.

    Raises:
        MediaError: the variable is not a positive integer.
    """
    value = os.environ.get(_MAX_PIXELS, "180000000")
    if not (value.isdecimal() and len(value) < 19 and int(value)):
        raise MediaError(f"The environment variable {_MAX_PIXELS} is {value!r}, it must be a positive integer.")
    return int(value)


def check_pixels(name: str, width: int, height: int) -> None:
    """Checks the size of an image or a frame before it is decoded, since small files can hold many pixels.

    Raises:
        MediaError: there are more pixels than `max_pixels`.
    """
    if width * height > max_pixels():
        raise _too_many_pixels(name, f" ({width}x{height})")


def _too_many_pixels(name: str, size: str = "") -> MediaError:
    return MediaError(
        f"{name} has more than {max_pixels():,} pixels{size}. Split it into tiles, or raise the limit: set the "
        f"environment variable {_MAX_PIXELS}."
    )


def _to_rgb(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    check_pixels(name, *image.size)
    if _is_deep(image):
        raise MediaError(
            f"{name} has more than 8 bits per channel (mode {image.mode}). Scale it to 8-bit RGB, all images of a data "
            f"set by the same range of values{_AS_RASTER}."
        )
    image.load()
    # Pillow turns TIFF when it loads it, and then drops the tag.
    turn = _TURNS.get(_orientation(image))
    image = image if turn is None else image.transpose(turn)
    # Converting copies, which RGB images do not need.
    return image if image.mode == "RGB" else image.convert("RGB")


def _is_deep(image: PIL.Image.Image) -> bool:
    """Whether a file has more than 8 bits per channel. Pillow clips one channel at 255, and drops bits of several."""
    if image.mode.startswith(("I", "F")):
        return True
    if image.format == "TIFF":
        return bool(max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) > 8)  # type: ignore[attr-defined]
    # The decoder's arguments: PNG's raw mode; PPM's mode and maximum value.
    arguments = [tile.args for tile in getattr(image, "tile", ())]
    if image.format == "PPM":
        return any(isinstance(maximum, int) and maximum > 255 for args in arguments for maximum in args[1:2])
    if image.format == "JPEG2000":
        return _jpeg2000_bits(image) > 8
    return any(";16" in str(args) for args in arguments)


def _jpeg2000_bits(image: PIL.Image.Image) -> int:
    """Bits per channel in a JPEG 2000 codestream's SIZ segment (ISO/IEC 15444-1, A.5.1)."""
    file = getattr(image, "fp", None)
    if file is None:
        return 0
    position = file.tell()
    file.seek(0)
    content = file.read(1 << 16)
    file.seek(position)
    start = content.index(b"\xff\x4f\xff\x51") + 40
    count = int.from_bytes(content[start : start + 2], "big")
    depths: bytes = content[start + 2 : start + 2 + 3 * count : 3]
    return max(bits & 0x7F for bits in depths) + 1


def _orientation(image: PIL.Image.Image) -> int | None:
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - metadata that cannot be read hold no orientation, and pixels are not affected
        return None


def _why_unidentified(source: Source, name: str) -> str:
    """The message for a file that none of the decoders takes: another format, or a TIFF with other bands."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source.data) as file:
            directory = ImageFileDirectory_v2(file.read(8))
            file.seek(directory.next)
            directory.load(file)
        bands, bits = directory.get(_SAMPLES_PER_PIXEL, 1), max(directory[_BITS_PER_SAMPLE])
    except Exception:  # noqa: BLE001 - no TIFF, or a damaged one
        return f"{name} does not decode (it is no image of the formats {', '.join(_FORMATS)}). Replace the file."
    return (
        f"{name} does not decode: it is a TIFF of {bands} bands of {bits} bits. Select one or three bands, and scale "
        f"them to 8 bits, all images of a data set by the same range of values{_AS_RASTER}."
    )


def digest(source: Source) -> str:
    """SHA-256 of the content of a source.

    Raises:
        MediaError: a file cannot be read.
    """
    if isinstance(source, InMemory):
        return source.digest()
    try:
        check_regular(source)
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MediaError(f"{source} cannot be read ({error.strerror}). Add the file, or correct its folder.") from error


def resize_image(
    image: PIL.Image.Image, size: tuple[int, int] | None, mode: str, fill: tuple[int, int, int]
) -> PIL.Image.Image:
    """Resizes an image to `size`, height and width; see `ResizeSpec` for `mode` and `fill`."""
    import PIL.Image
    import PIL.ImageOps

    target = (size[1], size[0]) if size else image.size
    if image.size != target:
        bicubic = PIL.Image.Resampling.BICUBIC
        if mode == "stretch":
            image = image.resize(target, bicubic)
        elif mode == "pad":
            image = _pad(image, target, fill).resize(target, bicubic)
        else:
            image = PIL.ImageOps.fit(image, target, bicubic)
    return image


def _pad(image: PIL.Image.Image, target: tuple[int, int], fill: tuple[int, int, int]) -> PIL.Image.Image:
    """Pads an image to the aspect ratio of a size. LLaVA and VILA pad before they resize, too."""
    import PIL.Image

    left, top, *size = map(int, resize_window(image.size, target, "pad"))
    check_pixels(f"An image of {image.width}x{image.height} pixels that is padded", *size)
    canvas = PIL.Image.new(image.mode, (size[0], size[1]), fill)
    canvas.paste(image, (-left, -top))
    return canvas


def stack_images(images: Sequence[PIL.Image.Image]) -> torch.Tensor:
    """Stacks RGB images of one size to `[k, 3, H, W]`."""
    import torch

    # Pillow copies one band faster than numpy or PyTorch transpose pixels.
    bands = [image.tobytes("raw", band) for image in images for band in "RGB"]
    pixels = torch.frombuffer(bytearray().join(bands), dtype=torch.uint8)
    return pixels.view(len(images), 3, images[0].height, images[0].width)
