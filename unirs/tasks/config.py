"""Tasks in a config."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock

from unirs import plugins
from unirs.errors import DataError, PluginError, UniRSError
from unirs.ranges import PositiveInt, Range, Seed, check_ranges
from unirs.tasks.raster import Raster
from unirs.tasks.sample import TaskSplit
from unirs.tasks.task import SplitName, Task
from unirs.utils.io import check_writable, is_file_name, writing
from unirs.utils.typed_yaml import read_config

ClueUse = Literal["never", "test", "always"]


@dataclass(frozen=True)
class SyntheticConfig:
    """Synthetic data, made if a task's data are missing.

    Attributes:
        size: number of training items.
        seed: changes the data.
    """

    size: PositiveInt = 512
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_ranges(SyntheticConfig, self, "synthetic.")


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The options of every task, besides those of its plugin.

    Attributes:
        label: name of the task in results and on the command line; the plugin's name if omitted.
        weight: number of times that an epoch contains each training sample; a fraction selects a random subset.
        synthetic: synthetic data to make if the task's data are missing.
        clue: when prompts contain a clue: `never`, for evaluation only (`test`), or for training too (`always`).
        augment: whether training media are rotated and mirrored, all frames of an input alike.
        allow_outside_root: whether annotations may name media outside the task's `root`.
        raster: bands and ranges of values of images that are GeoTIFF files; needs `unirs[geo]`.
    """

    label: str | None = None
    weight: Annotated[float, Range(0, 10_000)] = 1.0
    synthetic: SyntheticConfig | None = None
    clue: ClueUse = "never"
    augment: bool = False
    allow_outside_root: bool = False
    raster: Raster | None = None

    def __post_init__(self) -> None:
        check_ranges(TaskOptions, self)


_OWN_OPTIONS = {entry.name for entry in fields(TaskOptions)}


def task_label(spec: Mapping[str, Any]) -> str:
    """The name of a task in results: its `label`, or else its plugin's name.

    Raises:
        PluginError: files of results cannot have this name.
    """
    label = str(spec.get("label") or plugins.short_name(str(spec.get("name", ""))))
    if label and not is_file_name(label):
        raise PluginError(f"The label {label[:100]!r} of a task cannot name a file. Use letters, digits, '-' and '_'.")
    return label


def check_task_options(spec: object) -> dict[str, Any]:
    """Checks the options of a task by type, without building it; returns them with its `name`.

    Raises:
        PluginError: an unknown plugin or option, or a value of a wrong type.
    """
    options = plugins.normalize("unirs.tasks", spec)
    return plugins.check_plugin("unirs.tasks", options, TaskOptions, f"Task '{task_label(options)}'")


@dataclass(frozen=True)
class _ConfiguredSplit:
    """The `load_split` of a task, with the options of every task that its samples depend on."""

    load_split: Callable[[SplitName], TaskSplit]
    root: Path | None  # that media must be inside of
    raster: Raster | None

    def __call__(self, split: SplitName) -> TaskSplit:
        samples = self.load_split(split)
        if self.raster is not None:
            samples = samples.with_raster(self.raster)
        return samples if self.root is None else samples.inside(self.root)


@dataclass(frozen=True, kw_only=True)
class TaskConfig(TaskOptions):
    """A task built from its entry in a config: its name in results, its data folder, and the plugin's result."""

    name: str
    root: Path
    task: Task

    @classmethod
    def from_config(cls, spec: Mapping[str, Any]) -> TaskConfig:
        """Builds a task from its entry in a config; `root` is `data/<label>` by default. Errors are `PluginError`s."""
        options = check_task_options(spec)
        name = task_label(options)
        own = {key: options.pop(key) for key in _OWN_OPTIONS & options.keys()}
        root = options.get("root") or Path("data") / name
        if not isinstance(root, str | Path):
            raise PluginError(f"Task '{name}': option 'root' is {root!r}, it must be Path.")
        root = options["root"] = Path(root)
        try:
            config = cls(name=name, root=root, task=plugins.create("unirs.tasks", options), **own)
        except PluginError as error:
            raise PluginError(f"Task '{name}': {error}") from error
        if config.augment and config.task.prompt.boxes:
            raise PluginError(f"Task '{name}': 'augment' rotates and mirrors images, but not boxes. Remove it.")
        inside = None if config.allow_outside_root else root
        load_split = _ConfiguredSplit(config.task.load_split, inside, config.raster)
        return replace(config, task=replace(config.task, load_split=load_split))

    @staticmethod
    def read_all(specs: Iterable[Mapping[str, Any]]) -> dict[str, TaskConfig]:
        """Builds the tasks of a config's `data.tasks`, by name.

        Raises:
            PluginError: a task is wrong, two have one name, or there is none.
        """
        tasks: dict[str, TaskConfig] = {}
        for task in map(TaskConfig.from_config, specs):
            if task.name in tasks:
                raise PluginError(f"Several tasks are named {task.name}. Give each its own 'label'.")
            tasks[task.name] = task
        if not tasks:
            raise PluginError("data.tasks is empty: name at least one task.")
        return tasks

    @staticmethod
    def read_run(path: Path) -> dict[str, TaskConfig]:
        """Builds the tasks of a run, from its `config.yaml`, by name; the errors name the file."""
        data = read_config(path).get("data")
        specs = data.get("tasks") if isinstance(data, Mapping) else None
        if not isinstance(specs, list):
            raise DataError(f"{path} has no list 'data.tasks'. Name the folder of a run, or restore its config.")
        try:
            return TaskConfig.read_all(specs)
        except UniRSError as error:
            raise type(error)(f"{path}: {error}") from error

    def missing_paths(self) -> list[Path]:
        """The required files and folders that do not exist."""
        return [path for path in self.task.required_paths if not path.exists()]

    def check(self) -> Callable[[], None] | None:
        """Checks that the data exist, or can be made as configured; returns a function that makes missing data.

        Raises:
            DataError: data are missing; the message has the hint where to get them.
            UniRSError: synthetic data cannot be written.
        """
        missing, synthesize = self.missing_paths(), self.task.synthesize
        if not missing:
            return None
        if synthesize and self.synthetic and len(missing) == len(self.task.required_paths):
            check_writable(self.root.parent, f"Set another 'root' for task '{self.name}', where its data are made.")
            return partial(synthesize, self.synthetic.size, self.synthetic.seed)
        files = ", ".join(map(str, missing))
        remedy = " Or set 'synthetic: {size: 512, seed: 0}' for this task." if synthesize else ""
        raise DataError(f"Task '{self.name}': missing {files}. Get the data: {self.task.download_hint}{remedy}")

    def prepare(self) -> None:
        """Makes synthetic data if the config has them and all of the task's data are missing; raises as `check`."""
        make = self.check()
        if make is not None:
            with writing(self.root.parent):
                self.root.parent.mkdir(parents=True, exist_ok=True)
                # Several runs may find the data missing at once: one makes them, and the others wait.
                with FileLock(self.root.with_name(f".{self.root.name}.lock")):
                    if self.missing_paths():
                        make()
