"""Reads answers and references from files of rows: a run's predictions, and what other evaluation scripts write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unirs.errors import DataError
from unirs.utils.io import read_json_lines

_ID = ("id", "question_id")

_ANSWER = ("text", "prediction", "answer")

_REFERENCES = ("references", "ground_truth")

_CATEGORY = ("category", "kind", "type")

_MEDIA = ("media", "image_id", "image")


@dataclass(frozen=True, slots=True)
class SavedRow:
    """A row of a JSON lines file; what the file does not say is None or empty.

    Attributes:
        where: file and line, for messages.
        id: `id` or `question_id`; numbers as text.
        answer: `prediction` (UniRS), `answer` (GeoChat) or `text` (LLaVA).
        references: `references` (UniRS) or `ground_truth` (GeoChat), one or a list; in a file of references also
            `answer`.
        kind: `kind`, `category` or `type`.
        media: `media` (UniRS), `image_id` (GeoChat) or `image`.
        task: the task's name in UniRS's rows.
        prompt: the text the model was given.
        clue: the clue in the prompt.
    """

    where: str
    id: str
    text: str | None
    references: tuple[str, ...]
    category: str
    media: tuple[str, ...]
    task: str
    prompt: str
    clue: str

    def answered(self) -> str:
        """The answer.

        Raises:
            DataError: the row has none.
        """
        if self.text is None:
            raise DataError(f"{self.where} has no answer: it needs one of {', '.join(map(repr, _ANSWER))}.")
        return self.text

    def scored_against(self) -> tuple[str, ...]:
        """The references.

        Raises:
            DataError: the row has none.
        """
        if not self.references:
            raise DataError(
                f"{self.where} has nothing to score against: no {' or '.join(map(repr, _REFERENCES))}. "
                "Name what tells the right answers."
            )
        return self.references


def read_rows(path: Path, *, answers: bool = True) -> dict[str, SavedRow]:
    """Reads a file of rows by id, in its order.

    Args:
        path: the file.
        answers: whether it holds answers, and not references alone.

    Raises:
        DataError: the file is missing, empty or not JSON lines; a row has no id, the id of another row, or a field of
            the wrong type. Names file and line.
    """
    rows: dict[str, SavedRow] = {}
    for where, fields in read_json_lines(path):
        row = _row(where, fields, _REFERENCES if answers else (*_REFERENCES, "answer"))
        if row.id in rows:
            raise DataError(
                f"{where}: the id '{row.id}' is also that of {rows[row.id].where}. Keep one answer for each question."
            )
        rows[row.id] = row
    if not rows:
        raise DataError(f"{path} has no rows. Name a file with one JSON object a line.")
    return rows


def _row(where: str, fields: Mapping[str, Any], references: Sequence[str]) -> SavedRow:
    key = _first(fields, _ID)
    if key is None:
        raise DataError(f"{where} has no id: it needs 'id' or 'question_id'.")
    answer = _first(fields, _ANSWER)
    return SavedRow(
        where=where,
        id=_text(where, key, fields[key]),
        text=None if answer is None else _text(where, answer, fields[answer]),
        references=_texts(where, fields, references),
        category="".join(_texts(where, fields, _CATEGORY)[:1]),
        media=_texts(where, fields, _MEDIA),
        task=_text(where, "task", fields.get("task", "")),
        prompt=_text(where, "prompt", fields.get("prompt", "")),
        clue=_text(where, "clue", fields.get("clue", "")),
    )


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if fields.get(name) is not None), None)


def _texts(where: str, fields: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    name = _first(fields, names)
    if name is None:
        return ()
    value = fields[name]
    return tuple(_text(where, name, entry) for entry in (value if isinstance(value, list) else [value]))


def _text(where: str, name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    # Ids and counts are often written as numbers.
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{where}: '{name}' must be a text, it is {value!r}. Correct the row.")
