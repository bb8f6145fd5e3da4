"""Ablation suites as YAML: one config and variants of it, and which trainings they come to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unirs.errors import DataError, UniRSError, did_you_mean
from unirs.plugins import short_name
from unirs.utils.yaml_node import Node, read_yaml

_PREPARED = "prepared:"

_SECTIONS = ("model", "data", "trainer")


@dataclass(frozen=True)
class Variant:
    """A way to train.

    Attributes:
        name: unique in the suite.
        config: for `unirs fit`, without seed and folder.
        trainings: the tasks of each training, by label; together all tasks that the variant is tested on.
    """

    name: str
    config: Mapping[str, Any]
    trainings: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class AblationGroup:
    """Variants to compare.

    Attributes:
        title: what is asked.
        variants: each is compared with the first.
    """

    title: str
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class AblationSuite:
    """Questions, and what their variants share.

    Attributes:
        title: what the suite measures.
        seeds: of the repetitions.
        columns: by task, titles of the statistics to show.
        prepared: trainings that variants name as `prepared:NAME`, each with its seed.
        questions: in the order to show.
    """

    title: str
    seeds: tuple[int, ...]
    columns: Mapping[str, Mapping[str, str]]
    prepared: Mapping[str, tuple[int, Mapping[str, Any]]]
    groups: tuple[AblationGroup, ...]


@dataclass(frozen=True)
class TrainingRun:
    """One call of `unirs fit` and `unirs test`.

    Attributes:
        folder: the name of its folder: who asked for it first, its seed, and a digest of all that it depends on.
        config: with `prepared:<folder>` where the path of a training must stand.
        needs: the folders of those.
    """

    folder: str
    config: Mapping[str, Any]
    depends_on: tuple[str, ...]

    def resolved(self, runs: Path) -> dict[str, Any]:
        """The config for `unirs fit`, where `runs` holds the folders."""
        config: dict[str, Any] = _replaced(self.config, lambda folder: str(runs / folder))
        config["trainer"]["default_root_dir"] = str(runs / self.folder)
        return config


@dataclass(frozen=True)
class Plan:
    """What to train for which numbers.

    Attributes:
        questions: the questions with the chosen variants.
        seeds: of the repetitions.
        trainings: each once, those that others need first.
        tested: by variant and seed, the folder that holds each task's answers.
    """

    groups: tuple[AblationGroup, ...]
    seeds: tuple[int, ...]
    trainings: tuple[TrainingRun, ...]
    tested: Mapping[tuple[str, int], Mapping[str, str]]


def read_ablations(path: Path) -> AblationSuite:
    """Reads a suite.

    The file has `title`, `seeds`, `columns` (task: {statistic: title}), `base` (a config for `unirs fit`), `questions`
    and, where variants need them, `prepared`. A question has a `title` and `variants` by name. A variant has `config`,
    what it changes in the base, and `trainings`, lists of tasks that are trained apart; both may be left out. Mappings
    are merged key by key, and anything else is replaced; `data.tasks` of a variant is a mapping from a task to what
    changes in its entry. A prepared training has `seed` and `config`; a variant writes its folder as `prepared:NAME`.

    Raises:
        DataError: the file is missing or no YAML; a key is unknown (with the nearest match), missing or of the wrong
            type; two variants have one name. Names file and key.
    """
    node = read_yaml(path)
    node.only("title", "seeds", "columns", "base", "prepared", "questions")
    base = _base(Node(node.file, "base", node.get("base", dict)))
    shown = Node(node.file, "columns", node.get("columns", dict))
    shown.only(*_labels(base))
    columns = {task: shown.texts(task) for task in shown.content}
    prepared: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for name, entry in node.mapping("prepared").items():
        entry.only("seed", "config")
        prepared[name] = (_seed(entry, entry.content.get("seed")), _merged(base, entry))
    node.get("questions", dict)
    questions = tuple(_group(entry, base) for entry in node.mapping("questions").values())
    names = [variant.name for question in questions for variant in question.variants]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: {names.count(name)} variants are named '{name}'. Give each a name of its own.")
    seeds = tuple(_seed(node, seed) for seed in node.get("seeds", list))
    return AblationSuite(node.get("title", str), seeds, columns, prepared, questions)


def make_plan(suite: AblationSuite, seeds: Sequence[int] = (), only: Sequence[str] = ()) -> Plan:
    """Which trainings a suite comes to. Those with equal configs are one.

    Args:
        suite: what is asked.
        seeds: other seeds than the suite's.
        only: variants to train, with the first of their question; all where empty.

    Raises:
        UniRSError: there is no such variant, or no such prepared training.
    """
    seeds = tuple(dict.fromkeys(seeds)) or suite.seeds
    names = [variant.name for question in suite.groups for variant in question.variants]
    for name in only:
        if name not in names:
            raise UniRSError(f"The suite has no variant '{name}'. {did_you_mean(name, names)}")
    prepared: dict[str, TrainingRun] = {}
    for name, (seed, config) in suite.prepared.items():
        prepared[name] = _training(name, config, _labels(config), seed, prepared)
    by_config: dict[str, TrainingRun] = {}
    every: dict[tuple[str, int], dict[str, TrainingRun]] = {}
    # All of the suite, so that what a training is called does not depend on the choice.
    for question in suite.groups:
        for variant in question.variants:
            for seed in seeds:
                every[variant.name, seed] = {}
                for tasks in variant.trainings:
                    label = variant.name if len(variant.trainings) == 1 else f"{variant.name}.{'+'.join(tasks)}"
                    training = _training(label, variant.config, tasks, seed, prepared)
                    training = by_config.setdefault(training.folder.rpartition("-")[2], training)
                    every[variant.name, seed] |= dict.fromkeys(tasks, training)
    questions = tuple(
        AblationGroup(
            question.title, tuple(v for v in question.variants if v is question.variants[0] or v.name in only)
        )
        for question in suite.groups
        if any(variant.name in only for variant in question.variants)
    )
    questions = questions if only else suite.groups
    chosen = {variant.name for question in questions for variant in question.variants}
    tested = {key: trainings for key, trainings in every.items() if key[0] in chosen}
    wanted = {training.folder: training for trainings in tested.values() for training in trainings.values()}
    needed = [
        training for training in prepared.values() if any(training.folder in w.depends_on for w in wanted.values())
    ]
    # Those that need others last, so that nobody waits while there is something else to train.
    ordered = sorted(wanted.values(), key=lambda training: bool(training.depends_on))
    return Plan(
        questions,
        seeds,
        (*needed, *ordered),
        {key: {task: training.folder for task, training in trainings.items()} for key, trainings in tested.items()},
    )


def _group(node: Node, base: Mapping[str, Any]) -> AblationGroup:
    node.only("title", "variants")
    node.get("variants", dict)
    variants = []
    for name, entry in node.mapping("variants").items():
        entry.only("config", "trainings")
        config = _merged(base, entry)
        labels = _labels(config)
        parts = [part.content for part in entry.list("trainings")] or [list(labels)]
        if not all(isinstance(tasks, list) and tasks for tasks in parts):
            raise entry.fail("trainings", f"must be a list of lists of tasks, it is {entry.content['trainings']!r}.")
        trained = [task for tasks in parts for task in tasks]
        for task in trained:
            if task not in labels:
                raise entry.fail("trainings", f"there is no task '{task}'. {did_you_mean(str(task), labels)}")
            if trained.count(task) > 1:
                raise entry.fail("trainings", f"'{task}' is in two trainings. Which one is tested would be unclear.")
        variants.append(Variant(name, config, tuple(map(tuple, parts))))
    return AblationGroup(node.get("title", str), tuple(variants))


def _base(node: Node) -> dict[str, Any]:
    _check_config(node)
    data = Node(node.file, "base.data", node.get("data", dict))
    for task in data.get("tasks", list):
        if not isinstance(task, dict) or not isinstance(task.get("name"), str):
            raise data.fail("tasks", f"must be a list of tasks with a name each, one is {task!r}.")
    config: dict[str, Any] = node.content
    return config


def _merged(base: Mapping[str, Any], entry: Node) -> dict[str, Any]:
    """The base with what an entry's `config` changes."""
    node = Node(entry.file, f"{entry.where}.config", entry.content.get("config", {}))
    _check_config(node)
    override = deepcopy(node.content)
    tasks = override.get("data", {}).pop("tasks", {})
    config = _merge(base, override)
    if not isinstance(tasks, dict):
        raise node.fail("data.tasks", "must be a mapping from tasks of the base to what changes in their entries.")
    labels = _labels(base)
    for task, changes in tasks.items():
        if task not in labels:
            raise node.fail(f"data.tasks.{task}", f"is no task of the base. {did_you_mean(str(task), labels)}")
        index = labels.index(task)
        config["data"]["tasks"][index] = _merge(config["data"]["tasks"][index], changes)
    return config


