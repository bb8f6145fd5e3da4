"""Images of samples as data URIs: frames of media, and maps of change."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unirs.errors import DataError
from unirs.tasks.inputs import as_media
from unirs.tasks.media import IMAGE_SUFFIXES, Media, Video

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image

# Width in pixels, and WebP quality, from the best; the first at which an image fits into its budget is taken.
_SIZES = ((256, 80), (224, 70), (192, 60), (160, 50), (128, 40), (96, 30))

_STRIP_FRAMES = 8


def media_of(sources: Sequence[str]) -> Media:
    """The media of a row of predictions, by the number and suffixes of its files.

    Raises:
        DataError: they are not clearly media.
    """
    files = [source for source in sources if not source.startswith("<")]
    if len(files) == len(sources) == 1:
        return as_media(files[0])
    if len(files) == len(sources) and all(Path(file).suffix.lower() in IMAGE_SUFFIXES for file in files):
        return as_media(tuple(files))
    raise DataError(f"{', '.join(sources)} cannot be shown: these are no images, pair, series or video in files.")


def thumbnails(media: Media, budget: int) -> list[str]:
    """Frames as data URIs of at most about `budget` bytes in all: one image, two, or a film strip of a video.

    Raises:
        DataError: a file is missing or does not decode.
    """
    import PIL.Image

    strip = media.modality not in ("image", "pair")
    shown = _shorter(media) if isinstance(media, Video) else media
    frames = [PIL.Image.fromarray(one.permute(1, 2, 0).numpy()) for one in shown.load_frames()]
    images = [_film_strip(frames)] if strip else frames
    for width, quality in _SIZES:
        encoded = [_encode(image, width * (4 if strip else 1), quality) for image in images]
        if sum(map(len, encoded)) <= budget:
            break
    return encoded


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
