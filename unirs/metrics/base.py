"""What scorers read and return: predictions, and corpus statistics written as functions of sums over rows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import msgspec

from unirs.metrics.box_frame import BoxFrame
from unirs.metrics.text import strip_thinking

if TYPE_CHECKING:
    import numpy as np


_MARKER = re.compile(r"<(?![xy][12]>)[^<>\s]{1,40}>")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's answer to one turn: a row of `predictions/<task>.jsonl` before scoring.

    Attributes:
        id: Id of the turn.
        task: Name of the task.
        media: Files that the turn shows. Rows with equal media are resampled together.
        category: Question type, class, or `changed` / `unchanged`.
        prompt: Text of the prompt.
        text: Text of the answer, as the model wrote it, except that a box refers to the whole image.
        references: Texts to score against.
        clue: The clue in the prompt; empty if there is none.
        box_frame: Relates boxes of the answer to the image until `with_answer`; not part of the JSON.
    """

    id: str
    task: str
    media: tuple[str, ...]
    category: str
    prompt: str
    text: str
    references: tuple[str, ...]
    clue: str = ""
    box_frame: BoxFrame | None = None

    def with_answer(self, text: str) -> Prediction:
        """The row with the model's answer, whose box refers to the image."""
        text = text if self.box_frame is None else self.box_frame.to_image(text)
        # `dataclasses.replace` takes twice the time, and a task may have a million rows.
        return Prediction(self.id, self.task, self.media, self.category, self.prompt, text, self.references, self.clue)

    @property
    def question(self) -> str:
        """The prompt without its clue and without markers such as `<|visual|>`; those of boxes, `<x1>`, stay."""
        # The clue precedes the instruction, so its first occurrence is not a word of the question.
        return _MARKER.sub(" ", self.prompt.replace(self.clue, " ", 1)).strip()

    @property
    def answer(self) -> str:
        """The text to score: `text` without blocks of reasoning, see `unirs.metrics.text.strip_thinking`."""
        return strip_thinking(self.text)

    def to_json(self, **more: object) -> bytes:
        """The row as one line of JSON without a line break, with `more` fields."""
        fields = {
            "id": self.id,
            "task": self.task,
            "media": self.media,
            "category": self.category,
            "prompt": self.prompt,
            "clue": self.clue,
            "text": self.text,
            "references": self.references,
            **more,
        }
        try:
            return msgspec.json.encode(fields)
        except UnicodeEncodeError:
            # Names of files may hold bytes that are not UTF-8: lone surrogates in Python, escapes in JSON.
            return json.dumps(fields).encode()

    @staticmethod
    def from_json(line: bytes) -> Prediction:
        """Reads a line that `to_json` wrote; ignores other fields.

        Raises:
            ValueError: The line is not JSON, or a field is missing or of the wrong type.
        """
        try:
            return _DECODER.decode(line)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            # msgspec refuses lone surrogates.
            return msgspec.convert(json.loads(line), Prediction)


_DECODER = msgspec.json.Decoder(Prediction)


class LazyRows(Sequence[Prediction]):
    """Rows that are made on access, since a task may have a million. They equal any sequence of equal rows.

    Args:
        size: Number of rows.
        make: Makes the row of an index, equal ones each time.
    """

    def __init__(self, size: int, make: Callable[[int], Prediction]) -> None:
        self._size, self._make = size, make

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Prediction]:
        return map(self._make, range(self._size))

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Prediction]: ...
    def __getitem__(self, index: int | slice) -> Prediction | Sequence[Prediction]:
        chosen = range(self._size)[index]
        return self._make(chosen) if isinstance(chosen, int) else [self._make(each) for each in chosen]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Statistic:
    """A corpus metric written as a function of sums over rows, so that resampling it is a matrix product.

    Accuracy is `sums[0] / sums[1]` over rows `(correct, 1)`; BLEU is a function of summed n-gram counts.

    Attributes:
        row_sums: float64 or bool `[n, k]`, what each row adds; n counts all rows of the task. With k = 0 the value is
            known for all rows together only and has no interval; see `constant`.
        from_sums: Maps sums, float64 `[..., k]`, to values `[...]`.
        n: Number of rows that the metric covers, e.g. the questions of one category.
    """

    row_sums: np.ndarray
    from_sums: Callable[[np.ndarray], np.ndarray]
    n: int


@dataclass(frozen=True)
class Evaluation:
    """Scores of one task's rows.

    Attributes:
        normalized: Each prediction as it was compared, in the order of the rows.
        scores: Score of each row (1/0 for accuracies, CIDEr-D for captions); nan if rows have no score of their own.
        statistics: Corpus metrics by name, in the order to print.
        primary_metric: Name of the statistic that represents the task in the mean validation score; the first by
            default.
        notes: Remarks that the numbers need, one sentence each, e.g. how many answers could not be parsed.
    """

    normalized: Sequence[str]
    scores: Sequence[float]
    statistics: Mapping[str, Statistic]
    primary_metric: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.primary_metric:
            object.__setattr__(self, "primary_metric", next(iter(self.statistics), ""))
