"""Strict reading of the project's own YAML files: faults name the file and the key."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from unirs.errors import DataError, did_you_mean

_T = TypeVar("_T")


def read_yaml(path: Path) -> Node:
    """Reads a YAML file.

    Raises:
        DataError: the file is missing or no YAML, or a key stands twice in a mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a safe loader)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Name the YAML file of a suite.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Name the YAML file of a suite.") from error
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not YAML: {' '.join(str(error).split())}. Correct that place.") from error
    return Node(str(path), "", content)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML would keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.YAMLError(f"a key stands twice in the mapping {' '.join(str(node.start_mark).split())}")
        return mapping


@dataclass(frozen=True)
class Node:
    """A part of the file and the keys that lead to it.

    Attributes:
        file: for messages.
        where: the keys, joined by dots.
        content: what stands there; all but `only` and `fail` want a mapping.
    """

    file: str
    where: str
    content: Any

    def fail(self, key: str, fault: str) -> DataError:
        """The error to raise where a key is wrong; an empty key names this part itself."""
        place = f"{self.where}.{key}".strip(".")
        return DataError(f"{self.file}, {place}: {fault}")

    def only(self, *known: str) -> None:
        """Refuses what is no mapping, and unknown keys."""
        if not isinstance(self.content, dict):
            raise self.fail("", f"must be a mapping with {', '.join(known)}, it is {self.content!r}.")
        for key in self.content:
            if key not in known:
                raise self.fail(str(key), f"unknown key. {did_you_mean(str(key), known)}")

    def get(self, key: str, kind: type[_T]) -> _T:
        """A value that must be there, of a type, and not empty."""
        if key not in self.content:
            raise self.fail(key, "is missing. Add it.")
        value = self.content[key]
        if not isinstance(value, kind) or not value:
            raise self.fail(key, f"must be a {kind.__name__} that is not empty, it is {value!r}.")
        return value

    def list(self, key: str) -> Iterable[Node]:
        """The entries of a list, none where the key is missing."""
        values = self.content.get(key, [])
        if not isinstance(values, list):
            raise self.fail(key, f"must be a list, it is {values!r}.")
        return [Node(self.file, f"{self.where}.{key}[{index}]".strip("."), value) for index, value in enumerate(values)]

    def mapping(self, key: str) -> dict[str, Node]:
        """The entries of a mapping by name, none where the key is missing."""
        values = self.content.get(key, {})
        if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
            raise self.fail(key, f"must be a mapping from names, it is {values!r}.")
        return {name: Node(self.file, f"{self.where}.{key}.{name}".strip("."), value) for name, value in values.items()}

    def texts(self, key: str, parse: Callable[[str], Any] = str) -> dict[str, Any]:
        """A mapping of texts, none where the key is missing."""
        values = self.content.get(key, {})
        if not isinstance(values, dict):
            raise self.fail(key, f"must be a mapping, it is {values!r}.")
        for name, value in values.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise self.fail(f"{key}.{name}", f"must be a text (numbers in quotes, as printed), it is {value!r}.")
        return {name: parse(value) for name, value in values.items()}
