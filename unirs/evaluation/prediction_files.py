"""Reads answers and references from files of rows: a run's predictions, and what other evaluation scripts write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unirs.errors import DataError
from unirs.metrics.base import Prediction
from unirs.utils.io import read_json_lines

_ID = ("id", "question_id")

_ANSWER = ("text", "prediction", "answer")

_REFERENCES = ("references", "ground_truth")

_CATEGORY = ("category", "kind", "type")

_MEDIA = ("media", "image_id", "image")


@dataclass(frozen=True, slots=True)
class SavedRow(Prediction):
    """A row of a JSON lines file; absent fields are empty.

    UniRS, GeoChat and LLaVA name fields differently: the constants of this file list the names, in the order of
    preference.

    Attributes:
        where: file and line, for messages.
        is_answered: whether the row has an answer, which may be empty.
    """

    where: str = ""
    is_answered: bool = False

    def answered(self) -> str:
        """The answer; a `DataError` if the row has none."""
        if not self.is_answered:
            raise DataError(
                f"{self.where} has no answer: it needs one of {', '.join(map(repr, _ANSWER))}. `unirs score "
                "--allow-missing` counts such rows as wrong."
            )
        return self.text

    def scored_against(self) -> tuple[str, ...]:
        """The references; a `DataError` if the row has none."""
        if not self.references:
            raise DataError(
                f"{self.where} has nothing to score against: no {' or '.join(map(repr, _REFERENCES))}. "
                "Add the references, or name a file or task that has them."
            )
        return self.references


def read_rows(path: Path, *, answers: bool = True) -> dict[str, SavedRow]:
    """Reads a file of rows by id, in its order; without `answers`, a field `answer` is a reference.

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
    key, answer = _first(fields, _ID), _first(fields, _ANSWER)
    if key is None:
        raise DataError(f"{where} has no id: it needs 'id' or 'question_id'.")
    return SavedRow(
        where=where,
        id=_text(where, key, fields[key]),
        text="" if answer is None else _text(where, answer, fields[answer]),
        is_answered=answer is not None,
        references=_texts(where, fields, references),
        category="".join(_texts(where, fields, _CATEGORY)[:1]),
        media=_texts(where, fields, _MEDIA),
        **{name: _text(where, name, fields.get(name, "")) for name in ("task", "prompt", "clue")},
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
