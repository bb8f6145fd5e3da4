"""Contact sheets: PNGs of samples with questions, answers, references and scores."""

import io
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from unirs.errors import DataError
from unirs.metrics.base import Prediction
from unirs.metrics.box_geometry import box_corners
from unirs.metrics.box_text import BoxRule, box_syntax, first_box, rotated_boxes
from unirs.tasks.media import Media, frame_labels
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample
from unirs.utils.io import write_atomically

_WIDTH, _GAP, _LINE, _COLUMNS = 320, 14, 20, 4  # pixels of a card, between cards, and of a line; cards side by side
_CHARACTERS, _MAX_LINES, _FRAMES_PER_LINE = 38, 5, 4
_PAGE, _PAPER, _BLACK, _GREY = "#eceef1", "#ffffff", "#1c2026", "#6e7580"
# A green and a red of different lightness, which differ in greyscale too.
_RIGHT, _WRONG = "#2ea05a", "#b02030"
_REFERENCE, _ANSWER = "#ffd400", "#d000c8"  # boxes


def write_sheet(
    path: Path,
    predictions: Sequence[tuple[Prediction, float]],
    find_media: Callable[[Prediction], Media],
    limit: int = 24,
) -> None:
    """Writes one card per row: frames in time order, the question without clue and markers, answer, reference, score.

    Frames of a series have their labels below.

    A bar beside the answer is green from a score of 0.5 on, else red. If the references are boxes, they and the box of
    the answer are drawn in the colors of the squares beside the texts. At most `limit` rows are shown, evenly spread.
    `find_media` is called for these.
    """
    rows = [predictions[index] for index in spread(len(predictions), limit)]
    _write(path, [_card(row, score, find_media(row)) for row, score in rows])


def write_samples(path: Path, samples: Sequence[tuple[str, PromptTemplate, Sample]]) -> None:
    """Writes one card per sample: title, the prompt template filled by the only turn, and the turn's first target."""
    cards = []
    for title, prompt, sample in samples:
        (turn,), files = sample.turns, sample.media.sources
        text = prompt(turn.prompt_fields)
        row = Prediction(turn.id, title, files, turn.category, text, turn.targets[0], turn.references)
        cards.append(_card(row, 1.0, sample.media))
    _write(path, cards)


def _write(path: Path, cards: Sequence[Image.Image]) -> None:
    if not cards:
        raise DataError(f"There are no predictions to draw in {path}. Evaluate at least one sample.")
    png = io.BytesIO()
    _grid(cards, min(_COLUMNS, len(cards)), _GAP, _PAGE).save(png, format="PNG", optimize=True)
    write_atomically(path, png.getvalue())


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` of `count` indices, evenly spread from the first to the last."""
    return [round(index) for index in np.linspace(0, count - 1, min(limit, count))]


def _card(row: Prediction, score: float, media: Media) -> Image.Image:
    syntax = box_syntax([" ".join(row.references)])
    # Boxes in pixels refer to the image's own size.
    frames = media.load_frames(None if syntax == "dior_rsvg" else (256, 256)).permute(0, 2, 3, 1).numpy()
    across = min(_FRAMES_PER_LINE, len(frames))
    side = (_WIDTH - 4 * (across - 1)) // across
    images = [ImageOps.contain(Image.fromarray(frame), (side, side)) for frame in frames]
    if syntax:
        for image, frame in zip(images, frames, strict=True):
            _draw_boxes(image, row, syntax, (frame.shape[1], frame.shape[0]))
    for index, label in enumerate(frame_labels(media)):
        images[index] = _labelled(images[index], label)
    strip = _grid(images, across, 4, _PAPER)
    others = f"  (+{len(row.references) - 1})" if len(row.references) > 1 else ""
    question = _wrap(" · ".join(filter(None, (f"{score:.2f}", row.task, row.category, row.id))), 1)
    question += [line for text in row.question.splitlines() for line in _wrap(text, 1000)][-_MAX_LINES:]
    lines = question + _wrap(f"answer: {row.text}", _MAX_LINES)
    colors = {len(question): _ANSWER, len(lines): _REFERENCE} if syntax else {}
    lines += _wrap(f"reference: {row.references[0]}{others}", _MAX_LINES)
    card = Image.new("RGB", (_WIDTH, strip.height + len(lines) * _LINE + 2 * _GAP), _PAPER)
    card.paste(strip, ((_WIDTH - strip.width) // 2, 0))
    draw, font, top = ImageDraw.Draw(card), ImageFont.load_default(size=15), strip.height + _GAP
    for index, line in enumerate(lines):
        draw.text((2 * _GAP, top + index * _LINE), line, _GREY if index < len(question) else _BLACK, font)
    for index, color in colors.items():
        draw.rectangle((_GAP - 10, top + index * _LINE + 5, _GAP - 3, top + index * _LINE + 12), color)
    bar = (_GAP, top + len(question) * _LINE, _GAP + 4, top + len(lines) * _LINE)
    draw.rectangle(bar, _RIGHT if score >= 0.5 else _WRONG)
    return card


def _labelled(image: Image.Image, label: str) -> Image.Image:
    """An image with the label's last part, a date or a number, below it."""
    text = label.rstrip(":").split(", ", 1)[-1]
    canvas = Image.new("RGB", (image.width, image.height + _LINE), _PAPER)
    canvas.paste(image)
    ImageDraw.Draw(canvas).text((2, image.height), text, _GREY, ImageFont.load_default(size=12))
    return canvas


def _draw_boxes(image: Image.Image, row: Prediction, syntax: BoxRule, size: tuple[int, int]) -> None:
    """Draws the boxes of reference and answer; `size` is that of the frame, in which boxes in pixels are."""
    draw = ImageDraw.Draw(image)
    whole = size if syntax == "dior_rsvg" else (100, 100)
    scale = [length / unit for length, unit in zip(image.size, whole, strict=True)]
    # Both are visible if they are equal.
    for text, color, width in ((" ".join(row.references), _REFERENCE, 5), (row.answer, _ANSWER, 2)):
        boxes = rotated_boxes(text) if syntax == "rotated" else [first_box(text, syntax)]
        for box in filter(None, boxes):
            corners = np.array(box_corners(box)) * scale
            # Pillow takes minutes for edges of millions of pixels.
            draw.polygon([*np.clip(corners, -image.width, 2 * image.width).ravel()], outline=color, width=width)


def _grid(images: Sequence[Image.Image], columns: int, gap: int, colour: str) -> Image.Image:
    width, height = (max(lengths) + gap for lengths in zip(*(image.size for image in images), strict=True))
    page = Image.new("RGB", (columns * width - gap, -(-len(images) // columns) * height - gap), colour)
    for index, image in enumerate(images):
        left = index % columns * width + (width - gap - image.width) // 2
        page.paste(image, (left, index // columns * height))
    return page


def _wrap(text: str, lines: int) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), _CHARACTERS, max_lines=lines, placeholder="…")
