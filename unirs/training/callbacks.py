"""Callbacks of a run: its folder with manifest and results, and its throughput."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning import Callback, LightningModule, Trainer

from unirs.data.batch import Batch
from unirs.data.datamodule import UniRSDataModule
from unirs.evaluation.baselines import most_frequent
from unirs.evaluation.contact_sheet import write_sheet
from unirs.evaluation.results import TaskResult, format_table, write_results
from unirs.metrics.base import Prediction
from unirs.tasks.task import SplitName
from unirs.training.manifest import write_manifest
from unirs.training.module import UniRSModule
from unirs.utils.hashing import hash_files, hash_tensors

_SHEET_SAMPLES = 4


class ResultsWriter(Callback):
    """Writes what a run leaves in `trainer.default_root_dir`.

    Args:
        seed: the run's seed, for the manifest.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = seed

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the manifest of a run that begins."""
        self._write_manifest(trainer, cast("UniRSModule", pl_module), trained=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the results of `unirs validate`; validation during training only logs its scores."""
        if trainer.state.fn == "validate":
            self._write(trainer, cast("UniRSModule", pl_module), "validate")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the results of `unirs test`."""
        self._write(trainer, cast("UniRSModule", pl_module), "test")

    def _write(self, trainer: Trainer, module: UniRSModule, stage: Literal["validate", "test"]) -> None:
        split: SplitName = "test" if stage == "test" else "val"
        answers = {"": module.predictions(), "blank_media": module.predictions(blank=True)}  # collective
        if not trainer.is_global_zero:
            return
        data = cast("UniRSDataModule", trainer.datamodule)  # type: ignore[attr-defined]
        answers["most_frequent"] = {
            name: _guess(data, name, rows)
            for name, rows in answers[""].items()
            if "train" in data.tasks[name].task.splits
        }
        results = {
            # Baselines go without what is slow to compute.
            baseline: [_score(data, name, split, rows, full=not baseline) for name, rows in by_task.items()]
            for baseline, by_task in answers.items()
        }
        model = results.pop("")
        folder = Path(trainer.default_root_dir)
        document = write_results(folder, stage, module.trained_steps, model, {k: v for k, v in results.items() if v})
        rows = [row for result in model for row in _spread(result)]
        write_sheet(folder / stage / "sheet.png", rows, lambda row: _frames(data, split, row))
        self._write_manifest(trainer, module, trained=True)
        print(f"\n{format_table(document)}\n\nWritten to {folder / stage}: metrics.json, predictions/, sheet.png")

    def _write_manifest(self, trainer: Trainer, module: UniRSModule, *, trained: bool) -> None:
        if not trainer.is_global_zero:
            return
        tasks = {
            name: {"data": hash_files(task.task.required_paths, task.root), "prompt": repr(task.task.prompt)}
            for name, task in module.processor.tasks.items()
        }
        write_manifest(
            Path(trainer.default_root_dir),
            seed=self.seed,
            tasks=tasks,
            weights=hash_tensors(module.model.state_dict()) if trained else None,
            decoding={"strategy": "greedy", "max_new_tokens": module.max_new_tokens},
            command=sys.argv,
        )


def _guess(data: UniRSDataModule, name: str, rows: Sequence[Prediction]) -> tuple[Prediction, ...]:
    return most_frequent(data.split(name, "train"), rows, by_category=data.tasks[name].task.scorer.category_is_given)


def _score(data: UniRSDataModule, name: str, split: SplitName, rows: Sequence[Prediction], *, full: bool) -> TaskResult:
    evaluation = data.tasks[name].task.scorer.evaluate(rows, slow=full)
    return TaskResult(name, rows, evaluation, data.split(name, split).num_excluded)


def _spread(result: TaskResult) -> list[tuple[Prediction, float]]:
    """A few rows from all over the test set, each of other media."""
    scored = {row.media: (row, score) for row, score in zip(result.rows, result.evaluation.scores, strict=True)}
    rows = list(scored.values())
    count = min(_SHEET_SAMPLES, len(rows))
    return [rows[(2 * index + 1) * len(rows) // (2 * count)] for index in range(count)]


def _frames(data: UniRSDataModule, split: SplitName, row: Prediction) -> torch.Tensor:
    for sample in data.split(row.task, split):
        if sample.media.sources == row.media:
            return sample.media.load_frames((256, 256))
    raise KeyError(row.media)


class ThroughputLogger(Callback):
    """Logs `samples/s`: media trained on per second of one process, averaged over the last steps."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._last = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Starts the clock; validation between epochs does not count."""
        self._last = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401, ARG002
        batch: Batch,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Logs the rate."""
        now = time.perf_counter()
        rate = len(batch.modalities) / (now - self._last)
        self._rate = 0.95 * self._rate + 0.05 * rate if self._rate else rate
        self._last = now
        pl_module.log("samples/s", self._rate, prog_bar=True, batch_size=len(batch.modalities))
