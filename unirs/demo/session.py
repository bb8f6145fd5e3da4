"""What the page of the demo does, without the page: reads uploads, runs the model, and renders results."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from unirs.demo.examples import Example
from unirs.errors import DataError, MediaError, UniRSError
from unirs.evaluation.report.media_view import change_thumbnail, media_html, view_media
from unirs.inference.api import UniRS
from unirs.inference.change_maps import change_maps, on_image
from unirs.inference.completion import Completion
from unirs.metrics.box_text import box_syntax
from unirs.metrics.text import strip_thinking
from unirs.tasks.inputs import as_media
from unirs.tasks.media import Media, Modality
from unirs.tasks.series import Series

_MAX_IMAGES = 16
_MAX_CHARACTERS = 2000
_MAX_CHOICES = 64
_FILES = {
    "image": ("one image", 1, 1),
    "pair": ("two images", 2, 2),
    "video": ("one video", 1, 1),
    "series": ("two or more images", 2, _MAX_IMAGES),
}
_THUMBNAIL = 12_000  # bytes
_BUDGET = 1_000_000  # bytes of the images of an input


class Session:
    """A model that answers one question at a time, and its examples.

    Args:
        model: the model.
        examples: inputs to choose from.
    """

    def __init__(self, model: UniRS, examples: Sequence[Example] = ()) -> None:
        self.model = model
        self.examples = examples
        self._lock = threading.Lock()
        pairs = [example.media for example in examples if example.media.modality == "pair"]
        maps = change_maps(model.model, model.processor, pairs)
        # One scale for all maps, so that an unchanged pair has no colours.
        self._largest_change = max((float(1 - one.min()) for one in maps if one is not None), default=0.0)

    @property
    def modalities(self) -> list[Modality]:
        """The modalities of the model's tasks, in the order of the tasks."""
        return list(dict.fromkeys(saved.modality for saved in self.model.config.prompts.values()))

    def tasks(self, modality: Modality) -> list[str]:
        """The tasks of a modality."""
        return [name for name, saved in self.model.config.prompts.items() if saved.modality == modality]

    def needs_question(self, task: str) -> bool:
        """Whether a task's prompt has no instruction of its own."""
        return "{question}" in self.model.config.prompts[task].prompt.instruction

    def instruction(self, task: str) -> str:
        """A hint what to write as the question of a task."""
        if self.needs_question(task):
            return "such as: Is there a road?"
        return f"none: {self.model.config.prompts[task].prompt.instruction}"

    def choices(self, task: str) -> tuple[str, ...]:
        """The allowed answers of a task, if the examples have them and they do not depend on a question."""
        known = {example.choices for example in self.examples if example.task == task}
        return known.pop() if len(known) == 1 and not self.needs_question(task) else ()

    def thumbnail(self, media: Media) -> str:
        """A data URI of the last image, or of the film strip; empty if the media do not decode."""
        try:
            return view_media(media, _THUMBNAIL).images[-1]
        except DataError:
            return ""

    def answer(self, media: Media, question: str, task: str, choices: str) -> Iterator[str | Completion]:
        """Answers a question.

        Args:
            media: the input.
            question: empty for the task's own instruction.
            task: its name.
            choices: one a line; empty for free text.

        Yields:
            The text so far, while it is generated; then the completion.

        Raises:
            UniRSError: the texts are too long, or do not fit to the task.
        """
        lines = list(dict.fromkeys(line.strip() for line in choices.splitlines() if line.strip()))
        if max(len(question), *map(len, lines), 0) > _MAX_CHARACTERS or len(lines) > _MAX_CHOICES:
            raise UniRSError(
                f"Questions and choices have at most {_MAX_CHARACTERS} characters, and there are at most "
                f"{_MAX_CHOICES} choices. Shorten them."
            )
        pieces: SimpleQueue[str | None] = SimpleQueue()
        with self._lock, ThreadPoolExecutor(1) as pool:
            future = pool.submit(
                self.model.predict,
                [media],
                question.strip() or None,
                task=task,
                choices=lines or None,
                on_text=lambda _, piece: pieces.put(piece),
            )
            future.add_done_callback(lambda _: pieces.put(None))
            text = ""
            while (piece := pieces.get()) is not None:
                text += piece
                yield text
            yield future.result()[0]

    def render(self, media: Media, name: str, completion: Completion | None = None, reference: str = "") -> str:
        """HTML of media, with the map of change and the boxes of an answer.

        Args:
            media: the input.
            name: of the input, for screen readers.
            completion: the answer to draw.
            reference: a text whose boxes are drawn, too.

        Raises:
            DataError: the media do not decode.
        """
        view = view_media(media, _BUDGET, scale=3)
        if completion is not None:
            answer = strip_thinking(completion.text)
            rule = box_syntax([answer])
            if rule is not None:
                texts = {"reference": reference} if box_syntax([reference]) == rule else {}
                view.add_boxes(texts | {"answer": answer}, rule)
            if completion.change_map is not None:
                similarity = on_image(completion.change_map, media, self.model.processor)
                view.change = change_thumbnail(similarity, max(self._largest_change, float(1 - similarity.min())))
        return media_html(view, name)


def read_uploads(modality: Modality, files: Sequence[str], dates: str = "") -> Media:
    """The media of uploaded files.

    Args:
        modality: chosen by the user.
        files: paths, in time order.
        dates: of a series, separated by commas; may be empty.

    Raises:
        MediaError: there are too few or too many files, or their suffixes are those of another modality.
    """
    wanted, *limits = _FILES[modality]
    if not limits[0] <= len(files) <= limits[1]:
        most = f", at most {_MAX_IMAGES}" if modality == "series" else ""
        raise MediaError(f"Upload {wanted}{most}: got {len(files)}.")
    found = [as_media(file) for file in files]
    if any(one.modality != ("video" if modality == "video" else "image") for one in found):
        raise MediaError(f"Upload {wanted}: {', '.join(Path(file).name for file in files)} is something else.")
    if modality == "series":
        return Series(files, [date.strip() for date in dates.split(",")] if dates.strip() else None)
    return as_media(tuple(files)) if modality == "pair" else found[0]


def plain_message(error: Exception, media: Sequence[str]) -> str:
    """The message of an error, with names of uploaded files in place of their paths on this machine."""
    text = str(error)
    for path in media:
        text = text.replace(path, Path(path).name)
    return text


def choice_shares(logprobs: Mapping[str, float]) -> dict[str, float]:
    """Probability of each choice among the choices, by its text and log-likelihood."""
    largest = max(logprobs.values(), default=0.0)
    weights = {f"{choice} ({value:.2f})": math.exp(value - largest) for choice, value in logprobs.items()}
    return {choice: weight / sum(weights.values()) for choice, weight in weights.items()}
