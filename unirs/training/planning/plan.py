"""Plans of trainings and benchmarks."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning import Trainer

from unirs.data.datamodule import UniRSDataModule
from unirs.evaluation.engine import EvaluationModule
from unirs.training.module import UniRSModule
from unirs.training.planning.estimate import Machine, Plan, Stage, estimate, override_counts
from unirs.training.planning.measure import Measurement, batch_sizes
from unirs.training.planning.schedule import read_schedule
from unirs.utils.progress import Advance, progress_bar

_UNTRAINED = "A model that is not trained may answer at greater length: validation and test can be faster."
_FIRST = "Caches are empty at the start. Scores (METEOR needs Java) and reports are not included."


@dataclass(frozen=True)
class PlanOptions:
    """What is planned for.

    Attributes:
        devices: number of processes, a device each.
        began: `time.perf_counter()` before the model was built.
        samples: numbers of samples to plan for, see `override_counts`.
        questions: the same by number of questions.
        measure: number of samples of each task to measure.
    """

    devices: int
    began: float
    samples: Mapping[str, float] = field(default_factory=dict)
    questions: Mapping[str, float] = field(default_factory=dict)
    measure: int = 20

    def override(self, stages: list[Stage]) -> list[Stage]:
        """The stages with the numbers to plan for."""
        return override_counts(override_counts(stages, self.samples), self.questions, questions=True)


def plan_fit(
    module: UniRSModule,
    data: UniRSDataModule,
    trainer: Trainer,
    config: Mapping[str, Any],
    folder: Path,
    options: PlanOptions,
) -> Plan:
    """Plans a training, its validations and its test.

    Args:
        module: its weights change.
        data: used for nothing else.
        trainer: for the device and the precision.
        config: the options of the trainer to plan for.
        folder: a temporary one, for cached features.
        options: the numbers to plan for.

    Raises:
        UniRSError: data are missing, or the training has no end.
    """
    read_schedule(config, 1)  # before the measurement, which takes long
    data.prepare_data()
    data.setup("fit")
    splits = {split for task in data.tasks.values() for split in task.task.splits}
    for name in data.task_names("train"):
        data.split(name, "train")
    start = time.perf_counter() - options.began
    budgets: Any = {
        "feature_cache_bytes": data.feature_cache_gb * 1e9,
        "frame_cache_bytes": data.cache_gb * 1e9,
    }
    sizes = [data.batch_size, *[data.eval_batch_size] * bool(splits & {"val", "test"})]
    with _progress(data, trainer, options, *sizes) as advance:
        measurement = Measurement(module, data, trainer, folder, options.measure, advance)
        measurement.clues()
        stages, checkpoint = measurement.training()
        if "val" in splits:
            stages += measurement.evaluation(data.val_dataloader(), "validation")
        if "test" in splits:
            known = [stage for stage in stages if stage.name == "validation"]
            stages += measurement.evaluation(data.test_dataloader(), "test", known)
    stages = options.override(stages)
    draws = sum(stage.draws for stage in stages if stage.name == "training")
    schedule = read_schedule(config, math.ceil(draws / data.batch_size / options.devices))
    passes = {
        "training": schedule.epochs,
        "validation": schedule.validations * schedule.validation_share,
    }
    stages = [replace(stage, passes=stage.passes * passes.get(stage.name, 1)) for stage in stages]
    machine = Machine(
        options.devices,
        data.num_workers,
        **budgets,
        start=start,
        clue=measurement.clue,
        memory=measurement.memory(),
        checkpoint_bytes=checkpoint,
        checkpoints=1 if not schedule.validations else 2,
    )
    return estimate(stages, machine, [_FIRST, _UNTRAINED])


def plan_bench(
    module: EvaluationModule, data: UniRSDataModule, trainer: Trainer, folder: Path, options: PlanOptions
) -> Plan:
    """Plans the benchmark of one model; arguments and errors are those of `plan_fit`."""
    start = time.perf_counter() - options.began
    budgets: Any = {"feature_cache_bytes": data.feature_cache_gb * 1e9, "frame_cache_bytes": data.cache_gb * 1e9}
    with _progress(data, trainer, options, data.eval_batch_size) as advance:
        measurement = Measurement(module, data, trainer, folder, options.measure, advance)
        measurement.clues()
        stages = options.override(measurement.evaluation(data.test_dataloader(), "test"))
    machine = Machine(
        options.devices, data.num_workers, **budgets, start=start, clue=measurement.clue, memory=measurement.memory()
    )
    return estimate(stages, machine, [_FIRST])


def _progress(
    data: UniRSDataModule, trainer: Trainer, options: PlanOptions, *sizes: int
) -> AbstractContextManager[Advance]:
    device = trainer.strategy.root_device.type
    total = sum(len(batch_sizes(options.measure, size, device)) for size in sizes) * len(data.tasks)
    return progress_bar("measuring", total, unit="batches")
