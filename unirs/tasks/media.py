"""The visual input of a sample: an image, a pair of images, a video, or a series of dated images.

The modality is a type and never inferred from the number of frames. Media hold their sources: paths, or content in
memory. Frames are decoded when they are loaded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, Unpack, get_args, runtime_checkable

from unirs.errors import MediaError, did_you_mean
from unirs.tasks.image_source import (
    ImageLike,
    Source,
    as_array,
    as_source,
    digest,
    open_image,
    resize_image,
    stack_images,
)
from unirs.tasks.raster import Raster, RasterArgs, open_rasters
from unirs.tasks.tiling import cut_tiles
from unirs.tasks.video_reader import DEFAULT_READER, FrameSampling, describe_reader, read_frames, sample_frames
from unirs.utils.hashing import hash_parts

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    import torch


Modality = Literal["image", "pair", "video", "series"]

ResizeMode = Literal["stretch", "pad", "center_crop"]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Lower-case suffixes of image files."""

VIDEO_SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4", ".webm"})
"""Lower-case suffixes of video files."""


@dataclass(frozen=True, slots=True)
class ResizeSpec:
    """How images of another shape are resized to the encoder's image size.

    Attributes:
        mode: `stretch` ignores the aspect ratio; `pad` keeps it and pads around the image (the paper's pad-to-square);
            `center_crop` keeps it and crops both ends of the longer side.
        fill: Red, green and blue, 0..255, of the padding; pretrained encoders expect their mean color.
        max_tiles: Maximum number of tiles of a single image that is larger; they follow it as further frames.
    """

    mode: ResizeMode = "stretch"
    fill: tuple[int, int, int] = (0, 0, 0)
    max_tiles: int = 0


STRETCH = ResizeSpec()


@runtime_checkable
class Media(Protocol):
    """A visual input. `Image`, `Pair`, `Video` and `Series` are media; a plugin may define its own.

    Media are hashable and picklable, equal media have equal frames, and what pickles to the same bytes has the same
    frames: these are the keys of clues and of decoded frames in memory.
    """

    @property
    def modality(self) -> Modality:
        """`"image"`, `"pair"`, `"video"` or `"series"`: how the model encodes the frames."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Paths of the files, or descriptions of content in memory as `<…>`, in order: written to predictions."""

    @property
    def num_frames(self) -> int:
        """Number of frames that `load_frames` returns, without tiles."""

    def load_frames(self, size: tuple[int, int] | None = None, resize: ResizeSpec = STRETCH) -> torch.Tensor:
        """Decodes the frames.

        Args:
            size: Height and width in pixels of the result; None for the frames' own.
            resize: How frames of another shape are resized.

        Returns:
            uint8 `[num_frames, 3, H, W]`, RGB, in time order. With `resize.max_tiles`, tiles may follow an image.

        Raises:
            MediaError: a file is missing or does not decode, or the frames do not fit together.
        """
        ...

    def content_key(self) -> str:
        """SHA-256 of the modality and the content of the frames, without file names: the key of features and clues.

        Raises:
            MediaError: a file cannot be read.
        """
        ...


