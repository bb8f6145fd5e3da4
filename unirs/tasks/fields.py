"""Typed fields of annotation rows, and checked plugin options."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from unirs.errors import DataError, PluginError, did_you_mean

_T = TypeVar("_T")


def field(row: Mapping[str, Any], name: str, kind: type[_T], where: str) -> _T:
    """A field of a row, of the type it must have.

    Args:
        row: a JSON object.
        name: the field's.
        kind: its type; `True` and `False` are no numbers.
        where: file and row, for messages.

    Raises:
        DataError: the row lacks the field, or it is of another type.
    """
    if name not in row:
        raise DataError(f"{where} lacks '{name}'. Correct the row, or download the file again.")
    value = row[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{where}: '{name}' must be of type {kind.__name__}, it is {value!r}. Correct the row.")
    return value


def texts(row: Mapping[str, Any], where: str, *names: str) -> Iterator[str]:
    """Several fields of a row that are texts.

    Args:
        row: a JSON object.
        where: file and row, for messages.
        names: the fields'.

    Raises:
        DataError: the row lacks one of them, or it is no text.
    """
    return (field(row, name, str, where) for name in names)


def pick(option: str, value: str, known: Mapping[Any, _T]) -> _T:
    """What a plugin's option stands for.

    Args:
        option: the option's name.
        value: what the user set it to.
        known: what it may be.

    Raises:
        PluginError: the value is unknown; names the nearest.
    """
    if value not in known:
        raise PluginError(f"Unknown {option} '{value}'. {did_you_mean(value, known)}")
    return known[value]
