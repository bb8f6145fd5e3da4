"""Types of numbers with a range, for options of plugins and configs: `def build(num_frames: PositiveInt = 8)`.

To a type checker they are `int` and `float`. NaN and infinity are in no range.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from unirs.errors import PluginError

_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Range:
    """The valid values of a number: `low` to `high`, without these if they are open."""

    low: float
    high: float = _LARGEST
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __repr__(self) -> str:
        low = f"more than {self.low:g}" if self.open_low else f"{self.low:g} or more"
        return (
            low if self.high == _LARGEST else f"{low}, {'less than' if self.open_high else 'at most'} {self.high:.10g}"
        )


PositiveInt = Annotated[int, Range(1)]
NonNegativeInt = Annotated[int, Range(0)]
NonNegativeFloat = Annotated[float, Range(0)]
PositiveFloat = Annotated[float, Range(0, open_low=True)]
UnitInterval = Annotated[float, Range(0, 1)]
"""0..1."""
HalfOpenUnitInterval = Annotated[float, Range(0, 1, open_high=True)]
"""0..1 without 1."""
PositiveUnitInterval = Annotated[float, Range(0, 1, open_low=True)]
"""0..1 without 0."""
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""Seed of a random number generator; NumPy's take 32 bits."""


def describe_range(hint: object) -> str | None:
    """What a value of a type with a range must be, such as `int, 1 or more`; None for other types."""
    limits = [one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Range)]
    return f"{get_args(hint)[0].__name__}, {limits[0]}" if limits else None


def check_ranges(owner: Callable[..., Any], values: Any, prefix: str = "") -> None:  # noqa: ANN401
    """Checks the arguments of a function or class against the ranges in its annotations.

    Args:
        owner: a function or class; parameters without a range take any value.
        values: its arguments by name (a mapping, or an object's attributes); others are ignored. Values of a parameter
            that is a dataclass are checked too, unless they are an object of it.
        prefix: of the names in messages, such as `data.`.

    Raises:
        PluginError: a value is not in its range; names the parameter.
    """
    has_fields = is_dataclass(owner) or not inspect.isclass(owner)
    hints = get_type_hints(owner if has_fields else owner.__init__, include_extras=True)
    values = values if isinstance(values, Mapping) else getattr(values, "__dict__", {})
    for name, hint in hints.items():
        if name in values:
            check_range(hint, values[name], prefix + name)


def check_range(hint: Any, value: Any, name: str) -> None:  # noqa: ANN401
    """Checks one value, and the values in it, against the ranges of a type; `name` is for the message.

    Raises:
        PluginError: it is not in its range.
    """
    for key, expected, found in _out_of_range(hint, value, name):
        raise PluginError(f"{key} is {_shorten(found)}, it must be {expected}.")


def _out_of_range(hint: Any, value: Any, name: str) -> Iterator[tuple[str, str, object]]:  # noqa: ANN401
    origin, arguments = get_origin(hint), get_args(hint)
    expected = describe_range(hint)
    if expected is not None:
        numbers = (int,) if arguments[0] is int else (int, float)
        limits = next(one for one in arguments[1:] if isinstance(one, Range))
        if not isinstance(value, numbers) or isinstance(value, bool) or value not in limits:
            yield name, expected, value
    elif origin in (Union, UnionType):
        if value is not None and not isinstance(value, bool):
            for argument in arguments:
                yield from _out_of_range(argument, value, name)
    elif isinstance(value, Mapping) and origin is not None and issubclass(origin, Mapping):
        for key, one in value.items():
            yield from _out_of_range(arguments[1], one, f"{name}.{key}")
    elif isinstance(value, Sequence) and isinstance(origin, type) and issubclass(origin, Sequence):
        for index, one in enumerate(value):
            yield from _out_of_range(arguments[index % len(arguments)], one, f"{name}[{index}]")
    # Its values in a parsed config; an object of the class has checked them itself.
    elif is_dataclass(hint) and not is_dataclass(value):
        check_ranges(hint, value, f"{name}.")  # type: ignore[arg-type]


def _shorten(value: object) -> str:
    # Python does not print integers of more than 4,300 digits.
    if isinstance(value, int) and abs(value) > 10**30:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}..."
