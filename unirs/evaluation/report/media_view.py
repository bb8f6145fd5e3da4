"""Media as a page shows them: images as data URIs, maps of change, and outlines of boxes."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unirs.errors import DataError
from unirs.evaluation.box_outlines import box_outlines
from unirs.metrics.box_text import BoxRule
from unirs.tasks.inputs import as_media, with_raster
from unirs.tasks.media import IMAGE_SUFFIXES, Media, Video, frame_labels
from unirs.tasks.raster import Raster

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    from jinja2 import Environment

# Width in pixels, and WebP quality, from the best; the first at which an image fits into its budget is taken.
_SIZES = ((256, 80), (224, 70), (192, 60), (160, 50), (128, 40), (96, 30))

_STRIP_FRAMES = 8

_WINDOW = re.compile(r"(.*) \[(\d+), (\d+), (\d+), (\d+)\]", flags=re.DOTALL)


class Outline(NamedTuple):
    """A box over an image: whose it is, such as `answer`, and the points of an SVG polygon in percent of the image."""

    label: str
    points: str


@dataclass
class MediaView:
    """Media as `media.html.jinja` shows them.

    Attributes:
        modality: of the media; empty if they cannot be shown.
        images: data URIs: one image, two, or one film strip.
        labels: texts of the frames of a series.
        size: width and height of a frame in pixels.
        change: data URI of the map of change; empty if there is none.
        boxes: outlines over the image.
        missing: why there are no images.
    """

    modality: str = ""
    images: Sequence[str] = ()
    labels: Sequence[str] = ()
    size: tuple[int, int] = (1, 1)
    change: str = ""
    boxes: list[Outline] = field(default_factory=list)
    missing: str = ""

    @property
    def box_labels(self) -> list[str]:
        """The labels of boxes, each once, for a legend."""
        return list(dict.fromkeys(box.label for box in self.boxes))

    def add_boxes(self, texts: Mapping[str, str], rule: BoxRule) -> None:
        """Adds the boxes of texts by label, such as `answer`."""
        if self.modality in ("image", "pair"):
            for label, text in texts.items():
                for corners in box_outlines(text, rule, self.size):
                    points = " ".join(f"{100 * x:.2f},{100 * y:.2f}" for x, y in corners)
                    self.boxes.append(Outline(label, points))


def media_of(sources: Sequence[str], raster: Raster | None = None) -> Media:
    """The media of a row of predictions, by the number and suffixes of its files.

    Args:
        sources: paths, for a part of a GeoTIFF with its window, as `Media.sources` has them.
        raster: the options of GeoTIFF files.

    Raises:
        DataError: they are not clearly media.
    """
    files = [source for source in sources if not source.startswith("<")]
    if raster is not None:
        windows = [match for match in map(_WINDOW.fullmatch, files) if match]
        if windows:
            left, top, width, height = map(int, windows[0].groups()[1:])
            raster = replace(raster, window=(left, top, width, height))
        files = [_WINDOW.sub(r"\1", file) for file in files]
    if len(files) == len(sources) == 1:
        media = as_media(files[0])
    elif len(files) == len(sources) and all(Path(file).suffix.lower() in IMAGE_SUFFIXES for file in files):
        media = as_media(tuple(files))
    else:
        raise DataError(f"{', '.join(sources)} cannot be shown: these are no images, pair, series or video in files.")
    return media if raster is None else with_raster(media, raster)


def view_media(media: Media, budget: int, scale: int = 1) -> MediaView:
    """Frames of at most about `budget` bytes in all; `scale` times as wide as in a report.

    Raises:
        DataError: a file is missing or does not decode.
    """
    import PIL.Image

    strip = media.modality not in ("image", "pair")
    shown = _shorter(media) if isinstance(media, Video) else media
    frames = [PIL.Image.fromarray(one.permute(1, 2, 0).numpy()) for one in shown.load_frames()]
    images = [_film_strip(frames)] if strip else frames
    for width, quality in _SIZES:
        encoded = [_encode(image, scale * width * (4 if strip else 1), quality) for image in images]
        if sum(map(len, encoded)) <= budget:
            break
    return MediaView(media.modality, encoded, frame_labels(media), frames[0].size)


@cache
def templates() -> Environment:
    """The templates of pages."""
    from jinja2 import Environment, PackageLoader

    loader = PackageLoader("unirs.evaluation.report")
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def media_html(view: MediaView, name: str) -> str:
    """A view as HTML with a switch for its map of change; `name` is for screen readers."""
    macros: Any = templates().get_template("media.html.jinja").module
    return f'<div class="unirs">{macros.media(view, name, True)}</div>'


def change_thumbnail(similarity: np.ndarray, largest: float) -> str:
    """A map of change as a data URI of a PNG: the less similar the two times, the more opaque.

    Args:
        similarity: `[h, w]`, -1..1.
        largest: the largest change, 1 - similarity, of all maps of the report.
    """
    import matplotlib as mpl
    import numpy as np
    import PIL.Image

    change = np.clip((1 - similarity) / max(largest, 1e-6), 0, 1)
    pixels = mpl.colormaps["inferno"](change)
    pixels[..., 3] = 0.85 * change
    buffer = io.BytesIO()
    PIL.Image.fromarray((255 * pixels).astype(np.uint8)).save(buffer, format="PNG", optimize=True)
    return _uri("png", buffer.getvalue())


def _shorter(video: Video) -> Video:
    """A video that is not in files keeps its frames; a file is shown by `_STRIP_FRAMES`, or fewer if it is shorter."""
    if isinstance(video.source, tuple):
        return video
    return Video(video.source, min(video.num_frames, _STRIP_FRAMES), reader=video.reader)  # type: ignore[arg-type]


def _film_strip(frames: Sequence[PIL.Image.Image]) -> PIL.Image.Image:
    import PIL.Image

    height = min(frame.height for frame in frames)
    frames = [frame.resize((round(frame.width * height / frame.height), height)) for frame in frames]
    strip = PIL.Image.new("RGB", (sum(frame.width for frame in frames), height))
    left = 0
    for frame in frames:
        strip.paste(frame, (left, 0))
        left += frame.width
    return strip


def _encode(image: PIL.Image.Image, width: int, quality: int) -> str:
    small = image.copy()
    small.thumbnail((width, 8 * width))
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=quality)
    return _uri("webp", buffer.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
