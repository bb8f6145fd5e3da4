"""Finds plugins by entry point, dotted path or local file, and calls them with checked options.

The entry-point groups are `unirs.tasks`, `unirs.encoders` and `unirs.change_extractors`. Nothing is imported before it
is named, and no import registers anything.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from unirs.errors import PluginError, did_you_mean

Group = Literal["unirs.tasks", "unirs.encoders", "unirs.change_extractors"]


def list_plugins(group: Group) -> dict[str, EntryPoint]:
    """The installed plugins of a group by name, sorted; nothing is imported.

    Raises:
        PluginError: two installed packages take the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise PluginError(
                f"Two plugins of group '{group}' are named '{entry.name}': {origin(other)} and {origin(entry)}. "
                "Uninstall one, or name the one you mean by its dotted path."
            )
    return found


def origin(entry: EntryPoint) -> str:
    """Where a plugin comes from: distribution and dotted path."""
    distribution = entry.dist.name if entry.dist else "unknown package"
    return f"{distribution} ({entry.value})"


def load(group: Group, name: str) -> Callable[..., Any]:
    """Imports a plugin.

    Args:
        group: the entry-point group.
        name: an entry point's name, a dotted path `package.module:function`, or a file `folder/plugin.py`, whose
            function is `build` unless another is named: `folder/plugin.py:function`.

    Raises:
        PluginError: nothing of that name exists (with the nearest match), or its module does not import.
    """
    # Before the installed plugins, so that a path still loads if two of those share a name.
    if ":" in name or name.endswith(".py"):
        return load_attribute(name)
    installed = list_plugins(group)
    if name not in installed:
        raise PluginError(f"Unknown plugin '{name}' in group '{group}'. {did_you_mean(name, installed)}")
    module, _, attribute = installed[name].value.partition(":")
    return _attribute(_import(module, name), attribute, name)


def load_attribute(name: str) -> Callable[..., Any]:
    """Imports what a dotted path `package.module:function` or a file `folder/plugin.py:function` names.

    Raises:
        PluginError: The module or file does not exist or import, or has no such function.
    """
    target, _, attribute = name.partition(":")
    if target.endswith(".py"):
        return _attribute(_import_file(Path(target), name), attribute or "build", name)
    return _attribute(_import(target, name), attribute, name)


def short_name(name: str) -> str:
    """A plugin's name without folder, package, ending and function: `tasks/mine.py:build` is `mine`."""
    target = name.split(":")[0]
    return Path(target).stem if target.endswith(".py") else target.rpartition(".")[2]


def create(group: Group, spec: Mapping[str, Any], *args: object) -> Any:  # noqa: ANN401 - each group builds its own type
    """Calls the plugin that a part of a config names: `{name: timm, model: resnet18}`.

    Args:
        group: the entry-point group.
        spec: `name` and the plugin's options.
        args: what the framework itself passes first.

    Returns:
        What the plugin returns. What it raises is not caught.

    Raises:
        PluginError: no or an unknown name, an unknown option (with the nearest match), or a missing one.
    """
    options = dict(spec)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise PluginError(f"A plugin needs a name: got {dict(spec)}. {did_you_mean('', list_plugins(group))}")
    function = load(group, name)
    parameters = inspect.signature(function).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        own = list(parameters)[len(args) :]
        for option in options:
            if option not in own:
                raise PluginError(f"Plugin '{name}' has no option '{option}'. {did_you_mean(option, own)}")
    try:
        inspect.signature(function).bind(*args, **options)
    except TypeError as error:
        raise PluginError(f"Plugin '{name}': {error}. Its signature is {inspect.signature(function)}.") from None
    return function(*args, **options)


def _import(module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PluginError(f"Plugin '{name}' does not import: {error}.") from error


def _import_file(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"Plugin file {path} does not exist. Paths are taken from the current folder, {Path.cwd()}.")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    module_name = f"unirs_local_{path.stem}_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"Plugin file {path} cannot be imported: it is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look their module up by name.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[module_name]
        if isinstance(error, ImportError):
            raise PluginError(f"Plugin '{name}' does not import: {error}.") from error
        raise
    return module


def _attribute(module: ModuleType, attribute: str, name: str) -> Callable[..., Any]:
    function = getattr(module, attribute, None)
    if not callable(function):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise PluginError(
            f"Plugin '{name}': {module.__name__} has no function '{attribute}'. {did_you_mean(attribute, public)}"
        )
    return function  # type: ignore[no-any-return]
