"""A contact sheet of samples with questions, answers, references and scores."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unirs.errors import DataError
from unirs.metrics.base import Prediction
from unirs.tasks.media import Media
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample
from unirs.tasks.task import Task
from unirs.utils.io import write_atomically

if TYPE_CHECKING:
    import torch

_WIDTH, _GAP, _LINE = 320, 14, 20  # pixels of a card, between items, and of a text line
_CHARACTERS, _MAX_LINES, _FRAMES_PER_LINE = 38, 5, 4
_PAGE, _PAPER, _BLACK, _GREY = "#eceef1", "#ffffff", "#1c2026", "#6e7580"
# A green and a red of different lightness, which differ in greyscale too.
_RIGHT, _WRONG = "#2ea05a", "#b02030"


def write_sheet(
    path: Path,
    predictions: Sequence[tuple[Prediction, float]],
    frames: Callable[[Prediction], Sequence[np.ndarray] | torch.Tensor],
    columns: int = 4,
    limit: int = 24,
) -> None:
    """Writes a PNG with one card per row: frames, question, answer, reference and score.

    Up to four frames are side by side, in time order. The question is the end of the prompt, without clue and `<...>`
    markers. The bar beside the answer is green from a score of 0.5 on, else red. Equal input gives equal pixels.

    Args:
        path: the PNG; its folder is created.
        predictions: rows and their scores; at least one.
        frames: loads a row's frames, uint8 `[k, 3, H, W]` or k arrays `[3, H, W]`; called for shown rows only.
        columns: cards side by side.
        limit: the most rows to show, evenly spread over all.

    Raises:
        DataError: there are no predictions.
        MediaError: as raised by `frames`.
    """
    if not predictions:
        raise DataError(f"There are no predictions to draw in {path}. Evaluate at least one sample.")
    cards = [_card(row, score, frames(row)) for row, score in _spread(predictions, limit)]
    page = _grid(cards, min(columns, len(cards)), _WIDTH, _GAP, _PAGE)
    png = io.BytesIO()
    page.save(png, format="PNG", optimize=True)
    write_atomically(path, png.getvalue())


def write_samples(path: Path, tasks: Mapping[str, Task], count: int = 8) -> None:
    """Writes a sheet of test samples with a question and the answer to learn.

    Args:
        path: the PNG.
        tasks: by name.
        count: samples of each, spread over the split.

    Raises:
        DataError: a file or row of the data is wrong.
    """
    cards: list[tuple[str, PromptTemplate, Sample]] = []
    for name, task in tasks.items():
        samples = task.load_split("test")
        for index in _spread(range(len(samples)), count):
            # Samples often have the same questions in the same order.
            turns = samples[index].turns
            cards.append((name, task.prompt, replace(samples[index], turns=(turns[index % len(turns)],))))
    write_learnt(path, cards)


def write_learnt(path: Path, cards: Sequence[tuple[str, PromptTemplate, Sample]]) -> None:
    """Writes a sheet of samples with their first question and first answer to learn.

    Args:
        path: the PNG.
        cards: at least one: title, the task's prompt, and the sample.

    Raises:
        DataError: there are no samples, or a prompt or input is wrong.
    """
    media: dict[int, Media] = {}
    rows: list[tuple[Prediction, float]] = []
    for name, prompt, sample in cards:
        turn, files = sample.turns[0], sample.media.sources
        text = prompt(turn.prompt_fields)
        row = Prediction(turn.id, name, files, turn.category, text, turn.targets[0], turn.references)
        media[id(row)] = sample.media
        rows.append((row, 1.0))
    write_sheet(path, rows, lambda row: media[id(row)].load_frames((256, 256)), limit=len(rows))


def _spread(values: Sequence[Any], count: int) -> list[Any]:
    indices = np.linspace(0, len(values) - 1, min(count, len(values))).round().astype(int).tolist()
    return [values[index] for index in indices]


def _card(row: Prediction, score: float, frames: Sequence[np.ndarray] | torch.Tensor) -> Image.Image:
    across = min(_FRAMES_PER_LINE, len(frames))
    side = (_WIDTH - 4 * (across - 1)) // across
    strip = _grid([_thumbnail(np.asarray(frame), side) for frame in frames], across, side, 4, _PAPER)
    # The clue precedes the instruction, so its first occurrence is not a word of the question.
    prompt = re.sub(r"<[^<>\s]{1,40}>", " ", row.prompt.replace(row.clue, " ", 1))
    question = [line for part in prompt.splitlines() for line in _wrap(part, 1000)][-_MAX_LINES:]
    others = f"  (+{len(row.references) - 1})" if len(row.references) > 1 else ""
    title = " · ".join(filter(None, (f"{score:.2f}", row.task, row.category, row.id)))
    answer = _wrap(f"answer: {row.text}", _MAX_LINES)
    lines = [(_GREY, line) for line in [*_wrap(title, 1), *question]] + [(_BLACK, line) for line in answer]
    lines += [(_GREY, line) for line in _wrap(f"reference: {row.references[0]}{others}", _MAX_LINES)]
    card = Image.new("RGB", (_WIDTH, strip.height + len(lines) * _LINE + 2 * _GAP), _PAPER)
    card.paste(strip, ((_WIDTH - strip.width) // 2, 0))
    draw, top = ImageDraw.Draw(card), strip.height + _GAP
    for index, (colour, line) in enumerate(lines):
        draw.text((2 * _GAP, top + index * _LINE), line, colour, _font())
    bar = top + (1 + len(question)) * _LINE
    draw.rectangle((_GAP, bar, _GAP + 4, top + len(lines) * _LINE), _RIGHT if score >= 0.5 else _WRONG)
    return card


def _grid(images: Sequence[Image.Image], columns: int, width: int, gap: int, colour: str) -> Image.Image:
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    heights = [max(image.height for image in row) for row in rows]
    size = columns * (width + gap) - gap, sum(heights) + gap * (len(rows) - 1)
    page = Image.new("RGB", size, colour)
    for index, row in enumerate(rows):
        for column, image in enumerate(row):
            left = column * (width + gap) + (width - image.width) // 2
            page.paste(image, (left, sum(heights[:index]) + index * gap))
    return page


def _thumbnail(frame: np.ndarray, side: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def _wrap(text: str, lines: int) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), _CHARACTERS, max_lines=lines, placeholder="…")


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=15)
