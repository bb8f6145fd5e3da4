"""The callback that keeps a run's folder: manifest, results with baselines, the table and the picture sheet."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from lightning import Callback, LightningModule, Trainer

from unirs.baselines import most_frequent
from unirs.data import UniRSData
from unirs.manifest import hash_files, hash_tensors, write_manifest
from unirs.metrics.base import Prediction
from unirs.module import UniRSModule
from unirs.results import TaskResult, format_table, write_results
from unirs.sheet import write_sheet
from unirs.task import SplitName

_SHEET_SAMPLES = 4


class RunFolder(Callback):
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
        answers = {"": module.answers(), "blank_media": module.answers(blank=True)}  # collective
        if not trainer.is_global_zero:
            return
        data = module.data
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
            name: {"data": hash_files(task.task.needs, task.root), "prompt": repr(task.task.prompt)}
            for name, task in module.data.tasks.items()
        }
        write_manifest(
            Path(trainer.default_root_dir),
            seed=self.seed,
            tasks=tasks,
            weights=hash_tensors(module.model.state_dict()) if trained else None,
            decoding={"strategy": "greedy", "max_new_tokens": module.max_new_tokens},
            command=sys.argv,
        )


def _guess(data: UniRSData, name: str, rows: Sequence[Prediction]) -> tuple[Prediction, ...]:
    return most_frequent(data.split(name, "train"), rows, by_kind=data.tasks[name].task.metric.kind_is_asked)


def _score(data: UniRSData, name: str, split: SplitName, rows: Sequence[Prediction], *, full: bool) -> TaskResult:
    evaluation = data.tasks[name].task.metric.evaluate(rows, full=full)
    return TaskResult(name, rows, evaluation, data.split(name, split).dropped)


def _spread(result: TaskResult) -> list[tuple[Prediction, float]]:
    """A few rows from all over the test set, each of other media."""
    scored = {row.media: (row, score) for row, score in zip(result.rows, result.evaluation.scores, strict=True)}
    rows = list(scored.values())
    count = min(_SHEET_SAMPLES, len(rows))
    return [rows[(2 * index + 1) * len(rows) // (2 * count)] for index in range(count)]


def _frames(data: UniRSData, split: SplitName, row: Prediction) -> torch.Tensor:
    for sample in data.split(row.task, split):
        if tuple(map(str, sample.media.paths)) == row.media:
            return sample.media.frames((256, 256))
    raise KeyError(row.media)
