"""The one LightningDataModule: makes or finds the tasks' data, mixes them, and builds batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning import LightningDataModule, Trainer
from torch.utils.data import ConcatDataset, DataLoader, Dataset, DistributedSampler

from unirs.data.batch import Batch
from unirs.data.collator import Collator
from unirs.data.dataset import DecodedDataset, Example, TaskDataset
from unirs.data.feature_cache import FeatureCache, is_frozen
from unirs.data.frame_cache import FrameCache
from unirs.data.sampler import MixtureSampler
from unirs.errors import DataError, PluginError
from unirs.interfaces import Encoder
from unirs.tasks.config import ClueUse, TaskConfig
from unirs.tasks.media import Media
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import TaskSplit
from unirs.tasks.task import SplitName


@dataclass(frozen=True)
class EvalSet:
    """What one evaluation loader holds.

    Attributes:
        name: the task's name.
        blank: the media are shown black, as the baseline that cannot see.
    """

    name: str
    blank: bool


class UniRSDataModule(LightningDataModule):
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
        cache_gb: memory in GB, in each training process and shared by its workers, that keeps decoded and resized
            frames for later epochs where no features are kept.
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
        self.tasks = {task.name: task for task in map(TaskConfig.from_config, tasks)}
        if len(self.tasks) != len(tasks):
            names = [
                name
                for name, count in Counter(TaskConfig.from_config(spec).name for spec in tasks).items()
                if count > 1
            ]
            raise PluginError(f"Several tasks are named {', '.join(names)}. Give each a 'label' of its own.")
        if not tasks:
            raise PluginError("data.tasks is empty: name at least one task.")
        for name, size in (("cache_gb", cache_gb), ("feature_cache_gb", feature_cache_gb)):
            if size < 0:
                raise DataError(f"data.{name} is {size:g}. Give a number of GB, or 0 to keep nothing.")
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
        self._splits: dict[tuple[str, SplitName], TaskSplit] = {}
        self._decode: FrameCache | None = None
        self._features: FeatureCache | None = None

    def prepare_data(self) -> None:
        """Makes synthetic data where asked for; checks that all other data are there.

        Raises:
            DataError: data are missing; says where to get them.
        """
        for task in self.tasks.values():
            task.prepare()

    def split(self, name: str, split: SplitName) -> TaskSplit:
        """The samples of a task's split, read once.

        Raises:
            DataError: a file or row is wrong, or the split is empty.
        """
        if (name, split) not in self._splits:
            samples = self.tasks[name].task.load_split(split)
            if not samples:
                raise DataError(f"Task '{name}' has no samples in split '{split}'.")
            self._splits[name, split] = samples
        return self._splits[name, split]

    def task_names(self, split: SplitName) -> list[str]:
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
        for name in self.task_names("train"):
            prompt = self.tasks[name].task.prompt
            for sample in self.split(name, "train"):
                for turn in sample.turns:
                    yield f"\n{prompt(turn.prompt_fields)}\n"
                    yield from turn.targets

    def train_dataloader(self) -> DataLoader[Batch]:
        """The weighted mixture of all tasks."""
        names = self.task_names("train")
        groups = [
            replace(
                self._with_clues(self._task_dataset(name, "train", None, self.max_turns), "always"),
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
        return [self._eval_loader(name, "val", self.val_samples) for name in self.task_names("val")]

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader for each of `eval_sets("test")`."""
        return [self._eval_loader(s.name, "test", self.test_samples, s.blank) for s in self.eval_sets("test")]

    def cache_features(self, batch: Batch, features: Sequence[torch.Tensor]) -> None:
        """Keeps what a frozen encoder saw in a batch for other epochs and runs, where there is a cache for it.

        Args:
            batch: from one of the loaders.
            features: `[k, L, Dv]` of each of its media.
        """
        for media, known, seen in zip(batch.media, batch.vision_features, features, strict=True):
            if self._features is not None and media is not None and known is None:
                self._features.put(media, seen)

    def eval_sets(self, split: SplitName) -> list[EvalSet]:
        """What the evaluation loaders of a split hold, in their order."""
        names = self.task_names(split)
        sets = [EvalSet(name, blank=False) for name in names]
        if split == "test" and self.blank_media:
            sets += [EvalSet(name, blank=True) for name in names]
        return sets

    def _eval_loader(self, name: str, split: SplitName, limit: int | None, blank: bool = False) -> DataLoader[Batch]:
        items = self._task_dataset(name, split, limit, None)
        # What cannot see gets no clue either: that would tell it.
        items = replace(items, perturbation="blank") if blank else self._with_clues(items, "test", "always")
        trainer = self._trainer
        ranks = trainer.world_size, trainer.global_rank
        sampler: DistributedSampler[Any] = DistributedSampler(items, *ranks, shuffle=False)
        return self._loader(items, self.eval_batch_size, sampler, training=False)

    def _task_dataset(self, name: str, split: SplitName, limit: int | None, max_turns: int | None) -> TaskDataset:
        """Samples with at most `max_turns` turns each; a limit takes a random choice, always the same."""
        samples = self.split(name, split)
        order: Sequence[int] = range(len(samples))
        if limit is not None and limit < len(samples):
            # Not every n-th one: files may alternate between kinds.
            generator = torch.Generator().manual_seed(self.seed)
            order = sorted(torch.randperm(len(samples), generator=generator)[:limit].tolist())
        return TaskDataset(name, samples, order, max_turns)

    def _with_clues(self, items: TaskDataset, *uses: ClueUse) -> TaskDataset:
        """The items, with clues where their task is of one of the uses."""
        if self.tasks[items.task].clue not in uses:
            return items
        media = dict.fromkeys(items.samples[index].media for index in items.indices)
        return replace(items, clues=cast("Processor", self._trainer.lightning_module).clues(list(media)))

    def _loader(
        self, items: Dataset[Example], batch_size: int, sampler: DistributedSampler[Any], *, training: bool
    ) -> DataLoader[Batch]:
        module = cast("Processor", self._trainer.lightning_module)
        if self._decode is None:
            if self.feature_cache_gb and is_frozen(module.encoder):
                with self._trainer.precision_plugin.forward_context():
                    self._features = FeatureCache(self.feature_cache, module.encoder, int(self.feature_cache_gb * 1e9))
            # Frames whose features are kept are not asked for again.
            needed = self._features is None or any(task.augment for task in self.tasks.values())
            self._decode = FrameCache(module.encoder, int(self.cache_gb * 1e9) if needed else 0)
        prompts = {name: task.task.prompt for name, task in self.tasks.items()}
        dataset: Dataset[Any] = DecodedDataset(items, self._decode, self._features)
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

    def collator(self, prompts: Mapping[str, PromptTemplate], max_length: int, *, training: bool) -> Collator:
        """Makes batches of decoded items of the tasks that `prompts` names."""
        ...

    def clues(self, media: Sequence[Media]) -> Mapping[Media, str]:
        """What a base VLM says about media. Collective: every process names the same."""
        ...
