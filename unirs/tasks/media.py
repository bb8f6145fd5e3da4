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


Modality = Literal["image", "pair", "video"]

ResizeMode = Literal["stretch", "pad", "center_crop"]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

VIDEO_SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4", ".webm"})
"""Endings of files, in lower case, where a folder is searched for pictures or videos."""


@dataclass(frozen=True, slots=True)
class ResizeSpec:
    """How a picture that is not of the encoder's shape is brought to it.

    Attributes:
        mode: `stretch` ignores the aspect ratio; `pad` keeps the proportions and fills up around the picture (the
            paper's pad-to-square); `center_crop` keeps the proportions and cuts off what sticks out at both ends.
        fill: red, green and blue, 0..255, of what `pad` adds; pretrained encoders expect their mean colour.
    """

    mode: ResizeMode = "stretch"
    fill: tuple[int, int, int] = (0, 0, 0)


STRETCH = ResizeSpec()


@dataclass(frozen=True, slots=True, init=False)
class Image:
    """One picture: anything Pillow reads as RGB, of 8 bits a channel."""

    path: Path

    def __init__(self, path: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "path", Path(path))

    @property
    def modality(self) -> Modality:
        """`"image"`."""
        return "image"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files shown, in order."""
        return (self.path,)

    @property
    def num_frames(self) -> int:
        """How many frames `load_frames` returns."""
        return 1

    def load_frames(self, size: tuple[int, int] | None = None, resize: ResizeSpec = STRETCH) -> torch.Tensor:
        """Decodes the picture.

        Args:
            size: height and width in pixels of what is returned; None for those of the file.
            resize: how an image of another shape is brought to it.

        Returns:
            uint8 `[1, 3, H, W]`.

        Raises:
            MediaError: the file is missing, does not decode, or has more than 8 bits a channel.
        """
        return _stack([_resize(_open_image(self.path), size, resize)])


@dataclass(frozen=True, slots=True, init=False)
class Pair:
    """Two pictures of one place at two times, of equal size."""

    before: Path
    after: Path

    def __init__(self, before: str | os.PathLike[str], after: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "before", Path(before))
        object.__setattr__(self, "after", Path(after))

    @property
    def modality(self) -> Modality:
        """`"pair"`."""
        return "pair"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files shown, before first."""
        return (self.before, self.after)

    @property
    def num_frames(self) -> int:
        """How many frames `load_frames` returns."""
        return 2

    def load_frames(self, size: tuple[int, int] | None = None, resize: ResizeSpec = STRETCH) -> torch.Tensor:
        """Decodes both pictures.

        Args:
            size: height and width in pixels of what is returned; None for those of the file.
            resize: how an image of another shape is brought to it.

        Returns:
            uint8 `[2, 3, H, W]`, before first.

        Raises:
            MediaError: a file is missing, does not decode, or has more than 8 bits a channel, or the two differ in
                size.
        """
        before, after = _open_image(self.before), _open_image(self.after)
        if before.size != after.size:
            raise MediaError(
                f"The two pictures of a pair differ in size: {self.before} is {before.width}x{before.height}, "
                f"{self.after} is {after.width}x{after.height}. Crop or resample them to one grid."
            )
        return _stack([_resize(before, size, resize), _resize(after, size, resize)])


