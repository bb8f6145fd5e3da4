"""A picture sheet of samples and answers, to see at a glance what a model gets right and wrong."""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

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


# Pixels.
_CARD = 320

_PAD = 14

_INNER = _CARD - 2 * _PAD

_GAP = 18

_SEAM = 4

_BAR = 5

_TEXT = 15

_SMALL = 12

_LINE = 20

_PAGE = (236, 238, 241)

_PAPER = (255, 255, 255)

_MATTE = (222, 225, 230)

_INK = (28, 32, 38)

_QUIET = (110, 117, 128)

# A green and a red of unlike lightness, so that they differ in greyscale too.
_RIGHT = (46, 160, 90)

_WRONG = (176, 32, 48)

_MARKER = re.compile(r"<[^<>\s]{1,40}>")

_FRAMES_A_LINE = 4

_QUESTION_LINES = 6

_ANSWER_LINES = 4

# Characters; a model caught in a loop writes words that are far longer, and slow to measure.
_MORE_THAN_A_LINE = 400


@dataclass(frozen=True)
class _Card:
    """One sample, laid out but not yet drawn."""

    media: Image.Image
    title: str
    question: list[str]
    answer: list[str]
    reference: list[str]
    score: float

    @property
    def text_height(self) -> int:
        lines = len(self.question) + len(self.answer) + len(self.reference)
        return 4 * _PAD + _SMALL + lines * _LINE


def write_sheet(
    path: Path,
    predictions: Sequence[tuple[Prediction, float]],
    frames: Callable[[Prediction], Sequence[np.ndarray] | torch.Tensor],
    columns: int = 4,
    limit: int = 24,
) -> None:
    """Draws a PNG of cards: what the sample shows, the question, the answer, the reference and the score.

    One frame fills the width of its card, up to four stand side by side (a pair: before, after), more fill further
    lines in time order. The question is the end of the prompt, without clue and `<...>` markers. The bar beside the
    answer is green from a score of 0.5 on, else red. The same input gives the same pixels.

    Args:
        path: where the picture goes; its folder is made where it does not exist.
        predictions: rows and their scores; at least one.
        frames: loads a row's frames, uint8 `[k, 3, H, W]` or k arrays `[3, H, W]`; called for shown rows only.
        columns: how many cards stand side by side.
        limit: how many rows are shown at most; of more, this many spread evenly from the first to the last.

    Raises:
        DataError: there are no predictions.
        MediaError: as raised by `frames`.
    """
    if not predictions:
        raise DataError(f"There are no predictions to draw in {path}. Evaluate at least one sample.")
    indices = np.linspace(0, len(predictions) - 1, min(limit, len(predictions))).round().astype(int).tolist()
    cards = [_lay_out(row, score, frames(row)) for row, score in (predictions[index] for index in indices)]
    rows = [cards[start : start + columns] for start in range(0, len(cards), columns)]
    heights = [max(card.media.height for card in row) + max(card.text_height for card in row) for row in rows]
    across = min(columns, len(cards))
    page = Image.new("RGB", (across * (_CARD + _GAP) + _GAP, sum(heights) + (len(rows) + 1) * _GAP), _PAGE)
    draw = ImageDraw.Draw(page)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, card in enumerate(row):
            left = _GAP + column * (_CARD + _GAP)
            draw.rectangle((left, top, left + _CARD - 1, top + height - 1), fill=_PAPER)
            _draw_card(page, draw, card, left, top, max(other.media.height for other in row))
        top += height + _GAP
    png = io.BytesIO()
    page.save(png, format="PNG", optimize=True)
    write_atomically(path, png.getvalue())


def write_samples(path: Path, tasks: Mapping[str, Task], count: int = 8) -> None:
    """Draws test samples of tasks with their first question and first answer to learn.

    Args:
        path: where the picture goes.
        tasks: by name.
        count: samples of each, spread over the split.

    Raises:
        DataError: a file or row of the data is wrong.
    """
    cards: list[tuple[str, PromptTemplate, Sample]] = []
    for name, task in tasks.items():
        samples = task.load_split("test")
        for index in np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int).tolist():
            # Samples often ask the same things in the same order.
            turns = samples[index].turns
            cards.append((name, task.prompt, replace(samples[index], turns=(turns[index % len(turns)],))))
    write_learnt(path, cards)


def write_learnt(path: Path, cards: Sequence[tuple[str, PromptTemplate, Sample]]) -> None:
    """Draws samples with their first question and first answer to learn.

    Args:
        path: where the picture goes.
        cards: at least one: what its title begins with, the task's prompt, and the sample.

    Raises:
        DataError: there are no samples, or a prompt or medium is wrong.
    """
    media: dict[int, Media] = {}
    rows: list[tuple[Prediction, float]] = []
    for name, prompt, sample in cards:
        turn = sample.turns[0]
        files = sample.media.sources
        row = Prediction(
            turn.id, name, files, turn.category, prompt(turn.prompt_fields), turn.targets[0], turn.references
        )
        media[id(row)] = sample.media
        rows.append((row, 1.0))
    write_sheet(path, rows, lambda row: media[id(row)].load_frames((256, 256)), limit=len(rows))


