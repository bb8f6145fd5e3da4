"""The one LightningDataModule: makes or finds the tasks' data, mixes them, and builds batches."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, cycle, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, cast, get_args

import torch
from lightning import LightningDataModule, Trainer
from torch.utils.data import ConcatDataset, DataLoader, Dataset, DistributedSampler

from unirs import plugins
from unirs.batch import Batch, collate, pack
from unirs.errors import DataError, PluginError, nearest
from unirs.features import FeatureCache, never_changes
from unirs.interfaces import Encoder
from unirs.media import Alteration, Altered, Media
from unirs.metrics.base import Prediction
from unirs.prompt import Prompt, Renderer
from unirs.sample import Sample, Split, Turn
from unirs.task import SplitName, Task

ClueUse = Literal["never", "test", "always"]
_TURNS = 32
"""Questions in a sequence of an evaluation: more share a prefix less often read, fewer pay less for attention."""


@dataclass(frozen=True)
class NamedTask:
    """A task as the config names it.

    Attributes:
        name: the task's name in results: `label` where given, else the plugin's name.
        root: where its data are.
        task: what the plugin built.
        weight: how often an epoch shows each training sample; fractions show a random part.
        synthetic: `size` and `seed` of the data to make where none is found.
        clue: when its prompts hold clues.
        augment: whether training turns and mirrors its media.
    """

    name: str
    root: Path
    task: Task
    weight: float
    synthetic: Mapping[str, int] | None
    clue: ClueUse
    augment: bool

    @classmethod
    def from_config(cls, spec: Mapping[str, Any]) -> NamedTask:
        """Builds a task from its part of the config; its `root` is `data/<name>` where left out.

        Raises:
            PluginError: an unknown plugin or option, a weight below 0, or a wrong `synthetic`.
        """
        options = dict(spec)
        label = options.pop("label", None) or plugins.short_name(str(options.get("name", "")))
        weight = options.pop("weight", 1.0)
        synthetic = options.pop("synthetic", None)
        augment = options.pop("augment", False)
        if not isinstance(augment, bool):
            raise PluginError(f"Task '{label}': augment must be true or false, got {augment!r}.")
        clue = options.pop("clue", "never")
        if clue not in get_args(ClueUse):
            raise PluginError(f"Task '{label}': unknown clue '{clue}'. {nearest(str(clue), get_args(ClueUse))}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise PluginError(f"Task '{label}': weight must be a number of 0 or more, got {weight!r}.")
        if synthetic is not None and not _is_synthetic(synthetic):
            raise PluginError(f"Task '{label}': synthetic must be {{size: …, seed: …}}, got {synthetic!r}.")
        root = options["root"] = Path(options.get("root") or Path("data") / label)
        return cls(label, root, plugins.build("unirs.tasks", options), float(weight), synthetic, clue, augment)

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
            the data where none is found), `label` (its name in results), `clue` (whether prompts hold what a base VLM
            says about the media: `never`, `test` for evaluation alone, `always` for training too), `augment` (true
            turns and mirrors its training media, all frames alike; for answers that name no directions).
        batch_size: samples a training batch, in each process.
        eval_batch_size: samples an evaluation batch, in each process.
        max_turns: in training, the most questions about one picture in one sequence; a picture with more of them
            becomes several samples.
        max_length: the longest sequence in tokens, visual ones included; a longer one is an error.
        num_workers: processes that decode and render beside the training process.
        cache_gb: memory in GB, in each of those processes, that keeps decoded and resized frames for later epochs
            where no features are kept.
        feature_cache: folder that keeps what a frozen encoder sees in media that are not augmented, for later epochs
            and for all runs: by the media's content, and by what the encoder makes of a test frame.
        feature_cache_gb: disk space in GB for that folder, encoders of earlier runs included; 0 encodes anew each time.
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
        feature_cache: Path = Path("runs/features"),
        feature_cache_gb: float = 10.0,
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
        self.feature_cache = feature_cache
        self.feature_cache_gb = feature_cache_gb
        self.val_samples = val_samples
        self.test_samples = test_samples
        self.blank_media = blank_media
        self.seed = seed
        self._splits: dict[tuple[str, SplitName], Split] = {}
        self._decode: FrameCache | None = None
        self._features: FeatureCache | None = None

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

    def names(self, split: SplitName) -> list[str]:
        """The tasks that have a split: some are only trained on, or only evaluated.

        Raises:
            DataError: none has it.
        """
        names = [name for name, task in self.tasks.items() if split in task.task.splits]
        if not names:
            raise DataError(f"No task has the split '{split}'. Add one that has to data.tasks.")
        return names

    def texts(self) -> Iterator[str]:
        """All prompts and answers of the training split, for a tokenizer to be trained on."""
        for name in self.names("train"):
            prompt = self.tasks[name].task.prompt
            for sample in self.split(name, "train"):
                for turn in sample.turns:
                    yield f"\n{prompt(turn.fields)}\n"
                    yield from turn.targets

    def train_dataloader(self) -> DataLoader[Batch]:
        """The weighted mixture of all tasks."""
        names = self.names("train")
        groups = [
            replace(
                self._with_clues(self._items(name, "train", None, self.max_turns), "always"),
                augment=self.tasks[name].augment,
            )
            for name in names
        ]
        weights = [self.tasks[name].weight for name in names]
        trainer = self._trainer
        sizes = [len(group) for group in groups]
        sampler = MixtureSampler(sizes, weights, trainer.world_size, trainer.global_rank, self.seed)
        return self._loader(ConcatDataset(groups), self.batch_size, sampler, training=True)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader a task, over a bounded number of samples."""
        return [self._eval_loader(name, "val", self.val_samples) for name in self.names("val")]

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader for each of `eval_sets("test")`."""
        return [self._eval_loader(s.name, "test", self.test_samples, s.blank) for s in self.eval_sets("test")]

    def keep_features(self, batch: Batch, features: Sequence[torch.Tensor]) -> None:
        """Keeps what a frozen encoder saw in a batch for other epochs and runs, where there is a cache for it.

        Args:
            batch: from one of the loaders.
            features: `[k, L, Dv]` of each of its media.
        """
        for media, known, seen in zip(batch.media, batch.features, features, strict=True):
            if self._features is not None and media is not None and known is None:
                self._features.put(media, seen)

    def eval_sets(self, split: SplitName) -> list[EvalSet]:
        """What the evaluation loaders of a split hold, in their order."""
        names = self.names(split)
        sets = [EvalSet(name, blank=False) for name in names]
        if split == "test" and self.blank_media:
            sets += [EvalSet(name, blank=True) for name in names]
        return sets

    def _eval_loader(self, name: str, split: SplitName, limit: int | None, blank: bool = False) -> DataLoader[Batch]:
        items = self._items(name, split, limit, None)
        # What cannot see gets no clue either: that would tell it.
        items = replace(items, alter="blank") if blank else self._with_clues(items, "test", "always")
        trainer = self._trainer
        ranks = trainer.world_size, trainer.global_rank
        sampler: DistributedSampler[Any] = DistributedSampler(items, *ranks, shuffle=False)
        return self._loader(items, self.eval_batch_size, sampler, training=False)

    def _items(self, name: str, split: SplitName, limit: int | None, max_turns: int | None) -> TaskItems:
        """Samples with at most `max_turns` turns each; a limit takes a random choice, always the same."""
        samples = self.split(name, split)
        order: Sequence[int] = range(len(samples))
        if limit is not None and limit < len(samples):
            # Not every n-th one: files may alternate between kinds.
            generator = torch.Generator().manual_seed(self.seed)
            order = sorted(torch.randperm(len(samples), generator=generator)[:limit].tolist())
        return TaskItems(name, samples, order, max_turns)

    def _with_clues(self, items: TaskItems, *uses: ClueUse) -> TaskItems:
        """The items, with clues where their task is of one of the uses."""
        if self.tasks[items.task].clue not in uses:
            return items
        media = dict.fromkeys(items.samples[index].media for index in items.order)
        return replace(items, clues=cast("Processor", self._trainer.lightning_module).clues(list(media)))

    def _loader(
        self, items: Dataset[Item], batch_size: int, sampler: DistributedSampler[Any], *, training: bool
    ) -> DataLoader[Batch]:
        module = cast("Processor", self._trainer.lightning_module)
        if self._decode is None:
            if self.feature_cache_gb and never_changes(module.encoder):
                with self._trainer.precision_plugin.forward_context():
                    self._features = FeatureCache(self.feature_cache, module.encoder, int(self.feature_cache_gb * 1e9))
            # Frames whose features are kept are not asked for again.
            needed = self._features is None or any(task.augment for task in self.tasks.values())
            self._decode = FrameCache(module.encoder, int(self.cache_gb * 1e9) if needed else 0)
        prompts = {name: task.task.prompt for name, task in self.tasks.items()}
        dataset: Dataset[Any] = Items(items, self._decode, self._features)
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
    def encoder(self) -> Encoder:
        """What the frames are for."""
        ...

    def collator(self, prompts: Mapping[str, Prompt], max_length: int, *, training: bool) -> Collator:
        """Makes batches of decoded items of the tasks that `prompts` names."""
        ...

    def clues(self, media: Sequence[Media]) -> Mapping[Media, str]:
        """What a base VLM says about media. Collective: every process names the same."""
        ...


@dataclass(frozen=True)
class Item:
    """A sample of a task.

    Attributes:
        task: its name.
        sample: with the turns to ask.
        clue: what a base VLM says about it.
        augment: show it turned and mirrored at random.
    """

    task: str
    sample: Sample
    clue: str = ""
    augment: bool = False


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
        encoder: what the frames are for.
        limit: bytes.
    """

    def __init__(self, encoder: Encoder, limit: int) -> None:
        # Not the encoder itself: workers would be sent its weights.
        self.size, self.fit = encoder.size, encoder.fit
        self.room = limit
        self._kept: dict[object, torch.Tensor] = {}

    def __call__(self, sample: Sample) -> torch.Tensor:
        """The frames of a sample, uint8 `[k, 3, H, W]`."""
        frames = self._kept.get(sample.media)
        if frames is None:
            frames = sample.media.frames(self.size, self.fit)
            # What is altered costs more to keep than to make, or is shown once.
            if frames.nbytes <= self.room and not isinstance(sample.media, Altered):
                self.room -= frames.nbytes
                self._kept[sample.media] = frames
        return frames