class SourceMedia:
    """Common base of media whose frames are in files or in memory.

    With a `raster`, the files are GeoTIFF.
    """

    __slots__ = ()
    modality: Modality
    num_frames: int
    raster: Raster | None

    @property
    def _sources(self) -> tuple[Source, ...]:
        raise NotImplementedError

    @property
    def sources(self) -> tuple[str, ...]:
        """See `Media.sources`."""
        window = self.raster and self.raster.window
        return tuple(f"{source} {list(window)}" if window else str(source) for source in self._sources)

    def with_raster(self, raster: Raster) -> Self:
        """The same media with these options, unless they have some."""
        if self.raster is not None:
            return self
        changed = copy(self)
        object.__setattr__(changed, "raster", raster)
        return changed

    def load_frames(self, size: tuple[int, int] | None = None, resize: ResizeSpec = STRETCH) -> torch.Tensor:
        """See `Media.load_frames`."""
        images = self._open(resize.fill)
        for source, image in zip(self.sources, images, strict=False):
            if image.size != images[0].size:
                raise MediaError(
                    f"The images of a {self.modality} differ in size: {self.sources[0]} is {images[0].width}x"
                    f"{images[0].height}, {source} is {image.width}x{image.height}. Crop or resample them to one grid."
                )
        frames = self._resize(images, size, resize)
        if self.modality == "image" and size is not None:
            frames += cut_tiles(images[0], size, resize.max_tiles, resize.mode, resize.fill)
        return stack_images(frames)

    def _resize(
        self, images: Sequence[PIL.Image.Image], size: tuple[int, int] | None, resize: ResizeSpec
    ) -> list[PIL.Image.Image]:
        try:
            return [resize_image(image, size, resize.mode, resize.fill) for image in images]
        except MediaError as error:
            raise MediaError(f"{', '.join(self.sources)}: {error}") from error

    def _open(self, fill: tuple[int, int, int]) -> list[PIL.Image.Image]:
        if self.raster is not None:
            return open_rasters(self._sources, self.raster, fill)
        return [open_image(source) for source in self._sources]

    def content_key(self) -> str:
        """See `Media.content_key`."""
        return hash_parts(self.modality, self.num_frames, *self._decoding(), *map(digest, self._sources))

    def _decoding(self) -> tuple[str, ...]:
        """What the pixels depend on besides the sources."""
        # Features of images that were not turned by EXIF are not those of today.
        return ("oriented",) if self.raster is None else ("oriented", repr(self.raster))


@dataclass(frozen=True, slots=True, init=False)
class Image(SourceMedia):
    """One image.

    Args:
        image: A path, the bytes of a file, a PIL image, or an array or tensor of pixels, see `ImageLike`. Anything
            that Pillow converts to RGB and that has 8 bits per channel.
        raster: `bands`, `stretch`, `value_range` and `window` of a GeoTIFF, see `Raster`; none to read it with Pillow.

    Raises:
        MediaError: pixels in memory are not clearly an image, or an option of `raster` is out of range.
    """

    source: Source
    raster: Raster | None
    modality = "image"
    num_frames = 1

    def __init__(self, image: ImageLike, **raster: Unpack[RasterArgs]) -> None:
        object.__setattr__(self, "source", as_source(image))
        object.__setattr__(self, "raster", Raster.from_args(raster))

    @property
    def _sources(self) -> tuple[Source, ...]:
        return (self.source,)


@dataclass(frozen=True, slots=True, init=False)
class Pair(SourceMedia):
    """Two images of one scene at two times, of equal size.

    Arguments and errors are those of `Image`.
    """

    before: Source
    after: Source
    raster: Raster | None
    modality = "pair"
    num_frames = 2

    def __init__(self, before: ImageLike, after: ImageLike, **raster: Unpack[RasterArgs]) -> None:
        object.__setattr__(self, "raster", Raster.from_args(raster))
        object.__setattr__(self, "before", as_source(before))
        object.__setattr__(self, "after", as_source(after))

    @property
    def _sources(self) -> tuple[Source, ...]:
        return (self.before, self.after)


