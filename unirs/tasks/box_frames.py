"""Which part of an image a resized frame shows, for boxes that refer to the image."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

from unirs.metrics.box_frame import BoxFrame, Window
from unirs.tasks.media import Media, ResizeSpec
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.resize_window import resize_window
from unirs.tasks.sample import Sample


def frame_size(media: Media) -> tuple[int, int]:
    """Width and height of the frames of media in pixels.

    Raises:
        MediaError: the media do not decode.
    """
    return _frame_size(cast("Any", media))


@lru_cache(maxsize=100_000)
def _frame_size(media: Any) -> tuple[int, int]:  # noqa: ANN401 - media, which are hashable
    """Width and height of the frames of media in pixels, which are decoded for it."""
    height, width = media.load_frames().shape[-2:]
    return width, height


def size_fields(prompt: PromptTemplate, media: Media) -> dict[str, str]:
    """Fields of a prompt that states boxes in pixels: width and height; empty for others."""
    if prompt.boxes != "pixels":
        return {}
    width, height = frame_size(media)
    return {"width": str(width), "height": str(height)}


def box_frame(
    prompt: PromptTemplate, media: Media, size: tuple[int, int] | None, resize: ResizeSpec
) -> BoxFrame | None:
    """How boxes of a task's texts relate to the encoder's frames, `size` in height and width.

    None if they are equal: without boxes, and for stretched frames, since the model is given the image's size.

    Raises:
        MediaError: the media do not decode.
    """
    if prompt.boxes is None or size is None or resize.mode == "stretch":
        return None
    width, height = frame_size(media)
    window = resize_window((width, height), (size[1], size[0]), resize.mode)
    image = Window(0, 0, width, height)
    return None if window == image else BoxFrame(prompt.boxes, image, window)


def to_frame(sample: Sample, frame: BoxFrame) -> Sample:
    """The sample with training answers and sizes of the frame; references remain those of the image."""
    sizes = {"width": f"{frame.window.width:.0f}", "height": f"{frame.window.height:.0f}"}
    turns = [
        replace(
            turn,
            prompt_fields={**turn.prompt_fields, **sizes},
            train_answers=tuple(frame.to_frame(answer) for answer in turn.targets),
        )
        for turn in sample.turns
    ]
    return replace(sample, turns=tuple(turns))
