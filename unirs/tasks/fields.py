"""Typed rows of annotation files, and checked plugin options."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from unirs.errors import DataError, PluginError, did_you_mean
from unirs.utils.io import convert

_T = TypeVar("_T")


def parse_row(row: object, schema: type[_T], where: str) -> _T:
    """Converts a row to a typed schema. Values are checked, not converted: `"3"` is no number.

    Args:
        row: a JSON value.
        schema: a `dataclass`, `TypedDict` or `msgspec.Struct`; other fields of the row are ignored.
        where: file and row, for messages.

    Raises:
        DataError: a field is missing or of another type; names the row and the JSON path.
    """
    try:
        return convert(row, schema)
    except msgspec.ValidationError as error:
        raise DataError(f"{where}: {error}. Correct the row, or download the file again.") from error


def texts(row: Mapping[str, Any], where: str, *names: str) -> tuple[str, ...]:
    """The values of the fields `names` of a row, which must be texts.

    Raises:
        DataError: the row lacks one of them, or it is not a text; names `where`, the file and row.
    """
    for name in names:
        if not isinstance(row.get(name), str):
            raise DataError(f"{where}: '{name}' must be a text, it is {row.get(name, 'missing')!r}. Correct the row.")
    return tuple(row[name] for name in names)


def pick(option: str, value: str, known: Mapping[Any, _T]) -> _T:
    """Looks up what the value of a plugin's option stands for.

    Raises:
        PluginError: the value is unknown; names the closest one.
    """
    if value not in known:
        raise PluginError(f"Unknown {option} '{value}'. {did_you_mean(value, known)}")
    return known[value]