@dataclass(frozen=True, slots=True, init=False)
class Video(SourceMedia):
    """Frames of a video.

    Args:
        video: A path, the bytes of a video file, or the frames in time order: a sequence of what `Image` takes, or an
            array or tensor with one more axis, `[T, H, W, C]` or `[T, C, H, W]`.
        num_frames: Number of frames that the model gets; None for 8 of a file, or for all given frames.
        reader: Plugin of the group `unirs.video_readers` that decodes a file; None for `data.video_reader`, which is
            `pyav` by default.
        frame_sampling: Which frames: see `unirs.tasks.video_reader.sample_frames`.
        raster: Options of frames that are GeoTIFF files, see `Image`.

    Raises:
        MediaError: fewer frames are given than `num_frames`, or frames are not clearly images.
    """

    source: Source | tuple[Source, ...]
    num_frames: int
    reader: str | None
    frame_sampling: FrameSampling
    raster: Raster | None
    modality = "video"

    def __init__(
        self,
        video: str | os.PathLike[str] | bytes | Sequence[ImageLike] | np.ndarray | torch.Tensor,
        num_frames: int | None = None,
        *,
        reader: str | None = None,
        frame_sampling: FrameSampling = "uniform",
        **raster: Unpack[RasterArgs],
    ) -> None:
        array = as_array(video)
        if array is not None and array.ndim != 4:
            raise MediaError(f"Frames of a video have 4 axes, [T, H, W, C] or [T, C, H, W]: got {list(array.shape)}.")
        frames: Sequence[Any] | None = None
        if array is not None:
            frames = list(array)
        elif isinstance(video, Sequence) and not isinstance(video, str | bytes | bytearray | memoryview):
            frames = video
        if num_frames is None:
            num_frames = 8 if frames is None else len(frames)
        if type(num_frames) is not int or num_frames < 1:
            raise MediaError(f"A video cannot have {num_frames!r} frames. Set 1 or more.")
        if frame_sampling not in get_args(FrameSampling):
            remedy = did_you_mean(str(frame_sampling), get_args(FrameSampling))
            raise MediaError(f"There is no frame_sampling {frame_sampling!r}. {remedy}")
        if frames is None:
            source: Source | tuple[Source, ...] = as_source(video)  # type: ignore[arg-type]
        elif len(frames) < num_frames:
            raise MediaError(f"{len(frames)} frames are given, {num_frames} are needed. Lower num_frames.")
        else:
            source = tuple(as_source(frames[index]) for index in sample_frames(len(frames), num_frames, frame_sampling))
            # The frames are decoded and chosen: neither option has an effect any more.
            reader, frame_sampling = None, "uniform"
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "num_frames", num_frames)
        object.__setattr__(self, "reader", reader)
        object.__setattr__(self, "frame_sampling", frame_sampling)
        object.__setattr__(self, "raster", Raster.from_args(raster))

    def with_reader(self, reader: str) -> Video:
        """See `DecodesVideo.with_reader`."""
        if self.reader is not None or isinstance(self.source, tuple):
            return self
        return Video(self.source, self.num_frames, reader=reader, frame_sampling=self.frame_sampling)  # type: ignore[arg-type]

    @property
    def _sources(self) -> tuple[Source, ...]:
        return self.source if isinstance(self.source, tuple) else (self.source,)

    def _decoding(self) -> tuple[str, ...]:
        if isinstance(self.source, tuple):
            return SourceMedia._decoding(self)
        return ("oriented", self.frame_sampling, describe_reader(self.reader or DEFAULT_READER))

    def _open(self, fill: tuple[int, int, int]) -> list[PIL.Image.Image]:
        import PIL.Image

        if isinstance(self.source, tuple):
            return SourceMedia._open(self, fill)
        if self.raster is not None:
            raise MediaError(f"Options of a raster do not apply to the video file {self.source}. Omit them.")
        frames = read_frames(self.source, self.num_frames, self.frame_sampling, self.reader or DEFAULT_READER)
        return [PIL.Image.fromarray(frame) for frame in frames]


@runtime_checkable
class DecodesVideo(Protocol):
    """Media that decode a video file, with a reader that a run can choose (`data.video_reader`)."""

    def with_reader(self, reader: str) -> Media:
        """The same media with a reader, unless they have one."""
        ...


@runtime_checkable
class LabelsFrames(Protocol):
    """Media with a text before the visual tokens of each frame."""

    @property
    def frame_labels(self) -> tuple[str, ...]:
        """`num_frames` texts, such as `Image 1, 2016-05:`; none for frames without a text."""
        ...


def frame_labels(media: Media) -> tuple[str, ...]:
    """The text before the visual tokens of each frame; empty if there are none."""
    return media.frame_labels if isinstance(media, LabelsFrames) else ()


def with_reader(media: Media, reader: str) -> Media:
    """Sets the reader of media that decode a video; others are returned as they are."""
    return media.with_reader(reader) if isinstance(media, DecodesVideo) else media


def media_files(media: Media) -> list[str]:
    """Paths of the files of media; content in memory has none."""
    if isinstance(media, SourceMedia):
        return [str(source) for source in media._sources if isinstance(source, Path)]
    # Descriptions of content in memory are in angle brackets.
    return [source for source in media.sources if not source.startswith("<")]
