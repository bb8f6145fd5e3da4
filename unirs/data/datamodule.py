"""The LightningDataModule: finds or makes the data of tasks, mixes them, and makes loaders."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch.utils.data import ConcatDataset, DataLoader, Dataset, DistributedSampler, Sampler

from unirs import plugins
from unirs.data.batch import Batch, SkippedSample
from unirs.data.collator import Collator
from unirs.data.dataset import Example, TaskDataset, is_readable
from unirs.data.eval_set import EvalSet
from unirs.data.feature_cache import FeatureCache
from unirs.data.frame_cache import FrameCache
from unirs.data.loaders import BatchCollator, make_loader, world
from unirs.data.memory_features import FeatureStore
from unirs.data.processor import Processor
from unirs.data.sampler import MixtureSampler
from unirs.errors import DataError, ModelError
from unirs.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, Seed, UnitInterval, check_ranges
from unirs.tasks.config import ClueUse, TaskConfig, task_label
from unirs.tasks.perturbation import PERTURBATIONS, Perturbation
from unirs.tasks.sample import TaskSplit
from unirs.tasks.task import SplitName
from unirs.tasks.video_reader import DEFAULT_READER, create_reader
from unirs.utils.io import check_writable
from unirs.utils.process import release_memory

OnBadSample = Literal["raise", "skip"]


class UniRSDataModule(LightningDataModule):
    """Loads tasks, as a mixture for training and one by one for evaluation.

    Loaders need a model's `Processor` and no Trainer: `data.processor = module.processor`. It may be replaced by that
    of another model; later loaders are for that model.

    Args:
        tasks: one entry for each task: `name` of its plugin, the plugin's options (`root`, …), and the options of every
            task, `unirs.tasks.config.TaskOptions` (`label`, `weight`, `synthetic`, `clue`, `augment`). On the command
            line, an option of one task is `--data.tasks.LABEL.OPTION VALUE`.
        batch_size: samples of a training batch, in each process.
        eval_batch_size: samples of an evaluation batch, in each process.
        max_turns: maximum number of questions about one input in a training sequence; one with more becomes several
            samples.
        max_length: maximum length of a sequence in tokens, visual ones included; a longer one is an error.
        num_workers: processes of each loader that decode media and encode prompts.
        video_reader: decodes videos: `pyav`, `decord`, `torchcodec`, or another plugin of `unirs.video_readers`.
        cache_gb: memory in GB for decoded and resized frames of media without cached features, in each training
            process and shared by its workers.
        feature_cache: folder for the features of frozen encoders, shared by epochs and runs; keyed by the media's
            content and the encoder's fingerprint. Augmented media are not cached.
        feature_cache_gb: disk space in GB for that folder, other encoders included; 0 disables the cache.
        val_samples: samples of each task in validation; all if null.
        test_samples: samples of each task in a test; all if null.
        blank_media: a test also evaluates black frames, as a baseline.
        on_bad_sample: `raise` ends the run at a sample whose media or text cannot be read. `skip` omits it, with a
            warning at the first one; the results list all.
        max_bad_share: share of the samples of a split, or of the training mixture, that may be skipped; more end the
            run.
        seed: of the order of training samples and the choice of validation samples.
        processor: of the model that the loaders are for. Not part of a config.
    """

    def __init__(
        self,
        tasks: list[dict[str, Any]],
        batch_size: PositiveInt = 8,
        eval_batch_size: PositiveInt = 16,
        max_turns: PositiveInt = 8,
        max_length: PositiveInt = 4096,
        num_workers: NonNegativeInt = 0,
        video_reader: str = DEFAULT_READER,
        cache_gb: NonNegativeFloat = 1.0,
        feature_cache: Path = Path("runs/features"),
        feature_cache_gb: NonNegativeFloat = 10.0,
        val_samples: PositiveInt | None = 64,
        test_samples: PositiveInt | None = None,
        blank_media: bool = True,
        on_bad_sample: OnBadSample = "raise",
        max_bad_share: UnitInterval = 0.01,
        seed: Seed = 0,
        processor: Processor | None = None,
    ) -> None:
        super().__init__()
        check_ranges(UniRSDataModule, locals(), "data.")
        self._specs = [plugins.normalize("unirs.tasks", spec) for spec in tasks]
        self.tasks = TaskConfig.read_all(self._specs)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.max_turns, self.max_length = max_turns, max_length
        self.num_workers = num_workers
        create_reader(video_reader)  # to raise its errors early
        self.video_reader = video_reader
        self.cache_gb, self.feature_cache_gb = cache_gb, feature_cache_gb
        self.feature_cache = feature_cache
        self.val_samples, self.test_samples = val_samples, test_samples
        # Perturbations that a test also evaluates, on tasks of a modality that they apply to.
        blank: tuple[Perturbation, ...] = ("blank",)
        self.perturbations: Collection[Perturbation] = blank if blank_media else ()
        self.on_bad_sample, self.max_bad_share = on_bad_sample, max_bad_share
        self.seed = seed
        # Returns the ids of the turns of an evaluation set that are answered; set to resume an evaluation.
        self.answered: Callable[[EvalSet], Collection[str]] | None = None
        self._splits: dict[tuple[str, SplitName], TaskSplit] = {}
        # By name of an evaluation set, empty for training: number of samples, and those skipped by this process.
        self._sizes: dict[str, int] = {}
        self._skipped: dict[str, dict[tuple[str, str], SkippedSample]] = {}
        self._frame_cache: FrameCache | None = None
        self._processor: Processor | None = None
        if processor is not None:
            self.processor = processor

    def __getstate__(self) -> dict[str, Any]:
        # Functions of plugins do not pickle: another process builds the tasks from their config, and reads them once.
        specs = [spec | {"clue": self.tasks[task_label(spec)].clue} for spec in self._specs]
        return vars(self) | {"tasks": specs, "_splits": {}, "_frame_cache": None, "answered": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.tasks = TaskConfig.read_all(state["tasks"])
        if self._processor is not None:
            self._processor.tasks = self.tasks

    @property
    def processor(self) -> Processor:
        """The processor of the model that loaders are made for."""
        if self._processor is None:
            raise ModelError("The datamodule has no processor. Set 'data.processor = module.processor'.")
        return self._processor

    @processor.setter
    def processor(self, processor: Processor) -> None:
        self._processor = processor
        self._frame_cache = None
        processor.tasks, processor.max_length = self.tasks, self.max_length

    def prepare_data(self) -> None:
        """Makes synthetic data as configured; raises a `DataError` with a download hint if other data are missing."""
        for task in self.tasks.values():
            task.prepare()

    def setup(self, stage: str) -> None:
        """Trains the tokenizer of a language model that starts from scratch, before a training."""
        if stage == "fit":
            self.processor.fit_tokenizer(self.texts())

    def split(self, name: str, split: SplitName, *, keep: bool = True) -> TaskSplit:
        """A split of a task, which is read once unless `keep` is false: its rows may take much memory.

        Raises:
            DataError: the split is empty or has invalid rows.
        """
        if (name, split) in self._splits:
            return self._splits[name, split]
        samples = self.tasks[name].task.load_split(split).with_video_reader(self.video_reader)
        if not samples:
            raise DataError(f"Task '{name}' has no samples in split '{split}'.")
        release_memory()
        if keep:
            self._splits[name, split] = samples
        return samples

    def task_names(self, split: SplitName) -> list[str]:
        """The tasks that have a split; raises a `DataError` if none has."""
        names = [name for name, task in self.tasks.items() if split in task.task.splits]
        if not names:
            raise DataError(f"No task has the split '{split}'. Add one that has it to data.tasks.")
        return names

    def texts(self) -> Iterator[str]:
        """All prompts and answers of the training split, to train a tokenizer."""
        for name in self.task_names("train"):
            prompt = self.tasks[name].task.prompt
            for sample in self.split(name, "train"):
                for turn in sample.turns:
                    yield f"\n{prompt(turn.prompt_fields)}\n"
                    yield from turn.targets

    def train_dataloader(self) -> DataLoader[Batch]:
        """The weighted mixture of all tasks."""
        tasks = {name: self.tasks[name] for name in self.task_names("train")}
        groups = [
            self._with_clues(self._task_dataset(name, "train", None, self.max_turns, task.augment), "always")
            for name, task in tasks.items()
        ]
        weights = [task.weight for task in tasks.values()]
        self._begin("", sum(len(group.indices) for group in groups))
        sampler = MixtureSampler([len(group) for group in groups], weights, *world(), self.seed, self.batch_size)
        return self._loader(ConcatDataset(groups), self.batch_size, sampler, Collator(self.processor, training=True))

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader for each task, over at most `val_samples` samples."""
        return [self._eval_loader(EvalSet(name), "val", self.val_samples) for name in self.task_names("val")]

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader for each task, and one for each of its perturbations."""
        sets = [EvalSet(name) for name in self.task_names("test")]
        sets += [
            EvalSet(one.task, perturbation)
            for one in sets
            for perturbation in PERTURBATIONS[self.tasks[one.task].task.modality]
            if perturbation in self.perturbations
        ]
        return [self._eval_loader(one, "test", self.test_samples) for one in sets]

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader for each task, over its test split."""
        return [self._eval_loader(EvalSet(name), "test", self.test_samples) for name in self.task_names("test")]

    def _eval_loader(self, eval_set: EvalSet, split: SplitName, limit: int | None) -> DataLoader[Batch]:
        dataset = self._task_dataset(eval_set.task, split, limit, self.processor.max_eval_turns)
        dataset = replace(dataset, perturbation=eval_set.perturbation)
        # No clue for blank media, since it describes the original.
        if eval_set.perturbation != "blank":
            dataset = self._with_clues(dataset, "test", "always")
        self._begin(eval_set.name, len(dataset.indices))
        if self.answered is not None and (answered := self.answered(eval_set)):
            samples = dataset.samples
            is_open = {i: any(turn.id not in answered for turn in samples[i].turns) for i in dataset.indices}
            indices = [i for i in dataset.indices if is_open[i]]
            # Lightning does not end an evaluation without batches, and all open samples may be ones to skip.
            if not indices or self.on_bad_sample == "skip":
                indices += [i for i in dataset.indices if not is_open[i]][-1:]
            dataset = replace(dataset, indices=indices)
        sampler: DistributedSampler[Any] = DistributedSampler(dataset, *world(), shuffle=False)
        collator_type = self.processor.collator_type or Collator
        collator = collator_type(self.processor, training=False, eval_set=eval_set.name, with_labels=split == "val")
        return self._loader(dataset, self.eval_batch_size, sampler, collator)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ANN401, ARG002
        """Counts skipped samples; a Trainer calls it for each batch.

        Raises:
            DataError: more samples than `max_bad_share` are skipped.
        """
        name, skipped = batch.eval_set, self._skipped.setdefault(batch.eval_set, {})
        for one in batch.skipped:
            if not skipped:
                warnings.warn(f"A sample is skipped: {_describe(one)} The results list all.", stacklevel=2)
            skipped[one.task, one.id] = one
        self._check_share(name, skipped)
        return batch

    def skipped_samples(self, *, training: bool) -> list[SkippedSample]:
        """Samples that were skipped in training, or in evaluations. Collective: call it on every process.

        Raises:
            DataError: more samples of a set than `max_bad_share` were skipped.
        """
        size, _ = world()
        found: list[Any] = [self._skipped]
        if size > 1:
            found *= size
            torch.distributed.all_gather_object(found, self._skipped)
        merged: dict[tuple[str, str], SkippedSample] = {}
        for name in self._sizes:
            if bool(name) != training:
                skipped = {key: one for own in found for key, one in own.get(name, {}).items()}
                self._check_share(name, skipped)
                merged |= skipped
        return [merged[key] for key in sorted(merged)]

    def _begin(self, eval_set: str, size: int) -> None:
        self._sizes[eval_set], self._skipped[eval_set] = size, {}

    def _check_share(self, name: str, skipped: Mapping[tuple[str, str], SkippedSample]) -> None:
        size = self._sizes.get(name, 0)
        if len(skipped) > self.max_bad_share * size:
            raise DataError(
                f"{len(skipped)} of {size} samples of {name or 'the training mixture'} cannot be read, more than "
                f"data.max_bad_share, {self.max_bad_share:g}. Correct the data, or raise it. The last: "
                f"{_describe(list(skipped.values())[-1])}"
            )

    def _loader(
        self, examples: Dataset[Example], batch_size: int, sampler: Sampler[Any], collator: BatchCollator
    ) -> DataLoader[Batch]:
        frames, features = self._prepare_caches()
        return make_loader(
            examples,
            collator,
            frames,
            features,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            skip=self.on_bad_sample == "skip",
            # Other decoders keep threads, whose locks a forked worker would wait for.
            fork=self.video_reader == DEFAULT_READER,
        )

    def _task_dataset(
        self, name: str, split: SplitName, limit: int | None, max_turns: int | None, augment: bool = False
    ) -> TaskDataset:
        """Examples with at most `max_turns` turns each; a limit takes a random subset, always the same."""
        samples = self.split(name, split)
        indices: Sequence[int] = range(len(samples))
        if limit is not None and limit < len(samples):
            # Not every n-th sample: files may alternate between categories.
            generator = torch.Generator().manual_seed(self.seed)
            indices = sorted(torch.randperm(len(samples), generator=generator)[:limit].tolist())
        return TaskDataset(name, samples, indices, max_turns, augment=augment)

    def _with_clues(self, dataset: TaskDataset, *uses: ClueUse) -> TaskDataset:
        """The dataset, with clues if its task uses them so."""
        if self.tasks[dataset.task].clue not in uses:
            return dataset
        if self.processor.generate_clues is None:
            raise ModelError(f"Task '{dataset.task}' uses clues, but the model of this processor generates none.")
        media = dict.fromkeys(dataset.media(index) for index in dataset.indices)
        if self.on_bad_sample == "skip":
            # The loaders skip the others, whose clues are never read.
            media = dict.fromkeys(one for one in media if is_readable(one))
        return replace(dataset, clues=self.processor.generate_clues(list(media)))

    def _prepare_caches(self) -> tuple[FrameCache, FeatureStore | None]:
        processor = self.processor
        if processor.fingerprint is None or not self.feature_cache_gb:
            processor.feature_cache = None
        elif processor.feature_cache is None or processor.feature_cache.fingerprint != processor.fingerprint:
            if not (self.feature_cache / processor.fingerprint).is_dir():
                # One with features of this encoder may be read-only.
                check_writable(self.feature_cache, "Set another data.feature_cache, or data.feature_cache_gb to 0.")
            processor.feature_cache = FeatureCache(
                self.feature_cache, processor.fingerprint, processor.feature_shape, int(self.feature_cache_gb * 1e9)
            )
        if self._frame_cache is None:
            # Media with cached features are not decoded again.
            needed = processor.feature_cache is None or any(task.augment for task in self.tasks.values())
            limit = int(self.cache_gb * 1e9) if needed else 0
            self._frame_cache = FrameCache(processor.image_size, processor.resize, limit)
        return self._frame_cache, processor.feature_cache


def _describe(skipped: SkippedSample) -> str:
    return f"'{skipped.id}' of task '{skipped.task}', {', '.join(skipped.media)}: {skipped.error}"
