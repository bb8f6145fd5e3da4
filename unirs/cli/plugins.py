"""`unirs plugins`: lists the plugins of each group, or the options of one plugin."""

import argparse
from textwrap import fill
from typing import get_args

from unirs import plugins
from unirs.errors import PluginError, did_you_mean
from unirs.options import Option, options_of
from unirs.plugins import Group

_GROUPS = {group.removeprefix("unirs."): group for group in get_args(Group) if group != "unirs.vision_towers"}


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="[GROUP] NAME",
        help=f"a plugin's name, dotted path or file, after its group if unclear: {', '.join(_GROUPS)}",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    match options.names:
        case []:
            print("\n\n".join(map(_list, _GROUPS)))
        case [group] if group in _GROUPS:
            print(_list(group))
        case [name]:
            print("\n\n".join(describe_plugin(group, name) for group in _groups_of(name)))
        case [group, name] if group in _GROUPS:
            print(describe_plugin(_GROUPS[group], name))
        case [group, *_]:
            raise PluginError(f"There is no group '{group}' of plugins. {did_you_mean(group, _GROUPS)}")


def describe_plugin(group: Group, name: str) -> str:
    """The options of a plugin with types, defaults and docs, as text."""
    lines = [f"{group.removeprefix('unirs.')}: {name}", *map(_option, plugins.plugin_options(group, name))]
    if group == "unirs.tasks":
        from unirs.tasks.config import TaskOptions

        lines += ["options of every task:", *map(_option, options_of(TaskOptions))]
    elif group == "unirs.change_extractors":
        from unirs.models.change_config import ChangeOptions

        lines += ["options of every change extractor:", *map(_option, options_of(ChangeOptions))]
    return "\n".join(lines)


def _option(option: Option) -> str:
    default = "required" if option.required else f"default: {option.default!r}"
    head = f"  {option.name}: {option.type} ({default})"
    doc = fill(option.doc, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(filter(None, (head, doc)))


def _list(group: str) -> str:
    found = plugins.list_plugins(_GROUPS[group])
    width = max(map(len, found), default=0)
    return "\n".join([f"{group}:", *(f"  {name:<{width}}  {plugins.origin(entry)}" for name, entry in found.items())])


def _groups_of(name: str) -> list[Group]:
    installed = {group: plugins.list_plugins(group) for group in _GROUPS.values()}
    groups = [group for group, names in installed.items() if name in names]
    if not groups:
        known = [*_GROUPS, *(name for names in installed.values() for name in names)]
        raise PluginError(f"No installed plugin is named '{name}'. {did_you_mean(name, known)} A file needs its group.")
    return groups
