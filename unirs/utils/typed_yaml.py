"""Reads the project's own YAML files into typed structs; an error names the file and the key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import yaml

from unirs.errors import DataError, did_you_mean
from unirs.utils.io import reading

T = TypeVar("T")

Text = Annotated[str, msgspec.Meta(min_length=1)]
"""A string that is not empty."""


class StrictStruct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the type of a YAML mapping. A `ValueError` in `__post_init__` becomes an error with file and key."""


class _Loader(yaml.SafeLoader):
    """Rejects duplicate keys, of which PyYAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.YAMLError(f"duplicate key in the mapping {' '.join(str(node.start_mark).split())}")
        return mapping


def read_yaml(path: Path, struct: type[T]) -> T:
    """Reads a YAML file into a `StrictStruct`. Values are not coerced: a number is no string.

    Raises:
        DataError: the file is missing or is not YAML; a key is duplicate, unknown (with the nearest match), missing or
            of the wrong type. Names file and key.
    """
    try:
        with reading(path, "a YAML file in UTF-8"):
            content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a safe loader)
    except ValueError as error:
        raise DataError(f"{path} cannot be read ({error}). It must be a YAML file in UTF-8.") from error
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not valid YAML: {' '.join(str(error).split())}. Correct it there.") from error
    try:
        return msgspec.convert(content, struct)
    except msgspec.ValidationError as error:
        fault, _, key = str(error).partition(" - at `$")
        key = key.rstrip("`").lstrip(".")
        unknown = re.fullmatch(r"Object contains unknown field `(.*)`", fault)
        if unknown:
            name = unknown[1]
            fault = f"unknown key. {did_you_mean(name, _known_keys(struct, key))}"
            key = f"{key}.{name}".lstrip(".")
        raise DataError(f"{path}, {f'{key}: ' if key else ''}{fault.rstrip('.')}.") from error


def _known_keys(struct: type, key: str) -> list[str]:
    """Names of the fields of the struct at a key such as `tasks[0].published[...]`."""
    node: Any = msgspec.inspect.type_info(struct)
    for name, item in re.findall(r"(\w+)|(\[[^\]]*\])", key):
        if item:
            node = getattr(node, "value_type", None) or node.item_type
        else:
            node = next(field.type for field in node.fields if field.encode_name == name)
    return [field.encode_name for field in node.fields]
