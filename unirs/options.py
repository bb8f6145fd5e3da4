"""The options of a function or class: their types, checks and documentation."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from unirs.errors import PluginError, UniRSError, did_you_mean
from unirs.ranges import check_range, describe_range

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


@dataclass(frozen=True)
class Option:
    """An option; `type` is that of its values, e.g. `int | None`, `doc` is from the docstring."""

    name: str
    type: str
    default: Any
    required: bool
    doc: str


def check_options(
    owner: str, function: Callable[..., Any], options: Mapping[str, Any], skip: int = 0, others: Iterable[str] = ()
) -> dict[str, Any]:
    """Checks options against a function's parameters, and converts them to the parameters' types.

    Required options may be missing, since the command line overrides one at a time.

    Args:
        owner: name of the function, for messages.
        function: its parameters are the options; those without a type take any value.
        options: by name.
        skip: number of leading parameters that are not options.
        others: names of options that the owner has besides, for the message about an unknown one.

    Raises:
        PluginError: an option is unknown (with the nearest match) or of a wrong type.
    """
    parameters = dict(list(inspect.signature(function).parameters.items())[skip:])
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    checked = dict(options)
    parser = None
    for option, value in options.items():
        if option in parameters:
            annotation = parameters[option].annotation
            # These need no parser, which takes time to import and to build. A path's class depends on the system.
            if annotation not in (inspect.Parameter.empty, type(value)) and not (
                annotation is Path and isinstance(value, Path)
            ):
                parser = parser or _parser(function, skip)
                checked[option] = _convert(parser, owner, option, value)
        elif not open_ended:
            raise PluginError(f"{owner} has no option '{option}'. {did_you_mean(option, [*parameters, *others])}")
    return checked


def options_of(function: Callable[..., Any], skip: int = 0) -> list[Option]:
    """The options of a function or class, documented in Google's style, without `skip` leading parameters."""
    parameters = inspect.signature(function).parameters
    found = []
    for name, (hint, doc) in _types(_parser(function, skip)).items():
        default = parameters[name].default if name in parameters else None
        required = default is inspect.Parameter.empty
        found.append(Option(name, _type_name(hint), None if required else default, required, doc))
    return found


def _parser(function: Callable[..., Any], skip: int) -> "ArgumentParser":
    from jsonargparse import ArgumentParser

    from unirs.utils.typed_yaml import parser_mode

    parser = ArgumentParser(exit_on_error=False, parser_mode=parser_mode())
    add: Any = parser.add_class_arguments if inspect.isclass(function) else parser.add_function_arguments
    add(function, skip=set(list(inspect.signature(function).parameters)[:skip]), fail_untyped=False)
    return parser


def _types(parser: "ArgumentParser") -> dict[str, tuple[object, str]]:
    """Type and documentation of each option of a parser."""
    return {
        action.dest: (getattr(action, "_typehint", Any), " ".join((action.help or "").split()))
        for action in parser._actions
        if action.dest != "help"
    }


def _convert(parser: "ArgumentParser", owner: str, option: str, value: object) -> object:
    from jsonargparse import ArgumentError

    hint, _ = _types(parser).get(option, ("a mapping of its options", ""))
    # jsonargparse takes null for every type.
    if value is not None or hint is Any or type(None) in get_args(hint):
        try:
            parsed = parser.parse_object({option: value}, defaults=False, _skip_validation=True)
            check_range(hint, parsed[option], f"{owner}: {option}")
            return parser.instantiate(parsed)[option]
        except (ArgumentError, TypeError, ValueError) as error:
            if isinstance(error.__cause__, UniRSError):
                raise PluginError(f"{owner}, option '{option}': {error.__cause__}") from error
    choices = [choice for choice in get_args(hint) if isinstance(choice, str)]
    remedy = f" {did_you_mean(value, choices)}" if isinstance(value, str) and choices else ""
    raise PluginError(f"{owner}: option '{option}' is {value!r}, it must be {_type_name(hint)}.{remedy}")


def _type_name(hint: object) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if (described := describe_range(hint)) is not None:
        return described
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, arguments))
    name = hint.__name__ if isinstance(hint, type) and not arguments else str(hint)
    return re.sub(r"(typing|collections\.abc|pathlib)\.", "", name).replace("NoneType", "None")
