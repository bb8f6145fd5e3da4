"""Reads the project's own YAML files into typed structs; an error names the file and the key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import yaml

from unirs.errors import DataError, did_you_mean
from unirs.utils.io import convert, reading

T = TypeVar("T")

Text = Annotated[str, msgspec.Meta(min_length=1)]
"""A string that is not empty."""


class StrictStruct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the type of a YAML mapping. A `ValueError` in `__post_init__` becomes an error with file and key."""


_MAX_NODES, _MAX_DEPTH = 1_000_000, 100


class _Loader(yaml.SafeLoader):
    """Rejects duplicate keys, of which PyYAML silently takes the last, and aliases that expand without bound.

    Also rejects brackets that are nested too deeply: the time that PyYAML takes is quadratic in their depth.
    """

    def fetch_flow_collection_start(self, token: Any) -> None:  # noqa: ANN401 - as PyYAML has it
        if self.flow_level >= _MAX_DEPTH:
            raise yaml.YAMLError(f"brackets are nested deeper than {_MAX_DEPTH} levels")
        super().fetch_flow_collection_start(token)

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _expanded_size(node, {}) > _MAX_NODES:
            raise yaml.YAMLError(f"with its aliases expanded, it has more than {_MAX_NODES:,} values")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.YAMLError(f"duplicate key in the mapping {' '.join(str(node.start_mark).split())}")
        return mapping


def _expanded_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Number of values below a node with aliases expanded; a long text counts as several."""
    if id(node) not in sizes:
        # An alias inside the value of its own anchor expands without end.
        sizes[id(node)] = _MAX_NODES
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        else:
            children = node.value if isinstance(node, yaml.SequenceNode) else []
        below = sum(_expanded_size(child, sizes) for child in children)
        sizes[id(node)] = 1 + below + (len(node.value) // 100 if isinstance(node, yaml.ScalarNode) else 0)
    return sizes[id(node)]


def parser_mode() -> str:
    """The mode of jsonargparse's parsers that reads YAML and rejects what `_Loader` does."""
    from jsonargparse import get_loader, set_loader

    mode, load = "bounded_yaml", get_loader("yaml")

    def load_bounded(text: str) -> Any:  # noqa: ANN401 - any YAML
        if ("&" in text and "*" in text) or text.count("[") + text.count("{") > _MAX_DEPTH:
            yaml.compose(text, _Loader)
        return load(text)

    set_loader(mode, load_bounded, (yaml.YAMLError,))
    return mode


def read_config(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping; a `DataError` names file and fault."""
    content = _read(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a config: it must hold a mapping. Correct it.")
    return content


def _read(path: Path) -> Any:  # noqa: ANN401 - any YAML
    try:
        with reading(path, "a YAML file in UTF-8"):
            return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a safe loader)
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not valid YAML: {' '.join(str(error).split())}. Correct it there.") from error
    except ValueError as error:
        raise DataError(f"{path} cannot be read ({error}). It must be a YAML file in UTF-8.") from error


def read_yaml(path: Path, struct: type[T]) -> T:
    """Reads a YAML file into a `StrictStruct`. Values are not coerced: a number is no string.

    Raises:
        DataError: the file is missing or is not YAML; a key is duplicate, unknown (with the nearest match), missing or
            of the wrong type. Names file and key.
    """
    try:
        return convert(_read(path), struct)
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
