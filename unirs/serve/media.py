"""Media of requests: data URLs, and frames that are decoded before the model needs them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Literal

import torch

from unirs.serve.errors import RequestError
from unirs.tasks.media import STRETCH, Image, Media, Modality, Pair, ResizeSpec, Video, frame_labels
from unirs.tasks.series import Series

_DATA_URL = re.compile(r"data:(image|video)/[\w.+-]{1,64};base64,", re.ASCII)


def read_data_url(url: str, content: Literal["image", "video"], param: str) -> bytes:
    """The bytes of an image or video in a data URL.

    Raises:
        RequestError: It is another URL, or the content is not in base64.
    """
    match = _DATA_URL.match(url[:128])
    if match is None or match[1] != content:
        raise RequestError(
            f"The URL begins with {url[:32]!r}. Send the {content} itself, as data:{content}/TYPE;base64,CONTENT: the "
            "service opens no files and no other URLs.",
            param=param,
        )
    try:
        return base64.b64decode(url[match.end() :].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise RequestError(f"The content of the data URL is not base64 ({error}).", param=param) from error


def make_media(
    images: Sequence[bytes],
    video: bytes | None,
    modality: Modality | None,
    *,
    dates: Sequence[str] | None = None,
    num_frames: int | None = None,
) -> Media:
    """The input of a request: by default an image, a pair of two images, a series of more, or a video.

    Raises:
        RequestError: The modality does not fit the number of images.
        MediaError: An option is out of range.
    """
    default: Modality = "image" if len(images) == 1 else "pair" if len(images) == 2 else "series"
    modality = modality or ("video" if video is not None else "series" if dates is not None else default)
    if video is not None:
        if images or modality != "video":
            raise RequestError("A video is the only media of a request.", param="messages")
    elif not _fits(len(images), modality):
        raise RequestError(f"{len(images)} images are no {modality}. Correct 'modality'.", param="modality")
    if dates is not None and modality != "series":
        raise RequestError(f"'dates' are of the images of a series, and these are a {modality}.", param="dates")
    if num_frames is not None and video is None:
        raise RequestError("'num_frames' is the number of frames of a video file.", param="num_frames")
    if modality == "video":
        return Video(list(images) if video is None else video, num_frames)
    if modality == "series":
        return Series(images, dates)
    return Pair(*images) if modality == "pair" else Image(images[0])


def _fits(num_images: int, modality: Modality) -> bool:
    exact = {"image": 1, "pair": 2}.get(modality)
    return num_images == exact if exact else num_images >= (2 if modality == "series" else 1)


class DecodedMedia:
    """Media whose frames are decoded in advance. Equal content is equal, and has one key in caches.

    Args:
        media: The input.
        size: Height and width of the frames, and `resize`, as the model's processor has them.
        resize: See `size`.
    """

    def __init__(self, media: Media, size: tuple[int, int] | None, resize: ResizeSpec) -> None:
        self.modality, self.num_frames, self.sources = media.modality, media.num_frames, media.sources
        self.frame_labels = frame_labels(media)
        self._key, self._media, self._as = media.content_key(), media, (size, resize)
        self._frames: torch.Tensor | None = None

    def decode(self) -> None:
        """Decodes the frames for the model; raises a `MediaError` if they do not decode."""
        self._frames = self._media.load_frames(*self._as)

    def load_frames(self, size: tuple[int, int] | None = None, resize: ResizeSpec = STRETCH) -> torch.Tensor:
        """See `Media.load_frames`."""
        if self._frames is not None and (size, resize) == self._as:
            return self._frames
        return self._media.load_frames(size, resize)

    def content_key(self) -> str:
        """See `Media.content_key`."""
        return self._key

    def release(self) -> None:
        """Frees the content: caches may hold this object as a key."""
        self._frames = None
        del self._media

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DecodedMedia) and other._key == self._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __reduce__(self) -> tuple[object, ...]:
        # Only the bytes of a pickle are used, as a key of frames.
        return str, (self._key,)
