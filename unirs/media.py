"""What a sample shows: a picture, a pair of pictures, or a video.

The kind is a type and never guessed from a count. Media hold paths only; frames are decoded when asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unirs.errors import MediaError

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    import torch

MediaKind = Literal["image", "pair", "video"]
FitMode = Literal["resize", "pad", "crop"]

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4", ".webm"})
"""Endings of files, in lower case, where a folder is searched for pictures or videos."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How a picture that is not of the encoder's shape is brought to it.

    Attributes:
        mode: `resize` stretches; `pad` keeps the proportions and fills up around the picture (the paper's
            pad-to-square); `crop` keeps the proportions and cuts off what sticks out at both ends.
        fill: red, green and blue, 0..255, of what `pad` adds; pretrained encoders expect their mean colour.
    """

    mode: FitMode = "resize"
    fill: tuple[int, int, int] = (0, 0, 0)


RESIZE = Fit()


@dataclass(frozen=True, slots=True, init=False)
class Image:
    """One picture: anything Pillow reads as RGB, of 8 bits a channel."""

    path: Path

    def __init__(self, path: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "path", Path(path))

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

    def frames(self, size: tuple[int, int] | None = None, fit: Fit = RESIZE) -> torch.Tensor:
        """Decodes the picture.

        Args:
            size: height and width in pixels of what is returned; None for those of the file.
            fit: how a picture of another shape is brought to it.

        Returns:
            uint8 `[1, 3, H, W]`.

        Raises:
            MediaError: the file is missing, does not decode, or has more than 8 bits a channel.
        """
        return _stack([_fit(_open(self.path), size, fit)])


@dataclass(frozen=True, slots=True, init=False)
class Pair:
    """Two pictures of one place at two times, of equal size."""

    before: Path
    after: Path

    def __init__(self, before: str | os.PathLike[str], after: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "before", Path(before))
        object.__setattr__(self, "after", Path(after))

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

    def frames(self, size: tuple[int, int] | None = None, fit: Fit = RESIZE) -> torch.Tensor:
        """Decodes both pictures.

        Args:
            size: height and width in pixels of what is returned; None for those of the file.
            fit: how a picture of another shape is brought to it.

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
        return _stack([_fit(before, size, fit), _fit(after, size, fit)])


@dataclass(frozen=True, slots=True, init=False)
class Video:
    """A video, shown as `count` frames spread evenly from its first to its last."""

    path: Path
    count: int

    def __init__(self, path: str | os.PathLike[str], count: int = 8) -> None:
        object.__setattr__(self, "path", Path(path))
        object.__setattr__(self, "count", count)

    @property
    def kind(self) -> MediaKind:
        """`"video"`."""
        return "video"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files shown."""
        return (self.path,)

    def frames(self, size: tuple[int, int] | None = None, fit: Fit = RESIZE) -> torch.Tensor:
        """Decodes `count` frames.

        Args:
            size: height and width in pixels of what is returned; None for those of the file.
            fit: how a picture of another shape is brought to it.

        Returns:
            uint8 `[count, 3, H, W]`, in time order.

        Raises:
            MediaError: the file is missing, does not decode, or has fewer than `count` frames.
        """
        import PIL.Image

        from unirs.video import read_frames

        return _stack([_fit(PIL.Image.fromarray(frame), size, fit) for frame in read_frames(self.path, self.count)])


Alteration = Literal["blank", "swapped", "repeated", "shuffled"]
"""Black frames; after before before; the first frame in the place of all; frames in another order."""


@dataclass(frozen=True, slots=True)
class Altered:
    """Media shown otherwise than they are: what a sanity baseline shows a model that should notice.

    Attributes:
        media: what is altered.
        how: in which way.
    """

    media: Image | Pair | Video
    how: Alteration

    @property
    def kind(self) -> MediaKind:
        """That of the media."""
        return self.media.kind

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of the media."""
        return self.media.paths

    @property
    def count(self) -> int:
        """How many frames `frames` returns."""
        return self.media.count

    def frames(self, size: tuple[int, int] | None = None, fit: Fit = RESIZE) -> torch.Tensor:
        """Decodes the media and alters the frames; arguments, result and errors are the media's.

        Black frames of a given size are made without a look at the media. The order of shuffled frames is always the
        same for the same file name, and never the right one.
        """
        if self.how == "blank" and size is not None:
            import torch

            return torch.zeros(self.count, 3, *size, dtype=torch.uint8)
        frames = self.media.frames(size, fit)
        match self.how:
            case "blank":
                return frames.zero_()
            case "swapped":
                return frames.flip(0)
            case "repeated":
                return frames[:1].expand_as(frames).contiguous()
            case "shuffled":
                return frames[_disorder(self.count, self.paths[0].name)]


Media = Image | Pair | Video | Altered


def content_key(media: Media) -> str:
    """Hashes what media show: kind, number of frames, and the files' bytes in order. Names do not count.

    Blank media show nothing of their files.

    Returns:
        SHA-256 as 64 hexadecimal digits.

    Raises:
        MediaError: a file cannot be read.
    """
    try:
        how = media.how if isinstance(media, Altered) else "as it is"
        shown = () if how == "blank" else media.paths
        parts = (media.kind, media.count, how, *map(_hash_file, shown))
    except OSError as error:
        raise MediaError(
            f"{error.filename} cannot be read ({error.strerror}). Add the file, or correct the folder it is in."
        ) from error
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _disorder(count: int, salt: str) -> list[int]:
    """An order that is not the right one, unless there is no other."""
    order = sorted(range(count), key=lambda index: hashlib.sha256(f"{salt}/{index}".encode()).digest())
    # Turned by one, the right order is wrong.
    return order[1:] + order[:1] if order == sorted(order) else order


def _open(path: Path) -> PIL.Image.Image:
    import PIL.Image

    try:
        with PIL.Image.open(path) as picture:
            picture.load()
            mode = picture.mode
            # Converting would copy what is RGB.
            rgb = picture if mode == "RGB" else picture.convert("RGB")
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


def _fit(picture: PIL.Image.Image, size: tuple[int, int] | None, fit: Fit) -> np.ndarray:
    import numpy as np
    import PIL.Image
    import PIL.ImageOps

    wanted = (size[1], size[0]) if size else picture.size
    if picture.size != wanted:
        bicubic = PIL.Image.Resampling.BICUBIC
        match fit.mode:
            case "resize":
                picture = picture.resize(wanted, bicubic)
            case "pad":
                picture = PIL.ImageOps.pad(picture, wanted, bicubic, color=fit.fill)
            case "crop":
                picture = PIL.ImageOps.fit(picture, wanted, bicubic)
    return np.asarray(picture)


def _stack(frames: list[np.ndarray]) -> torch.Tensor:
    import numpy as np
    import torch

    height, width, channels = frames[0].shape
    stacked = np.empty((len(frames), channels, height, width), np.uint8)
    for place, frame in zip(stacked, frames, strict=True):
        place[:] = frame.transpose(2, 0, 1)
    return torch.from_numpy(stacked)
