"""Typed fields of annotation rows, and checked plugin options."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from unirs.errors import DataError, PluginError, did_you_mean

_T = TypeVar("_T")


def field(row: Mapping[str, Any], name: str, kind: type[_T], where: str) -> _T:
    """Returns a field of a row after checking its type.

    Args:
        row: a JSON object.
        name: of the field.
        kind: required type; `True` and `False` are not accepted as numbers.
        where: file and row, for messages.

    Raises:
        DataError: the row lacks the field, or its type is another.
    """
    if name not in row:
        raise DataError(f"{where} lacks '{name}'. Correct the row, or download the file again.")
    value = row[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{where}: '{name}' must be of type {kind.__name__}, it is {value!r}. Correct the row.")
    return value


def texts(row: Mapping[str, Any], where: str, *names: str) -> Iterator[str]:
    """Returns several text fields of a row.

    Args:
        row: a JSON object.
        where: file and row, for messages.
        names: of the fields.

    Raises:
        DataError: the row lacks one of them, or it is not a text.
    """
    return (field(row, name, str, where) for name in names)


def pick(option: str, value: str, known: Mapping[Any, _T]) -> _T:
    """Looks up the value of a plugin's option.

    Args:
        option: the option's name.
        value: set by the user.
        known: results by allowed value.

    Raises:
        PluginError: the value is unknown; the message names the closest one.
    """
    if value not in known:
        raise PluginError(f"Unknown {option} '{value}'. {did_you_mean(value, known)}")
    return known[value]