class Collator:
    """Makes a batch of decoded items, all turns of a sample in one sequence where the model takes branches.

    Args:
        renderer: makes token ids.
        prompts: of each task.
        grids: how many pictures' worth of visual tokens a medium costs.
        tokens: visual tokens a picture.
        training: whether answers are in the sequences.
        branches: whether the model takes sequences that branch.
    """

    def __init__(
        self,
        renderer: Renderer,
        prompts: Mapping[str, Prompt],
        grids: Callable[[Media], int],
        tokens: int,
        training: bool,
        branches: bool = True,
    ) -> None:
        self.renderer = renderer
        self.prompts = prompts
        self.grids = grids
        self.tokens = tokens
        self.training = training
        self.branches = branches

    def __call__(self, items: Sequence[tuple[Item, Shown]]) -> Batch:
        """Batches items and what they show."""
        media = tuple(None if item.augment else item.sample.media for item, _ in items)
        return replace(self._batch(items), media=media)

    def _batch(self, items: Sequence[tuple[Item, Shown]]) -> Batch:
        frames, features = [shown.frames for _, shown in items], [shown.features for _, shown in items]
        kinds = [item.sample.media.kind for item, _ in items]
        grids = [self.grids(item.sample.media) for item, _ in items]
        if self.training:
            asked = [
                (self.prompts[item.task], item.sample, count, self.tokens, item.clue)
                for (item, _), count in zip(items, grids, strict=True)
            ]
            if self.branches:
                rows, owners = pack([self.renderer.training(*one) for one in asked])
                return collate(frames, kinds, rows, owners, features=features)
            plain = [(row, (owner,)) for owner, one in enumerate(asked) for row in self.renderer.unbranched(*one)]
            rows, owners = [row for row, _ in plain], [owner for _, owner in plain]
            return collate(frames, kinds, rows, owners, features=features)
        sequences, of, told = [], [], []
        step = _TURNS if self.branches else 1
        for owner, ((item, _), count) in enumerate(zip(items, grids, strict=True)):
            prompt, turns = self.prompts[item.task], item.sample.turns
            for start in range(0, len(turns), step):
                sample = replace(item.sample, turns=turns[start : start + step])
                sequences.append(self.renderer.asking(prompt, sample, count, self.tokens, item.clue))
                of.append((owner,))
            told += [_row(item, turn, self.renderer.text(prompt, turn, count, item.clue)) for turn in turns]
        batch = collate(frames, kinds, sequences, of, left=not self.branches, features=features)
        return replace(batch, rows=tuple(told))