def _merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = deepcopy(dict(base))
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else deepcopy(value)
    return merged


def _check_config(node: Node) -> None:
    node.only(*_SECTIONS)
    for part in _SECTIONS:
        if not isinstance(node.content.get(part, {}), dict):
            raise node.fail(part, f"must be a mapping, it is {node.content[part]!r}.")
    for part, key in (("data", "seed"), ("trainer", "default_root_dir")):
        if key in node.content.get(part, {}):
            raise node.fail(f"{part}.{key}", "is set for each training. Leave it out.")


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a config's tasks in results."""
    tasks = config.get("data", {}).get("tasks", [])
    return tuple(str(task.get("label") or short_name(str(task.get("name")))) for task in tasks)


def _seed(node: Node, value: object) -> int:
    if type(value) is not int or value < 0:
        raise node.fail("seed", f"a seed must be a whole number of 0 or more, it is {value!r}.")
    return value


def _training(
    label: str, config: Mapping[str, Any], tasks: Sequence[str], seed: int, prepared: Mapping[str, TrainingRun]
) -> TrainingRun:
    needs: dict[str, None] = {}

    def folder_of(name: str) -> str:
        if name not in prepared:
            raise UniRSError(
                f"'{label}' names the unknown training '{_PREPARED}{name}'. {did_you_mean(name, prepared)}"
            )
        needs[prepared[name].folder] = None
        return f"{_PREPARED}{prepared[name].folder}"

    whole: dict[str, Any] = _replaced(config, folder_of)
    chosen = [task for task, name in zip(whole["data"]["tasks"], _labels(whole), strict=True) if name in tasks]
    whole |= {"seed_everything": seed, "data": {**whole["data"], "tasks": chosen, "seed": seed}}
    whole["trainer"] = dict(whole.get("trainer", {}))
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:8]
    return TrainingRun(f"{label}-seed{seed}-{digest}", whole, tuple(needs))


def _replaced(value: Any, replace: Callable[[str], str]) -> Any:  # noqa: ANN401 - any YAML
    """A copy in which what follows `prepared:` is replaced, with the mark."""
    if isinstance(value, dict):
        return {key: _replaced(entry, replace) for key, entry in value.items()}
    if isinstance(value, list):
        return [_replaced(entry, replace) for entry in value]
    marked = isinstance(value, str) and value.startswith(_PREPARED)
    return replace(value.removeprefix(_PREPARED)) if marked else value
