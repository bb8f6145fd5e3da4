"""Sources of images and videos in one hashable and picklable form: a file, or bytes in memory."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from unirs.errors import MediaError

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    import torch

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | InMemory | PIL.Image.Image | np.ndarray | torch.Tensor"
"""A path, the bytes of an image file, a PIL image, or an array or tensor of pixels: uint8 in 0..255 or floating point
in 0..1, of shape `[H, W]`, `[H, W, C]` or `[C, H, W]` with C = 1 (gray) or 3 (RGB)."""


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
        return Path(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return InMemory(bytes(image))
    if is_pil_image(image):
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
    """Decodes an image as RGB.

    Raises:
        MediaError: the file is missing, does not decode, or has more than 8 bits per channel.
    """
    import PIL.Image

    if isinstance(source, InMemory) and source.size is not None:
        height, width = source.size
        return PIL.Image.frombuffer("RGB", (width, height), source.data, "raw", "RGB", 0, 1)
    try:
        with PIL.Image.open(source if isinstance(source, Path) else io.BytesIO(source.data)) as image:
            image.load()
            return _to_rgb(image, f"Image {source}")
    except FileNotFoundError:
        raise MediaError(f"Image {source} does not exist. Add the file, or correct its folder.") from None
    # Pillow's decoders raise these, SyntaxError (broken PNG) included; OSError covers its own UnidentifiedImageError.
    # They also warn of a broken TIFF, which Python raises if warnings are errors.
    except (OSError, SyntaxError, ValueError, Warning, PIL.Image.DecompressionBombError) as error:
        raise MediaError(f"Image {source} does not decode ({error}). Replace the file.") from error


def _to_rgb(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    # Pillow clips these at 255, which makes most images white.
    if image.mode.startswith(("I", "F")):
        raise MediaError(f"{name} has more than 8 bits per channel (mode {image.mode}). Scale it to 8-bit RGB.")
    # Converting copies, which RGB images do not need.
    return image if image.mode == "RGB" else image.convert("RGB")


def frame_indices(total: int, num_frames: int) -> list[int]:
    """Indices that are spread evenly from the first to the last of `total` frames."""
    step = (total - 1) / max(num_frames - 1, 1)
    return [round(index * step) for index in range(num_frames)]