@dataclass(frozen=True)
class TaskItems(Dataset[Item]):
    """Samples of a task as items, made when they are asked for: large data sets need not stand in memory as objects.

    Attributes:
        task: its name.
        samples: of one of its splits.
        order: which of them, and in which order.
        max_turns: the most turns of an item; a sample with more of them becomes several. None for all.
        alter: how its media are shown, if not as they are.
        augment: as in `Item`.
        clues: by medium; none where empty.
    """

    task: str
    samples: Split
    order: Sequence[int]
    max_turns: int | None
    alter: Alteration | None = None
    augment: bool = False
    clues: Mapping[Media, str] = field(default_factory=dict)
    _ends: array[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        most = self.max_turns
        parts = (1 if most is None else math.ceil(self.samples.turns(index) / most) for index in self.order)
        object.__setattr__(self, "_ends", array("q", accumulate(parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Item:
        place = bisect_right(self._ends, index)
        start = self._ends[place - 1] if place else 0
        sample = self.samples[self.order[place]]
        # Strided, so that questions which the file groups by type are spread over the parts.
        turns = sample.turns[index - start :: self._ends[place] - start]
        clue = self.clues[sample.media] if self.clues else ""
        media = sample.media
        if self.alter is not None and not isinstance(media, Altered):
            media = Altered(media, self.alter)
        return Item(self.task, replace(sample, media=media, turns=turns), clue, self.augment)


class Shown(NamedTuple):
    """A medium for the model: one of the two.

    Attributes:
        frames: uint8 `[k, 3, H, W]`.
        features: what the encoder sees in them, `[k, L, Dv]`, where that is kept.
    """

    frames: torch.Tensor | None = None
    features: torch.Tensor | None = None


class Items(Dataset[tuple[Item, Shown]]):
    """Items with what they show.

    Args:
        items: of a known length.
        decode: gives a sample's frames, uint8 `[k, 3, H, W]`.
        features: where those of a frozen encoder are looked for.
    """

    def __init__(
        self, items: Dataset[Item], decode: Callable[[Sample], torch.Tensor], features: FeatureCache | None = None
    ) -> None:
        self.items = items
        self.decode = decode
        self.features = features

    def __len__(self) -> int:
        return len(self.items)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Item, Shown]:
        item = self.items[index]
        if item.augment:
            return item, Shown(_turned(self.decode(item.sample)))
        known = None if self.features is None else self.features.get(item.sample.media)
        return item, Shown(self.decode(item.sample)) if known is None else Shown(features=known)


def _turned(frames: torch.Tensor) -> torch.Tensor:
    """One of the eight ways to look down at the same place; of four where frames are not square."""
    quarters, mirrored = divmod(int(torch.randint(8, ())), 2)
    if mirrored:
        frames = frames.flip(-1)
    square = frames.shape[-1] == frames.shape[-2]
    return torch.rot90(frames, quarters if square else 2 * (quarters % 2), (-2, -1))


def _row(item: Item, turn: Turn, prompt: str) -> Prediction:
    media = tuple(map(str, item.sample.media.paths))
    return Prediction(turn.id, item.task, media, turn.kind, prompt, "", turn.references, item.clue)


def _is_synthetic(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) <= {"size", "seed"}
        and all(type(number) is int and number >= 0 for number in value.values())
    )
