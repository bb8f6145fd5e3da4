"""Contact sheets: PNGs of samples with questions and references."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from unirs.errors import DataError
from unirs.evaluation.box_outlines import box_outlines
from unirs.metrics.box_text import box_syntax
from unirs.tasks.media import frame_labels
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample
from unirs.utils.io import write_atomically

_WIDTH, _GAP, _LINE, _COLUMNS = 320, 14, 20, 4  # pixels of a card, between cards, and of a line; cards side by side
_CHARACTERS, _MAX_LINES, _FRAMES_PER_LINE = 38, 5, 4
_PAGE, _PAPER, _BLACK, _GREY = "#eceef1", "#ffffff", "#1c2026", "#6e7580"
_BOX = "#ffd400"


def write_samples(path: Path, samples: Sequence[tuple[str, PromptTemplate, Sample]]) -> None:
    """Writes one card per sample: frames in time order, the question, and the first reference of the only turn.

    The question is the prompt template, filled by the turn, below a title. Frames of a series have their labels below.
    If the references are boxes, they are drawn over the frames.

    Raises:
        DataError: there are no samples, or media do not decode.
    """
    if not samples:
        raise DataError(f"There are no samples to draw in {path}. The data are empty.")
    cards = [_card(title, prompt, sample) for title, prompt, sample in samples]
    png = io.BytesIO()
    _grid(cards, min(_COLUMNS, len(cards)), _GAP, _PAGE).save(png, format="PNG", optimize=True)
    write_atomically(path, png.getvalue())


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` of `count` indices, evenly spread from the first to the last."""
    return [round(index) for index in np.linspace(0, count - 1, min(limit, count))]


def _card(title: str, prompt: PromptTemplate, sample: Sample) -> Image.Image:
    (turn,), media = sample.turns, sample.media
    boxes = " ".join(turn.references)
    syntax = box_syntax([boxes])
    # Boxes in pixels refer to the image's own size.
    frames = media.load_frames(None if syntax == "dior_rsvg" else (256, 256)).permute(0, 2, 3, 1).numpy()
    across = min(_FRAMES_PER_LINE, len(frames))
    side = (_WIDTH - 4 * (across - 1)) // across
    images = [ImageOps.contain(Image.fromarray(frame), (side, side)) for frame in frames]
    outlines = [] if syntax is None else box_outlines(boxes, syntax, (frames.shape[2], frames.shape[1]))
    for image in images:
        for corners in outlines:
            ImageDraw.Draw(image).polygon([*(np.array(corners) * image.size).ravel()], outline=_BOX, width=3)
    for index, label in enumerate(frame_labels(media)):
        images[index] = _labelled(images[index], label)
    strip = _grid(images, across, 4, _PAPER)
    others = f"  (+{len(turn.references) - 1})" if len(turn.references) > 1 else ""
    question = _wrap(" · ".join(filter(None, (title, turn.category, turn.id))), 1)
    text = prompt(turn.prompt_fields)
    question += [line for part in text.splitlines() for line in _wrap(part, 1000)][-_MAX_LINES:]
    lines = question + _wrap(f"reference: {turn.references[0]}{others}", _MAX_LINES)
    card = Image.new("RGB", (_WIDTH, strip.height + len(lines) * _LINE + 2 * _GAP), _PAPER)
    card.paste(strip, ((_WIDTH - strip.width) // 2, 0))
    draw, font, top = ImageDraw.Draw(card), ImageFont.load_default(size=15), strip.height + _GAP
    for index, line in enumerate(lines):
        draw.text((_GAP, top + index * _LINE), line, _GREY if index < len(question) else _BLACK, font)
    return card


def _labelled(image: Image.Image, label: str) -> Image.Image:
    """An image with the label's last part, a date or a number, below it."""
    text = label.rstrip(":").split(", ", 1)[-1]
    canvas = Image.new("RGB", (image.width, image.height + _LINE), _PAPER)
    canvas.paste(image)
    ImageDraw.Draw(canvas).text((2, image.height), text, _GREY, ImageFont.load_default(size=12))
    return canvas


def _grid(images: Sequence[Image.Image], columns: int, gap: int, colour: str) -> Image.Image:
    width, height = (max(lengths) + gap for lengths in zip(*(image.size for image in images), strict=True))
    page = Image.new("RGB", (columns * width - gap, -(-len(images) // columns) * height - gap), colour)
    for index, image in enumerate(images):
        left = index % columns * width + (width - gap - image.width) // 2
        page.paste(image, (left, index // columns * height))
    return page


def _wrap(text: str, lines: int) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), _CHARACTERS, max_lines=lines, placeholder="…")
