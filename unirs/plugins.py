"""Finds plugins by entry point, dotted path or local file, and calls them with options that are checked by type.

A plugin is imported when it is named, and not before. No import registers anything.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from unirs.errors import PluginError, did_you_mean
from unirs.options import Option, check_options, options_of

Group = Literal[
    "unirs.tasks",
    "unirs.encoders",
    "unirs.change_extractors",
    "unirs.projectors",
    "unirs.video_readers",
    "unirs.vision_towers",
]

FRAMEWORK_ARGUMENTS: Mapping[Group, int] = {"unirs.change_extractors": 2, "unirs.projectors": 3}
"""Number of arguments that the framework passes to the plugins of a group before their options; 0 by default."""


_untrusted: ContextVar[str] = ContextVar("_untrusted", default="")
"""The folder or hub id whose config is being read without trust; empty if code by path may be imported."""


@contextmanager
def installed_only(source: object, *, trust_remote_code: bool) -> Iterator[None]:
    """Within the block, whatever the config of `source` names is an installed plugin, unless its code is trusted.

    A block inside another one allows no more than that.
    """
    token = None if trust_remote_code else _untrusted.set(_untrusted.get() or str(source))
    try:
        yield
    finally:
        if token is not None:
            _untrusted.reset(token)


def is_trusted() -> bool:
    """Whether the config that is being read may run code of its own, see `installed_only`."""
    return not _untrusted.get()


def require_trust(what: str) -> None:
    """Checks that the config that is being read may run code of its own; `what` names that code.

    Raises:
        PluginError: it may not, see `installed_only`.
    """
    if source := _untrusted.get():
        raise PluginError(
            f"The config of {source} names {what}, which is not an installed plugin and is not run. If you trust the "
            "code, set trust_remote_code=True (--trust-remote-code; for fit, --model.trust_remote_code true)."
        )


def require_plain(config: object) -> None:
    """Checks that no value of the config that is being read is the spec of a class, which its parser would build.

    Raises:
        PluginError: one is, and its code is not trusted, see `installed_only`.
    """
    if isinstance(config, Mapping):
        if "class_path" in config:
            require_trust(f"the class '{config['class_path']}'")
        config = list(config.values())
    for value in config if isinstance(config, list) else ():
        require_plain(value)


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
                "Uninstall one, or name the other by its dotted path."
            )
    return found


def origin(entry: EntryPoint) -> str:
    """Distribution and dotted path of a plugin."""
    return f"{entry.dist.name if entry.dist else 'unknown package'} ({entry.value})"


def load(group: Group, name: str) -> Callable[..., Any]:
    """Imports a plugin.

    Args:
        group: the entry-point group.
        name: an entry point's name, a dotted path `package.module:function`, or a file `folder/plugin.py`, with the
            function `build`, or `folder/plugin.py:function`.

    Raises:
        PluginError: nothing of that name exists (with the nearest match), or its module does not import.
    """
    # Before the entry points, so that a path loads even if two of these share a name.
    if ":" in name or name.endswith(".py"):
        return load_attribute(name)
    installed = list_plugins(group)
    if name not in installed:
        raise PluginError(f"Unknown plugin '{name}' in group '{group}'. {did_you_mean(name, installed)}")
    return _load(installed[name].value, name)


def load_attribute(name: str, *, trusted: bool = False) -> Callable[..., Any]:
    """Imports the function of a dotted path `package.module:function` or of a file `folder/plugin.py:function`.

    `trusted` is for names that no config contains.

    Raises:
        PluginError: the module or file does not exist or import, has no such function, or is not trusted (see
            `installed_only`).
    """
    if not trusted:
        require_trust(f"'{name}'")
    return _load(name, name)


def short_name(name: str) -> str:
    """A plugin's name without folder, package, suffix and function: `tasks/mine.py:build` is `mine`."""
    target = name.split(":")[0]
    return Path(target).stem if target.endswith(".py") else target.rpartition(".")[2]


def normalize(group: Group, spec: object) -> dict[str, Any]:
    """Converts a plugin's entry in a config to `{name: …, option: …}`.

    The entry is a name, a mapping with `name` and options, or one with `class_path` and `init_args`.

    Raises:
        PluginError: it is none of these.
    """
    if isinstance(spec, str):
        return {"name": spec}
    options = dict(spec) if isinstance(spec, Mapping) else {}
    if "class_path" in options and "name" not in options:
        path, inner = options.pop("class_path"), options.pop("init_args", None) or {}
        # jsonargparse writes `package.module.Class`.
        path = ":".join(str(path).rsplit(".", 1)) if ":" not in str(path) and "/" not in str(path) else path
        options = {"name": path, **inner, **options}
    if not isinstance(options.get("name"), str):
        raise PluginError(f"A plugin needs a name: got {spec}. {did_you_mean('', list_plugins(group))}")
    return options


def create(group: Group, spec: Mapping[str, Any] | str, *args: object) -> Any:  # noqa: ANN401 - each group builds its own type
    """Calls the plugin that an entry of a config names: `{name: timm, model: resnet18}`.

    The framework's arguments `args` precede the options. Exceptions of the plugin are not caught.

    Raises:
        PluginError: the name or an option is missing, unknown (with the nearest match) or of a wrong type.
    """
    options = normalize(group, spec)
    name = options.pop("name")
    function = load(group, name)
    options = check_options(f"Plugin '{name}'", function, options, len(args))
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **options)
    except TypeError as error:
        raise PluginError(f"Plugin '{name}': {error}. Its signature is {signature}.") from None
    return function(*args, **options)


def check_plugin(group: Group, spec: object, shared: Any = None, owner: str = "") -> dict[str, Any]:  # noqa: ANN401 - a dataclass
    """Checks the options of a plugin's entry, without calling it, as `check_options` does; returns them with its name.

    `shared` is a dataclass of options that every plugin of the group has besides its own.
    """
    options = normalize(group, spec)
    name = options.pop("name")
    owner, known = owner or f"Plugin '{name}'", [] if shared is None else [entry.name for entry in fields(shared)]
    common = {key: options.pop(key) for key in known if key in options}
    function = load(group, name)
    return {
        "name": name,
        **({} if shared is None else check_options(owner, shared, common)),
        **check_options(owner, function, options, FRAMEWORK_ARGUMENTS.get(group, 0), known),
    }


def plugin_options(group: Group, name: str) -> list[Option]:
    """The options of a plugin, which is imported; errors are those of `load`."""
    return options_of(load(group, name), FRAMEWORK_ARGUMENTS.get(group, 0))


def _load(path: str, name: str) -> Callable[..., Any]:
    target, _, attribute = path.partition(":")
    is_file = target.endswith(".py")
    try:
        module = _import_file(Path(target)) if is_file else importlib.import_module(target)
    except ImportError as error:
        raise PluginError(f"Plugin '{name}' does not import: {error}.") from error
    attribute = attribute or ("build" if is_file else "")
    function = getattr(module, attribute, None)
    if not callable(function):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise PluginError(
            f"Plugin '{name}': {module.__name__} has no function '{attribute}'. {did_you_mean(attribute, public)}"
        )
    return function  # type: ignore[no-any-return]


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"Plugin file {path} does not exist. Paths are relative to the current folder, {Path.cwd()}.")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    module_name = f"unirs_local_{path.stem}_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec: Any = importlib.util.spec_from_file_location(module_name, path)  # not None, as the file ends in `.py`
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle find a module by its name.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