@dataclass(frozen=True, slots=True, init=False)
class Video:
    """A video, shown as `num_frames` frames spread evenly from its first to its last."""

    path: Path
    num_frames: int

    def __init__(self, path: str | os.PathLike[str], num_frames: int = 8) -> None:
        object.__setattr__(self, "path", Path(path))
        object.__setattr__(self, "num_frames", num_frames)

    @property
    def modality(self) -> Modality:
        """`"video"`."""
        return "video"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files shown."""
        return (self.path,)

    def load_frames(self, size: tuple[int, int] | None = None, resize: ResizeSpec = STRETCH) -> torch.Tensor:
        """Decodes `num_frames` frames.

        Args:
            size: height and width in pixels of what is returned; None for those of the file.
            resize: how an image of another shape is brought to it.

        Returns:
            uint8 `[num_frames, 3, H, W]`, in time order.

        Raises:
            MediaError: the file is missing, does not decode, or has fewer than `num_frames` frames.
        """
        import PIL.Image

        from unirs.tasks.video_reader import read_frames

        return _stack(
            [_resize(PIL.Image.fromarray(frame), size, resize) for frame in read_frames(self.path, self.num_frames)]
        )


Perturbation = Literal["blank", "swap_times", "repeat_first", "shuffle_frames"]
"""Black frames; after before before; the first frame in the place of all; frames in another order."""


@dataclass(frozen=True, slots=True)
class PerturbedMedia:
    """Media shown otherwise than they are: what a sanity baseline shows a model that should notice.

    Attributes:
        media: what is altered.
        perturbation: in which way.
    """

    media: Image | Pair | Video
    perturbation: Perturbation

    @property
    def modality(self) -> Modality:
        """That of the media."""
        return self.media.modality

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of the media."""
        return self.media.paths

    @property
    def num_frames(self) -> int:
        """How many frames `load_frames` returns."""
        return self.media.num_frames

    def load_frames(self, size: tuple[int, int] | None = None, resize: ResizeSpec = STRETCH) -> torch.Tensor:
        """Decodes the media and alters the frames; arguments, result and errors are the media's.

        Black frames of a given size are made without a look at the media. The order of shuffled frames is always the
        same for the same file name, and never the right one.
        """
        if self.perturbation == "blank" and size is not None:
            import torch

            return torch.zeros(self.num_frames, 3, *size, dtype=torch.uint8)
        frames = self.media.load_frames(size, resize)
        match self.perturbation:
            case "blank":
                return frames.zero_()
            case "swap_times":
                return frames.flip(0)
            case "repeat_first":
                return frames[:1].expand_as(frames).contiguous()
            case "shuffle_frames":
                return frames[_shuffled_order(self.num_frames, self.paths[0].name)]


Media = Image | Pair | Video | PerturbedMedia


def content_key(media: Media) -> str:
    """Hashes what media show: kind, number of frames, and the files' bytes in order. Names do not count.

    Blank media show nothing of their files.

    Returns:
        SHA-256 as 64 hexadecimal digits.

    Raises:
        MediaError: a file cannot be read.
    """
    try:
        how = media.perturbation if isinstance(media, PerturbedMedia) else "as it is"
        shown = () if how == "blank" else media.paths
        parts = (media.modality, media.num_frames, how, *map(_hash_file, shown))
    except OSError as error:
        raise MediaError(
            f"{error.filename} cannot be read ({error.strerror}). Add the file, or correct the folder it is in."
        ) from error
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shuffled_order(count: int, salt: str) -> list[int]:
    """An order that is not the right one, unless there is no other."""
    order = sorted(range(count), key=lambda index: hashlib.sha256(f"{salt}/{index}".encode()).digest())
    # Turned by one, the right order is wrong.
    return order[1:] + order[:1] if order == sorted(order) else order


def _open_image(path: Path) -> PIL.Image.Image:
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


def _resize(image: PIL.Image.Image, size: tuple[int, int] | None, resize: ResizeSpec) -> np.ndarray:
    import numpy as np
    import PIL.Image
    import PIL.ImageOps

    wanted = (size[1], size[0]) if size else image.size
    if image.size != wanted:
        bicubic = PIL.Image.Resampling.BICUBIC
        match resize.mode:
            case "stretch":
                image = image.resize(wanted, bicubic)
            case "pad":
                image = PIL.ImageOps.pad(image, wanted, bicubic, color=resize.fill)
            case "center_crop":
                image = PIL.ImageOps.fit(image, wanted, bicubic)
    return np.asarray(image)


def _stack(frames: list[np.ndarray]) -> torch.Tensor:
    import numpy as np
    import torch

    height, width, channels = frames[0].shape
    stacked = np.empty((len(frames), channels, height, width), np.uint8)
    for place, frame in zip(stacked, frames, strict=True):
        place[:] = frame.transpose(2, 0, 1)
    return torch.from_numpy(stacked)
