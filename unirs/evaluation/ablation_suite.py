"""Ablation suites in YAML: a base config, variants of it, and the training runs that they need."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from unirs.errors import UniRSError, did_you_mean
from unirs.plugins import short_name
from unirs.utils.typed_yaml import StrictStruct, Text, read_yaml

_PREPARED = "prepared:"

_SECTIONS = ("model", "data", "trainer")

Config = dict[str, Any]

Seed = Annotated[int, Meta(ge=0)]


class PreparedRun(StrictStruct, frozen=True):
    """A training run that variants refer to as `prepared:NAME`.

    Attributes:
        seed: its seed.
        config: changes to the base config.
    """

    seed: Seed
    config: Config = {}  # noqa: RUF012 (msgspec copies an empty default)


class Variant(StrictStruct, frozen=True):
    """One variant.

    Attributes:
        config: changes to the base config. Mappings are merged key by key, other values are replaced; `data.tasks` maps
            a task of the base to changes in its entry.
        trainings: the tasks of each training run, by label; empty for one run on all tasks.
    """

    config: Config = {}  # noqa: RUF012 (msgspec copies an empty default)
    trainings: tuple[Annotated[tuple[str, ...], Meta(min_length=1)], ...] = ()


class AblationGroup(StrictStruct, frozen=True):
    """Variants to compare with each other.

    Attributes:
        title: heading of its tables.
        variants: by name; each is compared with the first.
    """

    title: Text
    variants: Annotated[dict[str, Variant], Meta(min_length=1)]


class AblationSuite(StrictStruct, frozen=True):
    """Groups of variants of one base config.

    Attributes:
        title: what the suite measures.
        seeds: of the repetitions.
        columns: titles of the statistics to show, by task and statistic.
        base: a config for `unirs fit`, without seed and folder.
        groups: in the order to show.
        prepared: training runs that variants depend on.
    """

    title: Text
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1)]
    columns: Annotated[dict[str, dict[str, str]], Meta(min_length=1)]
    base: Config
    groups: Annotated[dict[str, AblationGroup], Meta(min_length=1)]
    prepared: dict[str, PreparedRun] = {}  # noqa: RUF012 (msgspec copies an empty default)

    def __post_init__(self) -> None:
        """Checks names of tasks, variants and config sections."""
        _check_sections("base", self.base)
        tasks = self.base.get("data", {}).get("tasks")
        named = isinstance(tasks, list) and all(isinstance(t, dict) and isinstance(t.get("name"), str) for t in tasks)
        if not tasks or not named:
            raise ValueError(f"base.data.tasks: must be a list of tasks with a name, got {tasks!r}")
        labels = task_labels(self.base)
        _check_known("columns", self.columns, labels)
        for name, run in self.prepared.items():
            self._check_override(f"prepared.{name}.config", run.config)
        names = [name for group in self.groups.values() for name in group.variants]
        for key, group in self.groups.items():
            for name, variant in group.variants.items():
                place = f"groups.{key}.variants.{name}"
                if names.count(name) > 1:
                    raise ValueError(f"{place}: {names.count(name)} variants are named '{name}'. Make names unique")
                self._check_override(f"{place}.config", variant.config)
                trained = [task for run in variant.trainings for task in run]
                _check_known(f"{place}.trainings", trained, labels)
                for task in trained:
                    if trained.count(task) > 1:
                        raise ValueError(f"{place}.trainings: '{task}' is in two trainings. Train each task once")

    def _check_override(self, key: str, override: Config) -> None:
        _check_sections(key, override)
        tasks = override.get("data", {}).get("tasks", {})
        if not isinstance(tasks, dict) or not all(isinstance(changes, dict) for changes in tasks.values()):
            raise ValueError(f"{key}.data.tasks: must map tasks of the base to changes in their entries")
        _check_known(f"{key}.data.tasks", tasks, task_labels(self.base))

    def merged(self, override: Config) -> Config:
        """The base config with changes, as a copy."""
        override = deepcopy(override)
        changes = override.get("data", {}).pop("tasks", {})
        config = _merge(self.base, override)
        tasks = zip(config["data"]["tasks"], task_labels(self.base), strict=True)
        config["data"]["tasks"] = [_merge(task, changes.get(label, {})) for task, label in tasks]
        return config


@dataclass(frozen=True)
class TrainingRun:
    """One call of `unirs fit` and `unirs test`.

    Attributes:
        folder: name of its folder: the first variant that needs it, its seed, and a digest of its config.
        config: the config, with `prepared:<folder>` in place of paths of other runs.
        depends_on: folders of those runs.
    """

    folder: str
    config: Config
    depends_on: tuple[str, ...]

    def resolved(self, runs: Path) -> Config:
        """The config for `unirs fit`, with run folders inside `runs`."""
        config: Config = _replaced(self.config, lambda folder: str(runs / folder))
        config["trainer"]["default_root_dir"] = str(runs / self.folder)
        return config


@dataclass(frozen=True)
class Plan:
    """The training runs of a suite.

    Attributes:
        groups: the groups with the chosen variants.
        seeds: of the repetitions.
        trainings: each run once, prepared ones first.
        tested: by variant and seed, the folder with each task's predictions.
    """

    groups: Mapping[str, AblationGroup]
    seeds: tuple[int, ...]
    trainings: tuple[TrainingRun, ...]
    tested: Mapping[tuple[str, int], Mapping[str, str]]


def read_ablations(path: Path) -> AblationSuite:
    """Reads a suite.

    Raises:
        DataError: the file is missing or is not YAML; a key is duplicate, unknown (with the nearest match), missing or
            of the wrong type; two variants have one name. Names file and key.
    """
    return read_yaml(path, AblationSuite)


def make_plan(suite: AblationSuite, seeds: Sequence[int] = (), only: Sequence[str] = ()) -> Plan:
    """Plans the training runs of a suite. Runs with equal configs are one.

    Args:
        suite: the suite.
        seeds: replace the suite's seeds.
        only: variants to train, with the first of their group; empty for all.

    Raises:
        UniRSError: there is no such variant, or no such prepared run.
    """
    seeds = tuple(dict.fromkeys(seeds)) or suite.seeds
    variants = {name: variant for group in suite.groups.values() for name, variant in group.variants.items()}
    for name in only:
        if name not in variants:
            raise UniRSError(f"The suite has no variant '{name}'. {did_you_mean(name, variants)}")
    prepared: dict[str, TrainingRun] = {}
    for name, run in suite.prepared.items():
        config = suite.merged(run.config)
        prepared[name] = _training(name, config, task_labels(config), run.seed, prepared)
    by_digest: dict[str, TrainingRun] = {}
    planned: dict[tuple[str, int], dict[str, TrainingRun]] = {}
    # Names of all variants' runs, so that the name of a run does not depend on `only`.
    for name, variant in variants.items():
        config = suite.merged(variant.config)
        for seed in seeds:
            planned[name, seed] = {}
            for tasks in variant.trainings or (task_labels(config),):
                label = name if len(variant.trainings) < 2 else f"{name}.{'+'.join(tasks)}"
                training = _training(label, config, tasks, seed, prepared)
                training = by_digest.setdefault(training.folder.rpartition("-")[2], training)
                planned[name, seed] |= dict.fromkeys(tasks, training)
    groups = {
        key: _chosen(group, only) for key, group in suite.groups.items() if not only or {*group.variants} & {*only}
    }
    chosen = {name for group in groups.values() for name in group.variants}
    planned = {key: runs for key, runs in planned.items() if key[0] in chosen}
    # Runs that depend on others are last, so that no process waits while another run could start.
    runs = {run.folder: run for by_task in planned.values() for run in by_task.values()}
    ordered = sorted(runs.values(), key=lambda run: bool(run.depends_on))
    needed = [run for run in prepared.values() if any(run.folder in other.depends_on for other in ordered)]
    tested = {key: {task: run.folder for task, run in by_task.items()} for key, by_task in planned.items()}
    return Plan(groups, seeds, (*needed, *ordered), tested)


def task_labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a config's tasks in results."""
    return tuple(str(task.get("label") or short_name(str(task.get("name")))) for task in config["data"]["tasks"])


