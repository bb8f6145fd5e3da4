"""The callback that writes the answers of `unirs test` and `unirs validate` ahead, so that both can be interrupted."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer

from unirs.data.batch import Batch
from unirs.data.datamodule import EvalSet, UniRSDataModule
from unirs.evaluation.prediction_log import PredictionLog
from unirs.metrics.base import Prediction
from unirs.training.module import UniRSModule
from unirs.utils.hashing import fingerprint, hash_files


class EvaluationLog(Callback):
    """Logs answers in `<trainer.default_root_dir>/<stage>.answers`, and resumes an interrupted evaluation from there.

    Answers count only for equal data, prompts, weights and decoding. A finished evaluation deletes them.
    """

    def __init__(self) -> None:
        self._logs: dict[str, PredictionLog] = {}
        self._resumed: dict[str, Mapping[str, Prediction]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Has the datamodule skip samples that are answered already."""
        datamodule = getattr(trainer, "datamodule", None)
        if stage not in ("test", "validate") or not isinstance(datamodule, UniRSDataModule):
            return
        self._logs, self._resumed = {}, {}
        # Called when loaders are made, since the weights are loaded after `setup`.
        datamodule.answered = lambda eval_set: self._answered(trainer, cast("UniRSModule", pl_module), eval_set)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Has the datamodule skip nothing."""
        datamodule = getattr(trainer, "datamodule", None)
        if isinstance(datamodule, UniRSDataModule):
            datamodule.answered = None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401 - Lightning's type
        batch: Batch,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Logs the answers of a batch."""
        if batch.eval_set in self._logs:
            self._logs[batch.eval_set].append(trainer.global_rank, outputs["predictions"])

    on_validation_batch_end = on_test_batch_end

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the resumed answers to the metrics."""
        for name, rows in self._resumed.items():
            # Every process takes part in gathering, though one has them all.
            cast("UniRSModule", pl_module).add_predictions(name, list(rows.values()) if trainer.is_global_zero else [])

    on_validation_epoch_end = on_test_epoch_end

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Deletes the log: the results are written."""
        if self._logs and trainer.is_global_zero:
            shutil.rmtree(next(iter(self._logs.values())).folder.parent, ignore_errors=True)
        self._logs, self._resumed = {}, {}

    on_validation_end = on_test_end

    def _answered(self, trainer: Trainer, module: UniRSModule, eval_set: EvalSet) -> frozenset[str]:
        task = module.processor.tasks[eval_set.task]
        key = {
            "set": eval_set.name,
            "data": hash_files(task.task.required_paths, task.root),
            "prompt": repr(task.task.prompt),
            "clue": task.clue,
            "weights": fingerprint(module.model.state_dict()),
            "decoding": module.decoding,
            "max_new_tokens": module.max_new_tokens,
        }
        stage = trainer.state.fn.value if trainer.state.fn else ""
        log = PredictionLog(Path(trainer.default_root_dir) / f"{stage}.answers" / eval_set.name, key)
        if trainer.is_global_zero:
            log.begin(resume=log.matches())
        trainer.strategy.barrier("answers")
        self._logs[eval_set.name] = log
        self._resumed[eval_set.name] = log.read()
        trainer.strategy.barrier("answers")
        return frozenset(self._resumed[eval_set.name])
