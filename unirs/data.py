"""The one LightningDataModule: makes or finds the tasks' data, mixes them, and builds batches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning import LightningDataModule, Trainer
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from unirs import plugins
from unirs.batch import Batch, collate, pack
from unirs.errors import DataError, PluginError
from unirs.media import Media
from unirs.metrics.base import Prediction
from unirs.prompt import Prompt, Renderer
from unirs.sample import Sample, Split, Turn
from unirs.task import SplitName, Task


@dataclass(frozen=True)
class NamedTask:
    """A task as the config names it.

    Attributes:
        name: the task's name in results: `label` where given, else the plugin's name.
        root: where its data are.
        task: what the plugin built.
        weight: how often an epoch shows each training sample; fractions show a random part.
        synthetic: `size` and `seed` of the data to make where none is found.
    """

    name: str
    root: Path
    task: Task
    weight: float
    synthetic: Mapping[str, int] | None

    @classmethod
    def from_config(cls, spec: Mapping[str, Any]) -> NamedTask:
        """Builds a task from its part of the config; its `root` is `data/<name>` where left out.

        Raises:
            PluginError: an unknown plugin or option, a weight below 0, or a wrong `synthetic`.
        """
        options = dict(spec)
        label = options.pop("label", None) or Path(str(options.get("name", "")).split(":")[0]).stem
        weight = options.pop("weight", 1.0)
        synthetic = options.pop("synthetic", None)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise PluginError(f"Task '{label}': weight must be a number of 0 or more, got {weight!r}.")
        if synthetic is not None and not _is_synthetic(synthetic):
            raise PluginError(f"Task '{label}': synthetic must be {{size: …, seed: …}}, got {synthetic!r}.")
        root = options["root"] = Path(options.get("root") or Path("data") / label)
        return cls(label, root, plugins.build("unirs.tasks", options), float(weight), synthetic)

    def missing(self) -> list[Path]:
        """The needed files and folders that do not exist."""
        return [path for path in self.task.needs if not path.exists()]

    def prepare(self) -> None:
        """Makes the data where the config says so and none is there.

        Raises:
            DataError: data are missing and not to be made; says where to get them.
        """
        missing = self.missing()
        if not missing:
            return
        if self.synthetic is not None and self.task.synthesize is not None and len(missing) == len(self.task.needs):
            self.task.synthesize(self.synthetic.get("size", 512), self.synthetic.get("seed", 0))
            return
        files = ", ".join(map(str, missing))
        remedy = "Or set 'synthetic: {size: 512, seed: 0}' for this task." if self.task.synthesize is not None else ""
        raise DataError(f"Task '{self.name}': missing {files}. Get the data: {self.task.source} {remedy}".strip())


@dataclass(frozen=True)
class EvalSet:
    """What one evaluation loader holds.

    Attributes:
        name: the task's name.
        blank: the media are shown black, as the baseline that cannot see.
    """

    name: str
    blank: bool


class UniRSData(LightningDataModule):
    """Reads tasks, mixes them for training, and evaluates each on its own.

    Args:
        tasks: one entry a task: `name` of its plugin, the plugin's options (`root`, …), and, read here: `weight` (how
            often an epoch shows each of its samples; the paper's mixture is 1, 5, 10), `synthetic: {size, seed}` (make
            the data where none is found), `label` (its name in results).
        batch_size: samples a training batch, in each process.
        eval_batch_size: samples an evaluation batch, in each process.
        max_turns: the most questions about one picture in one sequence; a picture with more of them becomes several
            samples.
        max_length: the longest sequence in tokens, visual ones included; a longer one is an error.
        num_workers: processes that decode and render beside the training process.
        cache_gb: memory in GB, in each of those processes, that keeps decoded and resized frames for later epochs.
        val_samples: samples of each task that validation answers; all where null.
        test_samples: samples of each task that a test answers; all where null.
        blank_media: a test also answers with black media, as a baseline.
        seed: of the order of training samples and the choice of validation samples.
    """

    def __init__(
        self,
        tasks: list[dict[str, Any]],
        batch_size: int = 8,
        eval_batch_size: int = 16,
        max_turns: int = 8,
        max_length: int = 4096,
        num_workers: int = 0,
        cache_gb: float = 1.0,
        val_samples: int | None = 64,
        test_samples: int | None = None,
        blank_media: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.tasks = {task.name: task for task in map(NamedTask.from_config, tasks)}
        if len(self.tasks) != len(tasks):
            names = [
                name for name, count in Counter(NamedTask.from_config(spec).name for spec in tasks).items() if count > 1
            ]
            raise PluginError(f"Several tasks are named {', '.join(names)}. Give each a 'label' of its own.")
        if not tasks:
            raise PluginError("data.tasks is empty: name at least one task.")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.max_turns = max_turns
        self.max_length = max_length
        self.num_workers = num_workers
        self.cache_gb = cache_gb
        self.val_samples = val_samples
        self.test_samples = test_samples
        self.blank_media = blank_media
        self.seed = seed
        self._splits: dict[tuple[str, SplitName], Split] = {}
        self._decode: Callable[[Sample], torch.Tensor] | None = None

    def prepare_data(self) -> None:
        """Makes synthetic data where asked for; checks that all other data are there.

        Raises:
            DataError: data are missing; says where to get them.
        """
        for task in self.tasks.values():
            task.prepare()

    def split(self, name: str, split: SplitName) -> Split:
        """The samples of a task's split, read once.

        Raises:
            DataError: a file or row is wrong, or the split is empty.
        """
        if (name, split) not in self._splits:
            samples = self.tasks[name].task.samples(split)
            if not samples:
                raise DataError(f"Task '{name}' has no samples in split '{split}'.")
            self._splits[name, split] = samples
        return self._splits[name, split]

    def texts(self) -> Iterator[str]:
        """All prompts and answers of the training split, for a tokenizer to be trained on."""
        for name, task in self.tasks.items():
            for sample in self.split(name, "train"):
                for turn in sample.turns:
                    yield f"\n{task.task.prompt(turn.fields)}\n"
                    yield from turn.targets

    def train_dataloader(self) -> DataLoader[Batch]:
        """The weighted mixture of all tasks."""
        groups = [self._items(name, "train", None) for name in self.tasks]
        weights = [task.weight for task in self.tasks.values()]
        trainer = self._trainer
        sizes = [len(group) for group in groups]
        sampler = MixtureSampler(sizes, weights, trainer.world_size, trainer.global_rank, self.seed)
        items = [item for group in groups for item in group]
        return self._loader(items, self.batch_size, sampler, training=True)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader a task, over a bounded number of samples."""
        return [self._eval_loader(name, "val", self.val_samples) for name in self.tasks]

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader for each of `eval_sets("test")`."""
        return [self._eval_loader(s.name, "test", self.test_samples, s.blank) for s in self.eval_sets("test")]

    def eval_sets(self, split: SplitName) -> list[EvalSet]:
        """What the evaluation loaders of a split hold, in their order."""
        sets = [EvalSet(name, blank=False) for name in self.tasks]
        if split == "test" and self.blank_media:
            sets += [EvalSet(name, blank=True) for name in self.tasks]
        return sets

    def _eval_loader(self, name: str, split: SplitName, limit: int | None, blank: bool = False) -> DataLoader[Batch]:
        items = [replace(item, blank=blank) for item in self._items(name, split, limit)]
        trainer = self._trainer
        sampler = DistributedSampler(items, trainer.world_size, trainer.global_rank, shuffle=False)  # type: ignore[arg-type, var-annotated]
        return self._loader(items, self.eval_batch_size, sampler, training=False)

    def _items(self, name: str, split: SplitName, limit: int | None) -> list[Item]:
        """Samples with at most `max_turns` turns each; a limit takes a random choice, always the same."""
        samples = self.split(name, split)
        order: Sequence[int] = range(len(samples))
        if limit is not None and limit < len(samples):
            # Not every n-th one: files may alternate between kinds.
            generator = torch.Generator().manual_seed(self.seed)
            order = sorted(torch.randperm(len(samples), generator=generator)[:limit].tolist())
        return [Item(name, chunk) for index in order for chunk in _chunks(samples[index], self.max_turns)]

    def _loader(
        self, items: list[Item], batch_size: int, sampler: DistributedSampler[Any], *, training: bool
    ) -> DataLoader[Batch]:
        module = cast("Processor", self._trainer.lightning_module)
        if self._decode is None:
            self._decode = FrameCache(module.frame_size, int(self.cache_gb * 1e9))
        prompts = {name: task.task.prompt for name, task in self.tasks.items()}
        dataset: Dataset[Any] = Items(items, self._decode)
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=module.collator(prompts, self.max_length, training=training),
        )

    @property
    def _trainer(self) -> Trainer:
        if self.trainer is None:
            raise RuntimeError("UniRSData gives loaders to a Trainer only: pass it as 'datamodule'.")
        return self.trainer


class Processor(Protocol):
    """What the data ask of the model: how its input is made."""

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width in pixels of the encoder's frames."""
        ...

    def collator(self, prompts: Mapping[str, Prompt], max_length: int, *, training: bool) -> Collator:
        """Makes batches of decoded items of the tasks that `prompts` names."""
        ...