def _lay_out(row: Prediction, score: float, frames: Sequence[np.ndarray] | torch.Tensor) -> _Card:
    others = f"  (+{len(row.references) - 1})" if len(row.references) > 1 else ""
    return _Card(
        media=_strip([np.asarray(frame) for frame in frames]),
        title=_fit(" · ".join(part for part in (row.task, row.category, row.id) if part), _SMALL, _INNER - 40),
        question=_question(row),
        answer=_head(_wrap(f"answer: {row.text}", _INNER - _PAD)),
        reference=_head(_wrap(f"reference: {row.references[0]}{others}", _INNER - _PAD)),
        score=score,
    )


def _draw_card(
    page: Image.Image, draw: ImageDraw.ImageDraw, card: _Card, left: int, top: int, media_height: int
) -> None:
    draw.rectangle((left, top, left + _CARD - 1, top + media_height - 1), fill=_MATTE)
    page.paste(card.media, (left + (_CARD - card.media.width) // 2, top + (media_height - card.media.height) // 2))
    x, y = left + _PAD, top + media_height + _PAD
    draw.text((x, y), card.title, _QUIET, _font(_SMALL))
    draw.text((left + _CARD - _PAD, y), f"{card.score:.2f}", _QUIET, _font(_SMALL), anchor="ra")
    y = _draw_lines(draw, card.question, x, y + _SMALL + _PAD, _QUIET)
    y += _PAD
    bar_top = y
    y = _draw_lines(draw, card.answer, x + _PAD, y, _INK)
    y = _draw_lines(draw, card.reference, x + _PAD, y, _QUIET)
    draw.rectangle((x, bar_top, x + _BAR - 1, y - 1), fill=_RIGHT if card.score >= 0.5 else _WRONG)


def _draw_lines(draw: ImageDraw.ImageDraw, lines: list[str], x: int, y: int, colour: tuple[int, int, int]) -> int:
    for line in lines:
        draw.text((x, y), line, colour, _font(_TEXT))
        y += _LINE
    return y


def _strip(frames: list[np.ndarray]) -> Image.Image:
    across = min(_FRAMES_A_LINE, len(frames))
    width = (_CARD - (across - 1) * _SEAM) // across
    pictures = []
    for frame in frames:
        picture = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
        scale = width / max(picture.width, picture.height)
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        pictures.append(picture.resize(size, Image.Resampling.LANCZOS))
    height = max(picture.height for picture in pictures)
    lines = -(-len(pictures) // across)
    strip = Image.new("RGB", (across * width + (across - 1) * _SEAM, lines * height + (lines - 1) * _SEAM), _MATTE)
    for index, picture in enumerate(pictures):
        line, column = divmod(index, across)
        left = column * (width + _SEAM) + (width - picture.width) // 2
        strip.paste(picture, (left, line * (height + _SEAM) + (height - picture.height) // 2))
    return strip


def _question(row: Prediction) -> list[str]:
    # The clue stands before the instruction, so its first occurrence is the clue and not a word of the question.
    text = _MARKER.sub(" ", row.prompt.replace(row.clue, " ", 1))
    lines = [line for part in text.splitlines() for line in _wrap(part, _INNER)]
    return lines[-_QUESTION_LINES:]


def _head(lines: list[str]) -> list[str]:
    if len(lines) <= _ANSWER_LINES:
        return lines
    return [*lines[: _ANSWER_LINES - 1], _fit(f"{lines[_ANSWER_LINES - 1]} ...", _TEXT, _INNER - _PAD)]


def _wrap(text: str, width: int) -> list[str]:
    lines: list[str] = []
    room = 0.0
    for word in text.split():
        short = _fit(word, _TEXT, width)
        needed = _length(f" {short}", _TEXT)
        if needed <= room:
            lines[-1] += f" {short}"
            room -= needed
        else:
            lines.append(short)
            room = width - _length(short, _TEXT)
    return lines


def _fit(text: str, size: int, width: int) -> str:
    """Puts text on one line, shortened to the width in pixels."""
    text = " ".join(text.split())[:_MORE_THAN_A_LINE]
    if _length(text, size) <= width:
        return text
    fitting = bisect_right(range(1, len(text)), width, key=lambda count: ceil(_length(f"{text[:count]}...", size)))
    return f"{text[:fitting]}..."


def _length(text: str, size: int) -> float:
    return _font(size).getlength(text)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType, which its scalable font needs.")
    return font
