"""What a sample shows: a picture, a pair of pictures, or a video.

The kind is a type and never guessed from a count. Media hold paths only; frames are decoded when asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unirs.errors import MediaError

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    import torch

MediaKind = Literal["image", "pair", "video"]


@dataclass(frozen=True, slots=True)
class Image:
    """One picture: anything Pillow reads as RGB, of 8 bits a channel."""

    path: Path

    @property
    def kind(self) -> MediaKind:
        """`"image"`."""
        return "image"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files shown, in order."""
        return (self.path,)

    @property
    def count(self) -> int:
        """How many frames `frames` returns."""
        return 1

    def frames(self, size: tuple[int, int]) -> torch.Tensor:
        """Decodes the picture.

        Args:
            size: height and width in pixels to resize to.

        Returns:
            uint8 `[1, 3, H, W]`.

        Raises:
            MediaError: the file is missing, does not decode, or has more than 8 bits a channel.
        """
        return _stack([_resize(_open(self.path), size)])


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures of one place at two times, of equal size."""

    before: Path
    after: Path

    @property
    def kind(self) -> MediaKind:
        """`"pair"`."""
        return "pair"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files shown, before first."""
        return (self.before, self.after)

    @property
    def count(self) -> int:
        """How many frames `frames` returns."""
        return 2

    def frames(self, size: tuple[int, int]) -> torch.Tensor:
        """Decodes both pictures.

        Args:
            size: height and width in pixels to resize to.

        Returns:
            uint8 `[2, 3, H, W]`, before first.

        Raises:
            MediaError: a file is missing, does not decode, or has more than 8 bits a channel, or the two differ in
                size.
        """
        before, after = _open(self.before), _open(self.after)
        if before.size != after.size:
            raise MediaError(
                f"The two pictures of a pair differ in size: {self.before} is {before.width}x{before.height}, "
                f"{self.after} is {after.width}x{after.height}. Crop or resample them to one grid."
            )
        return _stack([_resize(before, size), _resize(after, size)])


@dataclass(frozen=True, slots=True)
class Video:
    """A video, shown as `count` frames spread evenly from its first to its last."""

    path: Path
    count: int = 8

    @property
    def kind(self) -> MediaKind:
        """`"video"`."""
        return "video"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files shown."""
        return (self.path,)

    def frames(self, size: tuple[int, int]) -> torch.Tensor:
        """Decodes `count` frames.

        Args:
            size: height and width in pixels to resize to.

        Returns:
            uint8 `[count, 3, H, W]`, in time order.

        Raises:
            MediaError: the file is missing, does not decode, or has fewer than `count` frames.
        """
        import PIL.Image

        return _stack([_resize(PIL.Image.fromarray(frame), size) for frame in _decode_video(self.path, self.count)])


Media = Image | Pair | Video


def _open(path: Path) -> PIL.Image.Image:
    import PIL.Image

    try:
        with PIL.Image.open(path) as picture:
            mode, rgb = picture.mode, picture.convert("RGB")
    except FileNotFoundError:
        raise MediaError(f"Picture {path} does not exist. Add the file, or correct the folder it is in.") from None
    # Pillow's decoders raise these, SyntaxError (broken PNG) included; OSError covers its own UnidentifiedImageError.
    # They also warn of a broken TIFF, which Python raises where it is told to treat warnings as errors.
    except (OSError, SyntaxError, ValueError, Warning, PIL.Image.DecompressionBombError) as error:
        raise MediaError(f"Picture {path} does not decode ({error}). Replace the file.") from error
    # Pillow clips these at 255, which leaves most pictures white.
    if mode.startswith(("I", "F")):
        raise MediaError(f"Picture {path} has more than 8 bits a channel (mode {mode}). Scale it to 8-bit RGB.")
    return rgb


def _resize(picture: PIL.Image.Image, size: tuple[int, int]) -> np.ndarray:
    import numpy as np
    import PIL.Image

    height, width = size
    if picture.size != (width, height):
        picture = picture.resize((width, height), PIL.Image.Resampling.BICUBIC)
    return np.asarray(picture)


def _stack(frames: list[np.ndarray]) -> torch.Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def _decode_video(path: Path, count: int) -> np.ndarray:
    import decord
    import numpy as np

    # Not a DECORDError: raised where decord gives up looking for frames that a broken file promises.
    from decord._ffi.base import DECORDLimitReachedError

    if not path.is_file():
        state = "is not a file" if path.exists() else "does not exist"
        raise MediaError(f"Video {path} {state}. Add the file, or correct the folder it is in.")
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        total = len(reader)
    except (decord.DECORDError, RuntimeError) as error:
        raise MediaError(f"Video {path} does not open ({_first_line(error)}). Replace the file.") from error
    if total < count:
        raise MediaError(
            f"Video {path} has {total} frames, {count} were asked for. "
            f"Ask for at most {total} frames, or drop the video."
        )
    indices = np.linspace(0, total - 1, count).round().astype(int)
    try:
        frames: np.ndarray = reader.get_batch(indices).asnumpy()
    except (decord.DECORDError, DECORDLimitReachedError, RuntimeError) as error:
        raise MediaError(f"Video {path} does not decode ({_first_line(error)}). Replace the file.") from error
    return frames


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