def _chosen(group: AblationGroup, only: Sequence[str]) -> AblationGroup:
    first = next(iter(group.variants))
    kept = {name: variant for name, variant in group.variants.items() if not only or name == first or name in only}
    return AblationGroup(group.title, kept)


def _merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> Config:
    merged: Config = deepcopy(dict(base))
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else deepcopy(value)
    return merged


def _check_sections(key: str, config: Mapping[str, Any]) -> None:
    _check_known(key, config, _SECTIONS)
    for name, section in config.items():
        if not isinstance(section, dict):
            raise ValueError(f"{key}.{name}: must be a mapping, got {section!r}")  # noqa: TRY004
    for name, option in (("data", "seed"), ("trainer", "default_root_dir")):
        if option in config.get(name, {}):
            raise ValueError(f"{key}.{name}.{option}: is set for each training run. Remove it")


def _check_known(key: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{key}.{name}: unknown key. {did_you_mean(str(name), known)}")


def _training(
    label: str, config: Config, tasks: Sequence[str], seed: int, prepared: Mapping[str, TrainingRun]
) -> TrainingRun:
    needs: dict[str, None] = {}

    def folder_of(name: str) -> str:
        if name not in prepared:
            raise UniRSError(
                f"'{label}' refers to the unknown training run '{_PREPARED}{name}'. {did_you_mean(name, prepared)}"
            )
        needs[prepared[name].folder] = None
        return f"{_PREPARED}{prepared[name].folder}"

    whole: Config = _replaced(config, folder_of)
    chosen = [task for task, name in zip(whole["data"]["tasks"], task_labels(whole), strict=True) if name in tasks]
    whole |= {"seed_everything": seed, "data": {**whole["data"], "tasks": chosen, "seed": seed}}
    whole["trainer"] = dict(whole.get("trainer", {}))
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:8]
    return TrainingRun(f"{label}-seed{seed}-{digest}", whole, tuple(needs))


def _replaced(value: Any, replace: Callable[[str], str]) -> Any:  # noqa: ANN401 - any YAML
    """A copy with the text after each `prepared:`, and the prefix itself, replaced."""
    if isinstance(value, dict):
        return {key: _replaced(entry, replace) for key, entry in value.items()}
    if isinstance(value, list):
        return [_replaced(entry, replace) for entry in value]
    marked = isinstance(value, str) and value.startswith(_PREPARED)
    return replace(value.removeprefix(_PREPARED)) if marked else value
