"""Ablation suites in YAML: a base config, variants of it, and the training runs that they need."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from unirs.errors import UniRSError, did_you_mean
from unirs.tasks.config import task_label
from unirs.utils.io import is_file_name
from unirs.utils.typed_yaml import StrictStruct, Text

Config = dict[str, Any]

Seed = Annotated[int, Meta(ge=0)]


class Sections(StrictStruct, frozen=True, omit_defaults=True):
    """The sections of a config for `unirs fit`, without seed and run folder."""

    model: Config = {}  # noqa: RUF012 (msgspec copies an empty default, here and below)
    data: Config = {}  # noqa: RUF012
    trainer: Config = {}  # noqa: RUF012

    def __post_init__(self) -> None:
        """Rejects options that each training run has of its own."""
        for section, option in (("data", "seed"), ("trainer", "default_root_dir")):
            if option in getattr(self, section):
                raise ValueError(f"{section}.{option}: is set for each training run. Remove it")


class PreparedRun(StrictStruct, frozen=True):
    """A training run that variants refer to as `prepared:NAME`: its seed, and changes to the base config."""

    seed: Seed
    config: Sections = Sections()


class Variant(StrictStruct, frozen=True):
    """Changes to the base config, and the tasks of each training run by label; none for one run on all tasks.

    Mappings are merged key by key, other values are replaced; `data.tasks` maps tasks of the base to changes.
    """

    config: Sections = Sections()
    trainings: tuple[Annotated[tuple[str, ...], Meta(min_length=1)], ...] = ()

    def __post_init__(self) -> None:
        """Checks that no task is trained twice."""
        for task, count in Counter(task for run in self.trainings for task in run).items():
            if count > 1:
                raise ValueError(f"trainings: '{task}' is in two trainings. Train each task once")


class AblationGroup(StrictStruct, frozen=True):
    """Variants by name, each of which is compared with the first, and the heading of their tables."""

    title: Text
    variants: Annotated[dict[str, Variant], Meta(min_length=1)]


class AblationSuite(StrictStruct, frozen=True):
    """Groups of variants of one base config, trained with each seed; `columns` has titles by task and statistic."""

    title: Text
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1)]
    columns: Annotated[dict[str, dict[str, str]], Meta(min_length=1)]
    base: Sections
    groups: Annotated[dict[str, AblationGroup], Meta(min_length=1)]
    prepared: dict[str, PreparedRun] = {}  # noqa: RUF012

    def __post_init__(self) -> None:
        """Checks the tasks of the base, and names of tasks and variants."""
        tasks = self.base.data.get("tasks")
        named = isinstance(tasks, list) and all(isinstance(t, dict) and isinstance(t.get("name"), str) for t in tasks)
        if not tasks or not named:
            raise ValueError(f"base.data.tasks: must be a list of tasks with a name, got {tasks!r}")
        labels = list(map(task_label, tasks))
        if len(set(labels)) < len(labels):
            raise ValueError(f"base.data.tasks: names are {', '.join(labels)}. Give each task a 'label' of its own")
        _check_known("columns", self.columns, labels)
        for name in (*self.variants, *self.prepared):
            if not is_file_name(name):
                raise ValueError(f"{name[:100]!r} cannot name a folder. Use letters, digits, '-' and '_'")
        overrides = {f"prepared.{name}": run.config for name, run in self.prepared.items()}
        for group_name, group in self.groups.items():
            for name, variant in group.variants.items():
                key = f"groups.{group_name}.variants.{name}"
                count = sum(name in other.variants for other in self.groups.values())
                if count > 1:
                    raise ValueError(f"{key}: {count} variants are named '{name}'. Make names unique")
                _check_known(f"{key}.trainings", [task for run in variant.trainings for task in run], labels)
                overrides[key] = variant.config
        for key, override in {"base": self.base, **overrides}.items():
            for name in re.findall(_REFERENCE, json.dumps(msgspec.to_builtins(override))):
                if name not in self.prepared:
                    hint = did_you_mean(name, self.prepared)
                    raise ValueError(f"{key} refers to the unknown training run 'prepared:{name}'. {hint}")
        for key, override in overrides.items():
            changes = override.data.get("tasks", {})
            if not isinstance(changes, dict) or not all(isinstance(change, dict) for change in changes.values()):
                raise ValueError(f"{key}.config.data.tasks: must map tasks of the base to changes in their entries")
            _check_known(f"{key}.config.data.tasks", changes, labels)

    @property
    def variants(self) -> dict[str, Variant]:
        """The variants of all groups by name."""
        return {name: variant for group in self.groups.values() for name, variant in group.variants.items()}

    def merged(self, override: Sections) -> Config:
        """The base config with changes, as a copy."""
        base: Config = msgspec.to_builtins(self.base)
        base["data"]["tasks"] = {task_label(task): task for task in base["data"]["tasks"]}
        config = _merge(base, msgspec.to_builtins(override))
        config["data"]["tasks"] = list(config["data"]["tasks"].values())
        return config


@dataclass(frozen=True)
class TrainingRun:
    """One call of `unirs fit` and `unirs test`.

    Attributes:
        folder: the first variant that needs the run, its seed, and a digest of its config.
        config: has `prepared:<folder>` instead of paths of other runs.
        depends_on: folders of those runs.
    """

    folder: str
    config: Config
    depends_on: tuple[str, ...]

    def resolved(self, runs: Path) -> Config:
        """The config for `unirs fit`, with run folders inside `runs`."""
        config = _replace_references(self.config, lambda folder: str(runs / folder))
        config["trainer"]["default_root_dir"] = str(runs / self.folder)
        return config


@dataclass(frozen=True)
class Plan:
    """The chosen groups and seeds, the training runs in order, and by variant and seed the run folder of each task."""

    groups: Mapping[str, AblationGroup]
    seeds: tuple[int, ...]
    trainings: tuple[TrainingRun, ...]
    tested: Mapping[tuple[str, int], Mapping[str, str]]


def make_plan(suite: AblationSuite, seeds: Sequence[int] = (), only: Sequence[str] = ()) -> Plan:
    """Plans the training runs of a suite; raises a `UniRSError` for an unknown variant or prepared run."""
    seeds = tuple(dict.fromkeys(seeds)) or suite.seeds
    for name in only:
        if name not in suite.variants:
            raise UniRSError(f"The suite has no variant '{name}'. {did_you_mean(name, suite.variants)}")
    groups = {}
    for key, group in suite.groups.items():
        if not only or {*only} & {*group.variants}:
            chosen = {*only, next(iter(group.variants))} if only else {*group.variants}
            kept = {name: variant for name, variant in group.variants.items() if name in chosen}
            groups[key] = AblationGroup(group.title, kept)
    prepared: dict[str, TrainingRun] = {}
    for name, source in suite.prepared.items():
        prepared[name] = _training(name, suite.merged(source.config), (), source.seed, prepared)
    by_digest: dict[str, TrainingRun] = {}
    tested: dict[tuple[str, int], dict[str, str]] = {}
    chosen_runs: dict[str, TrainingRun] = {}
    # Names of all variants' runs, so that the name of a run does not depend on `only`.
    for name, variant in suite.variants.items():
        config = suite.merged(variant.config)
        for seed, tasks in product(seeds, variant.trainings or ((),)):
            label = name if len(variant.trainings) < 2 else f"{name}.{'+'.join(tasks)}"
            run = _training(label, config, tasks, seed, prepared)
            run = by_digest.setdefault(run.folder.rpartition("-")[2], run)
            if any(name in group.variants for group in groups.values()):
                chosen_runs[run.folder] = run
                labels = map(task_label, run.config["data"]["tasks"])
                tested.setdefault((name, seed), {}).update(dict.fromkeys(labels, run.folder))
    # Runs that depend on others are last, so that no process waits while another run could start.
    ordered = sorted(chosen_runs.values(), key=lambda run: bool(run.depends_on))
    first = [run for run in prepared.values() if any(run.folder in other.depends_on for other in ordered)]
    return Plan(groups, seeds, (*first, *ordered), tested)


def _merge(base: Config, override: Config) -> Config:
    merged = base | override
    for key in base.keys() & override.keys():
        if isinstance(base[key], dict) and isinstance(override[key], dict):
            merged[key] = _merge(base[key], override[key])
    return merged


def _check_known(key: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{key}.{name}: unknown key. {did_you_mean(str(name), known)}")


def _training(
    label: str, config: Config, tasks: Sequence[str], seed: int, prepared: Mapping[str, TrainingRun]
) -> TrainingRun:
    """The run that trains some tasks of a config, or all if none is named."""
    depends_on: dict[str, None] = {}

    def folder_of(name: str) -> str:
        if name not in prepared:
            raise UniRSError(
                f"'{label}' refers to the unknown training run 'prepared:{name}'. {did_you_mean(name, prepared)}"
            )
        depends_on[prepared[name].folder] = None
        return f"prepared:{prepared[name].folder}"

    config = {"trainer": {}} | _replace_references(config, folder_of) | {"seed_everything": seed}
    if depends_on:
        # The code that a prepared run names is the suite's own; that of another model is not trusted with it.
        model = config["model"]
        sources = (model.get("init"), (model.get("clue") or {}).get("source"))
        if all(source is None or source.startswith("prepared:") for source in sources):
            model.setdefault("trust_remote_code", True)
    chosen = [task for task in config["data"]["tasks"] if not tasks or task_label(task) in tasks]
    config["data"] |= {"tasks": chosen, "seed": seed}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    return TrainingRun(f"{label}-seed{seed}-{digest}", config, tuple(depends_on))


_REFERENCE = r'"prepared:([^"]*)"'
"""A value that names another training run, in JSON."""


def _replace_references(config: Config, replace: Callable[[str], str]) -> Config:
    """A copy in which each text `prepared:NAME` is replaced by `replace(NAME)`."""
    copy: Config = json.loads(re.sub(_REFERENCE, lambda m: json.dumps(replace(m[1])), json.dumps(config)))
    return copy
