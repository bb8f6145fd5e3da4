"""Reads answers and references from files of rows: a run's predictions, and what other evaluation programs write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unirs.errors import DataError
from unirs.evaluation.answer_formats import REFERENCES, AnswerFormat, format_named, recognize
from unirs.metrics.base import Prediction
from unirs.utils.io import reading, scan_json_lines
from unirs.utils.json_stream import read_json_list

_UNIQUE = {True: "unique", False: "not_unique"}


@dataclass(frozen=True, slots=True)
class SavedRow(Prediction):
    """A row of a JSON lines file; absent fields are empty.

    Attributes:
        where: file and line, for messages.
        is_answered: whether the row has an answer, which may be empty.
    """

    where: str = ""
    is_answered: bool = False

    def answered(self) -> str:
        """The answer; a `DataError` if the row has none."""
        if not self.is_answered:
            raise DataError(f"{self.where} has no answer. `unirs score --allow-missing` counts such rows as wrong.")
        return self.text

    def scored_against(self) -> tuple[str, ...]:
        """The references; a `DataError` if the row has none."""
        if not self.references:
            raise DataError(
                f"{self.where} has nothing to score against. Add the references, or name a file or task that has them."
            )
        return self.references


def read_rows(path: Path, *, answers: bool = True, format_name: str | None = None) -> dict[str, SavedRow]:
    """Reads a file of rows by id, in its order.

    Args:
        path: JSON lines; a file `*.json` may also be a list of rows.
        answers: whether the file is one of answers; in a file of references, a field `answer` is a reference.
        format_name: key of `FORMATS`; by default that of the fields of all rows. Not for references.

    Raises:
        DataError: the file is missing, empty or not JSON; its format is not recognized; a row has no id, the id
            of another row, or a field of the wrong type. Names file and line.
        UniRSError: the format is unknown.
    """
    rows: dict[str, SavedRow] = {}
    fixed = (None if format_name is None else format_named(format_name)) if answers else REFERENCES
    for number, where, fields in _read(path):
        if fixed is None:
            name = recognize(fields.keys(), where)
            if format_name not in (None, name):
                first = next(iter(rows.values())).where
                raise DataError(
                    f"{where} has the fields of format {name}, but {first} those of {format_name}. Keep one format in "
                    "a file, or name the format with --format."
                )
            format_name = name
        row = _row(number, where, fields, fixed or format_named(str(format_name)))
        if row.id in rows:
            raise DataError(
                f"{where}: the id '{row.id}' is also that of {rows[row.id].where}. Keep one answer for each question."
            )
        rows[row.id] = row
    if not rows:
        raise DataError(f"{path} has no rows. Name a file with one JSON object a line.")
    return rows


def _read(path: Path) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Number, position (for messages) and fields of each row."""
    with reading(path, "a readable JSON file"), path.open("rb") as file:
        is_list = path.suffix == ".json" and file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    if is_list:
        for number, row in enumerate(read_json_list(path), 1):
            if not isinstance(row.value, dict):
                raise DataError(f"{path}, row {number} is not a JSON object. Correct it.")
            yield number, f"{path}, row {number}", row.value
    else:
        for number, row in scan_json_lines(path):
            yield number, f"{path}, line {number}", row.value


def _row(number: int, where: str, fields: Mapping[str, Any], names: AnswerFormat) -> SavedRow:
    key, answer, prompt = (_first(fields, each) for each in (names.id, names.answer, names.prompt))
    if names.id and key is None:
        raise DataError(f"{where} has no id: it needs {' or '.join(map(repr, names.id))}.")
    if names.all_references:
        references = tuple(text for name in names.references for text in _texts(where, fields, (name,)) if text.strip())
    else:
        references = _texts(where, fields, names.references)
    return SavedRow(
        where=where,
        id=str(number) if key is None else _text(where, key, fields[key]),
        text="" if answer is None else _text(where, answer, fields[answer]),
        is_answered=answer is not None,
        references=references,
        category=_category(where, fields, names.category),
        media=_texts(where, fields, names.media),
        prompt="" if prompt is None else _text(where, prompt, fields[prompt]),
        task=_text(where, "task", fields.get("task", "")),
        clue=_text(where, "clue", fields.get("clue", "")),
    )


def _category(where: str, fields: Mapping[str, Any], names: Sequence[str]) -> str:
    name = _first(fields, names)
    if name == "is_unique" and fields[name] in (0, 1):
        return _UNIQUE[bool(fields[name])]
    return "".join(_texts(where, fields, names)[:1])


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
        try:
            return str(value)
        except ValueError:  # Python does not print integers of more than 4,300 digits.
            raise DataError(f"{where}: '{name}' is an integer of {value.bit_length()} bits. Correct the row.") from None
    raise DataError(f"{where}: '{name}' must be a text, it is {value!r:.200}. Correct the row.")