@dataclass(frozen=True)
class Item:
    """A sample of a task; `blank` shows it black."""

    task: str
    sample: Sample
    blank: bool = False


class MixtureSampler(DistributedSampler[Any]):
    """Draws an epoch from concatenated groups of samples, each as often as its weight says, in random order.

    A weight of 2.5 shows each sample twice and a random half of them once more. The groups are spread evenly over the
    epoch, so that every batch holds nearly the same mixture: less noise in the gradients, and few shapes for kernels
    that are made and cached shape by shape. Every process takes its share of the same order, and the order depends on
    seed and epoch only.

    Args:
        sizes: samples of each group.
        weights: one for each group.
        num_replicas: processes.
        rank: this process.
        seed: of the order.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], num_replicas: int, rank: int, seed: int) -> None:
        self.sizes = list(sizes)
        self.weights = list(weights)
        total = sum(round(size * weight) for size, weight in zip(sizes, weights, strict=True))
        if total == 0:
            raise DataError("The mixture is empty: every task has weight 0 or no samples.")
        super().__init__(range(total), num_replicas, rank, shuffle=True, seed=seed)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        # Each group's draws at even distances, from a random place on, and all of them sorted by place.
        placed: list[tuple[float, int]] = []
        start = 0
        for size, weight in zip(self.sizes, self.weights, strict=True):
            count = round(size * weight)
            passes = (torch.randperm(size, generator=generator).tolist() for _ in range(math.ceil(weight)))
            drawn = list(islice(chain.from_iterable(passes), count))
            offset = float(torch.rand((), generator=generator))
            placed += [((place + offset) / count, start + index) for place, index in enumerate(drawn)]
            start += size
        order = [index for _, index in sorted(placed)]
        # Begun again, so that all processes get equally many, were there fewer samples than processes.
        return islice(cycle(order), self.rank, self.total_size, self.num_replicas)


class FrameCache:
    """Decodes a sample's media, and keeps the resized frames in memory while there is room.

    Args:
        size: height and width of the frames.
        limit: bytes.
    """

    def __init__(self, size: tuple[int, int], limit: int) -> None:
        self.size = size
        self.room = limit
        self._kept: dict[object, torch.Tensor] = {}

    def __call__(self, sample: Sample) -> torch.Tensor:
        """The frames of a sample, uint8 `[k, 3, H, W]`."""
        frames = self._kept.get(sample.media)
        if frames is None:
            frames = sample.media.frames(self.size)
            if frames.nbytes <= self.room:
                self.room -= frames.nbytes
                self._kept[sample.media] = frames
        return frames


class Collator:
    """Makes a batch of decoded items: for training all turns of a sample in one sequence, for evaluation one each.

    Args:
        renderer: makes token ids.
        prompts: of each task.
        grids: how many pictures' worth of visual tokens a medium costs.
        tokens: visual tokens a picture.
        training: whether answers are in the sequences.
    """

    def __init__(
        self,
        renderer: Renderer,
        prompts: Mapping[str, Prompt],
        grids: Callable[[Media], int],
        tokens: int,
        training: bool,
    ) -> None:
        self.renderer = renderer
        self.prompts = prompts
        self.grids = grids
        self.tokens = tokens
        self.training = training

    def __call__(self, items: Sequence[tuple[Item, torch.Tensor]]) -> Batch:
        """Batches items and their frames."""
        frames = [frames for _, frames in items]
        kinds = [item.sample.media.kind for item, _ in items]
        grids = [self.grids(item.sample.media) for item, _ in items]
        if self.training:
            sequences = [
                self.renderer.training(self.prompts[item.task], item.sample, count, self.tokens)
                for (item, _), count in zip(items, grids, strict=True)
            ]
            return collate(frames, kinds, *pack(sequences))
        sequences, owners, rows = [], [], []
        for owner, ((item, _), count) in enumerate(zip(items, grids, strict=True)):
            prompt = self.prompts[item.task]
            for turn in item.sample.turns:
                sequences.append(self.renderer.generation(prompt, item.sample, turn, count, self.tokens))
                owners.append((owner,))
                rows.append(_row(item, turn, self.renderer.text(prompt, turn, count)))
        return replace(collate(frames, kinds, sequences, owners, left=True), rows=tuple(rows))


class Items(Dataset[tuple[Item, torch.Tensor]]):
    """Items with their frames.

    Args:
        items: what to decode.
        decode: gives a sample's frames, uint8 `[k, 3, H, W]`.
    """

    def __init__(self, items: list[Item], decode: Callable[[Sample], torch.Tensor]) -> None:
        self.items = items
        self.decode = decode

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Item, torch.Tensor]:
        item = self.items[index]
        frames = self.decode(item.sample)
        return item, torch.zeros_like(frames) if item.blank else frames


def _row(item: Item, turn: Turn, prompt: str) -> Prediction:
    media = tuple(map(str, item.sample.media.paths))
    return Prediction(turn.id, item.task, media, turn.kind, prompt, "", turn.references)


def _is_synthetic(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) <= {"size", "seed"}
        and all(type(number) is int and number >= 0 for number in value.values())
    )


def _chunks(sample: Sample, size: int) -> Iterator[Sample]:
    parts = math.ceil(len(sample.turns) / size)
    # Strided, so that questions which the file groups by type are spread over the parts.
    return (replace(sample, turns=sample.turns[part::parts]) for part in range(parts))
