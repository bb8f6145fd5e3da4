"""Boxes refer to the image, and what the model reads and writes to the frame that its encoder gets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.data.collator import Collator
from unirs.data.dataset import Example, VisualInput
from unirs.data.processor import Processor
from unirs.data.token_tree import IGNORE
from unirs.errors import DataError, PluginError
from unirs.metrics.base import Prediction
from unirs.metrics.box_frame import BoxFrame, Window
from unirs.metrics.box_text import BoxScale
from unirs.metrics.boxes import Boxes
from unirs.tasks.box_frames import box_frame
from unirs.tasks.media import Image, Media, ResizeMode, ResizeSpec
from unirs.tasks.perturbation import PerturbedMedia
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.resize_window import resize_window
from unirs.tasks.sample import Sample, Turn

PERCENT = PromptTemplate("refer", "Where? Answer with {box_format}.", boxes="percent")
PIXELS = PromptTemplate("refer", "Where? Answer with {box_format}.", boxes="pixels")
SIZE = (64, 64)


def image(path: Path, width: int, height: int, box: tuple[int, int, int, int]) -> Media:
    """A black image with a white box, from its first to before its second corner."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    PIL.Image.fromarray(pixels).save(path)
    return Image(path)


def frame_of(media: Media, mode: ResizeMode, prompt: PromptTemplate = PERCENT) -> BoxFrame | None:
    return box_frame(prompt, media, SIZE, ResizeSpec(mode))


# The white box of these images in their own coordinates, and in those of the frame.
CASES = [
    # Twice as wide as high: 25 rows of padding above and below, so that 20 % of 50 rows are 35 % of 100.
    ("pad", (100, 50), (20, 10, 40, 30), "{<20><20><40><60>}", "{<20><35><40><55>}", "[20, 35, 40, 55]"),
    # Twice as high as wide.
    ("pad", (50, 100), (10, 20, 30, 40), "{<20><20><60><40>}", "{<35><20><55><40>}", "[35, 20, 55, 40]"),
    # The middle square of the wide image starts at its column 25.
    ("center_crop", (100, 50), (30, 10, 60, 30), "{<30><20><60><60>}", "{<10><20><70><60>}", "[5, 10, 35, 30]"),
]


@pytest.mark.parametrize(("mode", "size", "box", "text", "in_frame", "pixels_in_frame"), CASES)
def test_a_box_maps_exactly(
    mode: ResizeMode,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    text: str,
    in_frame: str,
    pixels_in_frame: str,
    tmp_path: Path,
) -> None:
    media = image(tmp_path / "a.png", *size, box)
    frame = frame_of(media, mode)
    assert frame is not None
    assert (frame.to_frame(text), frame.to_image(in_frame)) == (in_frame, text)
    in_pixels = frame_of(media, mode, PIXELS)
    assert in_pixels is not None
    own = str(list(box))
    assert (in_pixels.to_frame(own), in_pixels.to_image(pixels_in_frame)) == (pixels_in_frame, own)
    # The white pixels of the encoder's frame are there.
    side = 100
    frames = media.load_frames((side, side), ResizeSpec(mode))[0, 0].numpy() > 127
    rows, columns = np.flatnonzero(frames.any(axis=1)), np.flatnonzero(frames.any(axis=0))
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    numbers = [int(number) for number in in_frame.strip("{<>}").split("><")]
    assert found == pytest.approx(numbers, abs=1 if mode == "center_crop" else 0)


def test_equal_frames_need_no_conversion(tmp_path: Path) -> None:
    wide = image(tmp_path / "a.png", 100, 50, (0, 0, 1, 1))
    square = image(tmp_path / "b.png", 50, 50, (0, 0, 1, 1))
    assert frame_of(wide, "stretch") is None
    assert frame_of(square, "pad") is None
    assert box_frame(PromptTemplate("vqa", "Where?"), wide, SIZE, ResizeSpec("pad")) is None
    # A model whose processor resizes on its own.
    assert box_frame(PERCENT, wide, None, ResizeSpec("pad")) is None
    assert frame_of(PerturbedMedia(wide, "blank"), "pad") == frame_of(wide, "pad")


def test_boxes_are_clipped(tmp_path: Path) -> None:
    wide = image(tmp_path / "a.png", 100, 50, (0, 0, 1, 1))
    crop, pad = frame_of(wide, "center_crop"), frame_of(wide, "pad")
    assert crop is not None
    assert pad is not None
    assert crop.to_frame("{<0><0><50><100>}") == "{<0><0><50><100>}"
    assert crop.to_frame("{<0><0><10><100>}") == "{<0><0><0><100>}"
    # An answer that reaches into the padding.
    assert pad.to_image("{<0><0><50><100>}") == "{<0><0><50><100>}"
    assert pad.to_image("{<0><900><50><100>}") == "{<0><100><50><100>}"


