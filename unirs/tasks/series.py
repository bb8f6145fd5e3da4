"""Series: dated images of one scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

from unirs.errors import MediaError
from unirs.tasks.image_source import ImageLike, Source, as_array, as_source, stack_images
from unirs.tasks.media import STRETCH, ResizeSpec, SourceMedia
from unirs.tasks.raster import Raster, RasterArgs

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, init=False)
class Series(SourceMedia):
    """Images of one scene at two or more times, in time order.

    No frames are fused: each image has its own visual tokens, after a text with its number and date. With a model that
    has no change extractor, a pair differs from a series of two in these texts alone.

    The images may differ in size, since each is resized to that of the encoder; `load_frames` without a size resizes
    them to the size of the first one.

    Args:
        images: Two or more of what `Image` takes.
        dates: A text for each image, such as `2016-05`; none if they are unknown. It is a part of the prompt.
        raster: Options of GeoTIFF files, see `Image`.

    Raises:
        MediaError: There are fewer than two images or not as many dates, a date is not a text on one line, or pixels in
            memory are not clearly an image.
    """

    images: tuple[Source, ...]
    dates: tuple[str, ...]
    num_frames: int
    raster: Raster | None
    modality = "series"

    def __init__(
        self, images: Sequence[ImageLike], dates: Sequence[str] | None = None, **raster: Unpack[RasterArgs]
    ) -> None:
        if as_array(images) is not None or not isinstance(images, Sequence) or isinstance(images, str | bytes):
            raise MediaError(f"A series is a list of images, not a {type(images).__name__}. Pass Series([...]).")
        if len(images) < 2:
            raise MediaError(f"A series has two or more images, got {len(images)}. Pass Image(...) for one.")
        dates = () if dates is None else dates
        if isinstance(dates, str) or not isinstance(dates, Sequence) or (dates and len(dates) != len(images)):
            raise MediaError(f"The {len(images)} images of a series have the dates {dates!r}. Pass one for each image.")
        for date in dates:
            if not isinstance(date, str) or not date.strip() or not date.isprintable():
                raise MediaError(f"A date in a series is a text on one line such as '2016-05', not {date!r}.")
        object.__setattr__(self, "images", tuple(map(as_source, images)))
        object.__setattr__(self, "dates", tuple(dates))
        object.__setattr__(self, "num_frames", len(images))
        object.__setattr__(self, "raster", Raster.from_args(raster))

    @property
    def _sources(self) -> tuple[Source, ...]:
        return self.images

    @property
    def frame_labels(self) -> tuple[str, ...]:
        """See `LabelsFrames.frame_labels`."""
        dates = [f", {date}" for date in self.dates] or [""] * self.num_frames
        return tuple(f"Image {number}{date}:" for number, date in enumerate(dates, 1))

    def _decoding(self) -> tuple[str, ...]:
        # Clues depend on the dates, too.
        return (*SourceMedia._decoding(self), *self.dates)

    def load_frames(self, size: tuple[int, int] | None = None, resize: ResizeSpec = STRETCH) -> torch.Tensor:
        """See `Media.load_frames`."""
        images = self._open(resize.fill)
        size = size or (images[0].height, images[0].width)
        return stack_images(self._resize(images, size, resize))
