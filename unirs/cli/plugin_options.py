"""Options of plugins on the trainer's command line: `--model.encoder.tune lora`, `--data.tasks.era.weight 3`."""

import argparse
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, is_dataclass
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from jsonargparse._typehints import ActionTypeHint
from jsonargparse._util import NestedArg

from unirs import plugins
from unirs.cli.plugins import describe_plugin
from unirs.errors import PluginError, did_you_mean
from unirs.models.change_config import check_change_options
from unirs.plugins import Group
from unirs.tasks.config import check_task_options, task_label

_TASKS = "data.tasks"
_GROUPS: Mapping[str, Group] = {
    "model.encoder": "unirs.encoders",
    "model.change": "unirs.change_extractors",
    _TASKS: "unirs.tasks",
}


def add_plugin_options(parser: ArgumentParser) -> None:
    """Adds checks, overrides and help of plugins' options to `model.encoder`, `model.change` and `data.tasks`."""
    for action in list(parser._actions):
        if action.dest in _GROUPS:
            # jsonargparse has no public way to change how `--argument.option` is parsed.
            action.__class__ = _PluginAction
            parser.add_argument(f"--{action.dest}.help", action=_HelpAction)


class _HelpAction(argparse._HelpAction):
    def __init__(self, option_strings: list[str], dest: str, **_: object) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, help="show the options of the plugin NAME, and exit")
        self.dest, self.nargs, self.metavar = dest, 1, "NAME"

    def __call__(self, parser: argparse.ArgumentParser, _: object, values: Any, option: str | None = None) -> None:  # noqa: ANN401 - argparse's type
        key = str(option).removeprefix("--").removesuffix(".help")
        print(describe_plugin(_GROUPS[key], values[0]))
        parser.exit()


class _PluginAction(ActionTypeHint):
    """The plugin of a component, as a name or a mapping; a list of tasks; or one option of one of them."""

    def _check_type(self, value: Any, append: bool = False, cfg: Any = None, mode: Any = None) -> Any:  # noqa: ANN401 - jsonargparse's types
        group, previous = _GROUPS[self.dest], cfg.get(self.dest) if cfg else None
        try:
            if isinstance(value, NestedArg):
                key = value.key.removeprefix("init_args.")
                if self.dest == _TASKS:
                    return _override_task(previous or [], value.key, value.val)
                if key not in ("name", "class_path"):
                    return _override(group, plugins.normalize(group, previous or {}), key, value.val)
                # The options of another plugin do not fit this one.
                value = {key: value.val}
            elif self.dest != _TASKS and isinstance(value, str) and _is_name(value):
                value = {"name": value}
            parse: Any = super()._check_type
            value = parse(value, append, cfg, mode)
            if value is None:
                return None
            if self.dest != _TASKS and not {"name", "class_path"} & value.keys():
                # Of the plugin of `model.init`; without one, the model is not built.
                return value
            specs = [plugins.normalize(group, spec) for spec in (value if self.dest == _TASKS else [value])]
            for spec in specs:
                _check(group, spec)
        except PluginError as error:
            raise PluginError(f"{self.dest}: {error}") from error
        return specs if self.dest == _TASKS else specs[0]


def _is_name(text: str) -> bool:
    return "." not in text and isinstance(yaml.safe_load(text), str)


def _override_task(specs: list[dict[str, Any]], key: str, text: str) -> list[dict[str, Any]]:
    label, _, option = key.partition(".")
    labels = list(map(task_label, specs))
    if label not in labels:
        example = f"--{_TASKS}.{labels[0] if labels else 'LABEL'}.{option or label} {text}"
        raise PluginError(f"no task is labelled '{label}'. {did_you_mean(label, labels)} Write, e.g., {example}")
    if not option:
        raise PluginError(f"name an option of task '{label}': --{_TASKS}.{label}.OPTION VALUE.")
    index = labels.index(label)
    changed = _override("unirs.tasks", specs[index], option.removeprefix("init_args."), text)
    return [*specs[:index], changed, *specs[index + 1 :]]


def _check(group: Group, spec: Mapping[str, Any]) -> dict[str, Any]:
    checks = {"unirs.tasks": check_task_options, "unirs.change_extractors": check_change_options}
    return checks[group](spec) if group in checks else plugins.check_plugin(group, spec)


def _override(group: Group, spec: Mapping[str, Any], path: str, text: str) -> dict[str, Any]:
    """The spec with one option set to the value of a text from the command line."""
    changed = deepcopy(dict(spec))
    option, *inner = path.split(".")
    if not inner:
        changed[option] = text
    else:
        target = changed.setdefault(option, {}) or {}
        changed[option] = target
        for key in inner[:-1]:
            target = target.setdefault(key, {})
        target[inner[-1]] = yaml.safe_load(text)
    value = _check(group, changed)[option]
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    # Only YAML's types, since the config is saved: a path stays text.
    plain = value is None or isinstance(value, bool | int | float | str | list | dict)
    return changed | ({option: value} if plain else {})