@pytest.mark.parametrize("text", ["", "no", "at 1, 2 and 3", "{<1><2><3>}"])
def test_texts_without_a_box_are_unchanged(text: str) -> None:
    frame = BoxFrame("percent", Window(0, 0, 100, 50), Window(0, -25, 100, 100))
    assert frame.to_frame(text) == frame.to_image(text) == text


def test_the_box_that_is_scored_is_converted() -> None:
    frame = BoxFrame("percent", Window(0, 0, 100, 50), Window(0, -25, 100, 100))
    assert frame.to_image("From (10, 35) to (20, 55), of 3 ships") == "From (10, 20) to (20, 60), of 3 ships"
    assert frame.to_image(f"{'9' * 5000} 35 1 1") == "100 20 1 0"


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    target=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    scale=st.sampled_from(["percent", "pixels"]),
    data=st.data(),
)
def test_padding_and_back(size: tuple[int, int], target: tuple[int, int], scale: BoxScale, data: st.DataObject) -> None:
    window = resize_window(size, target, "pad")
    assert window.left <= 0
    assert window.left + window.width >= size[0]
    assert window.top + window.height >= size[1]
    frame = BoxFrame(scale, Window(0, 0, *size), window)
    limits = (100, 100) if scale == "percent" else size
    numbers = [data.draw(st.integers(0, limits[axis % 2])) for axis in range(4)]
    text = "{" + "".join(f"<{number}>" for number in numbers) + "}" if scale == "percent" else str(numbers)
    back = frame.to_image(frame.to_frame(text))
    if scale == "pixels":
        assert back == text
    else:
        found = [int(number) for number in back.strip("{<>}").split("><")]
        for axis, (number, other) in enumerate(zip(numbers, found, strict=True)):
            # Half a step of the frame, and half of one of the image.
            assert abs(number - other) <= 0.5 * window[2 + axis % 2] / size[axis % 2] + 0.5 + 1e-9


# Prompts.


def test_the_prompt_states_the_scale() -> None:
    assert PERCENT({}) == "[refer] Where? Answer with {<x1><y1><x2><y2>} in percent of the image's width and height."
    assert PIXELS({"width": "8", "height": "6"}) == (
        "[refer] Where? Answer with [x1, y1, x2, y2] in pixels of the image, which has 8x6."
    )
    with pytest.raises(DataError, match="names the field 'width'"):
        PIXELS({})
    with pytest.raises(PluginError, match=r"boxes in pixels must contain '\{box_format\}'"):
        PromptTemplate("refer", "Where?", boxes="pixels")


def batches(tokenizer: PreTrainedTokenizerBase, prompt: PromptTemplate, media: Media, box: str) -> tuple[Any, Any]:
    """A training and an evaluation batch of one question on padded frames."""
    processor = Processor(tokenizer, SIZE, ResizeSpec("pad"), (4, 8), 2, fuse_pairs=True)
    sample = Sample("a", media, (Turn("a", (box,), {"width": "100", "height": "50"}),))
    frames = media.load_frames(SIZE, ResizeSpec("pad"))
    items = [(Example("t", sample), VisualInput(frames))]
    return tuple(Collator(processor, training=training, prompts={"t": prompt})(items) for training in (True, False))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("prompt", "box", "in_frame"),
    [(PERCENT, "{<20><20><40><60>}", "{<20><35><40><55>}"), (PIXELS, "[20, 10, 40, 30]", "[20, 35, 40, 55]")],
)
def test_training_and_evaluation_on_padded_frames(
    tokenizer: PreTrainedTokenizerBase, prompt: PromptTemplate, box: str, in_frame: str, tmp_path: Path
) -> None:
    media = image(tmp_path / "a.png", 100, 50, (20, 10, 40, 30))
    training, evaluation = batches(tokenizer, prompt, media, box)
    labels = training.labels[training.labels != IGNORE]
    # Token ids of this tokenizer are ASCII codes, and 128 at the end.
    assert "".join(map(chr, labels[:-1].tolist())) == in_frame
    (query,) = evaluation.queries
    assert query.references == (box,)
    assert ("100x100" in query.prompt) == (prompt is PIXELS)
    row = query.with_answer(in_frame)
    assert (row.text, row.box_frame) == (box, None)
    assert Boxes().evaluate([row]).scores == [1.0]
    assert Prediction.from_json(row.to_json()) == row
    assert "box_frame" not in json.loads(row.to_json())
