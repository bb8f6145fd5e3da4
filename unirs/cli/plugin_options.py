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
from unirs.plugins import FRAMEWORK_ARGUMENTS, Group
from unirs.tasks.config import check_task_options, task_label

_GROUPS: Mapping[str, Group] = {"model.encoder": "unirs.encoders", "model.change": "unirs.change_extractors"}
_TASKS = "data.tasks"


def add_plugin_options(parser: ArgumentParser) -> None:
    """Lets a parser check and override the options of plugins one by one, and show them: `--model.encoder.help NAME`.

    Args:
        parser: has the arguments `model.encoder`, `model.change` and `data.tasks`.
    """
    for action in list(parser._actions):
        if action.dest in (*_GROUPS, _TASKS):
            # jsonargparse has no public way to change how an argument of a class is parsed.
            action.__class__ = _TaskAction if action.dest == _TASKS else _ComponentAction
            parser.add_argument(f"--{action.dest}.help", action=_HelpAction)


class _HelpAction(argparse._HelpAction):
    def __init__(self, option_strings: list[str], dest: str, **_: object) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, help="show the options of the plugin NAME, and exit")
        self.dest, self.nargs, self.metavar = dest, 1, "NAME"

    def __call__(self, parser: argparse.ArgumentParser, _: object, values: Any, option: str | None = None) -> None:  # noqa: ANN401 - argparse's type
        key = str(option).removeprefix("--").removesuffix(".help")
        print(describe_plugin(_GROUPS.get(key, "unirs.tasks"), values[0]))
        parser.exit()


class _ComponentAction(ActionTypeHint):
    """The plugin of a component: a name, a mapping, or one option of it."""

    def _check_type(self, value: Any, append: bool = False, cfg: Any = None, mode: Any = None) -> Any:  # noqa: ANN401 - jsonargparse's types
        group, previous = _GROUPS[self.dest], cfg.get(self.dest) if cfg else None
        try:
            if isinstance(value, NestedArg):
                key = value.key.removeprefix("init_args.")
                if key in ("name", "class_path"):
                    # The options of another plugin do not fit this one.
                    value = {key: value.val}
                else:
                    given = plugins.normalize(group, previous or {})
                    return _override(given, key, value.val, lambda spec: _check(group, spec))
            elif isinstance(value, str) and isinstance(yaml.safe_load(value), str) and "." not in value:
                value = {"name": value}
            parse: Any = super()._check_type
            value = parse(value, append, cfg, mode)
            if value is not None:
                value = plugins.normalize(group, value)
                _check(group, value)
        except PluginError as error:
            raise PluginError(f"{self.dest}: {error}") from error
        return value


class _TaskAction(ActionTypeHint):
    """The tasks: a list, or one option of one of them."""

    def _check_type(self, value: Any, append: bool = False, cfg: Any = None, mode: Any = None) -> Any:  # noqa: ANN401 - jsonargparse's types
        previous = (cfg.get(self.dest) if cfg else None) or []
        try:
            if isinstance(value, NestedArg):
                label, _, option = value.key.partition(".")
                labels = [task_label(spec) for spec in previous]
                index = _index(labels, label, option, value.val)
                changed = _override(previous[index], option.removeprefix("init_args."), value.val, check_task_options)
                return [*previous[:index], changed, *previous[index + 1 :]]
            parse: Any = super()._check_type
            specs = parse(value, append, cfg, mode)
            specs = [plugins.normalize("unirs.tasks", spec) for spec in specs]
            for spec in specs:
                check_task_options(spec)
        except PluginError as error:
            raise PluginError(f"{self.dest}: {error}") from error
        return specs


def _index(labels: list[str], label: str, option: str, text: str) -> int:
    if label not in labels:
        example = f"--{_TASKS}.{labels[0] if labels else 'LABEL'}.{option or label} {text}"
        raise PluginError(f"no task is labelled '{label}'. {did_you_mean(label, labels)} Write, e.g., {example}")
    if not option:
        raise PluginError(f"name an option of task '{label}': --{_TASKS}.{label}.OPTION VALUE.")
    return labels.index(label)


def _check(group: Group, spec: Mapping[str, Any]) -> dict[str, Any]:
    name = spec["name"]
    options = {key: value for key, value in spec.items() if key != "name"}
    function = plugins.load(group, name)
    return plugins.check_options(f"Plugin '{name}'", function, options, FRAMEWORK_ARGUMENTS.get(group, 0))


def _override(spec: Mapping[str, Any], path: str, text: str, check: Any) -> dict[str, Any]:  # noqa: ANN401 - a function
    """The spec with one option set to the value that a text on the command line stands for."""
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
    value = check(changed)[option]
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    # Only what YAML holds, since the config is saved: a path stays as it is written.
    plain = value is None or isinstance(value, bool | int | float | str | list | dict)
    return changed | ({option: value} if plain else {})
