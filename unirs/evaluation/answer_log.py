"""The callback that logs answers ahead of the results, so that an interrupted evaluation resumes."""

import json
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer

from unirs.data.batch import Batch
from unirs.data.datamodule import UniRSDataModule
from unirs.data.eval_set import EvalSet
from unirs.errors import DataError, UniRSError
from unirs.evaluation.engine import EvaluationModule
from unirs.metrics.base import Prediction
from unirs.tasks.video_reader import describe_reader
from unirs.utils.hashing import fingerprint, hash_files
from unirs.utils.io import complete_lines, read_json, write_atomically, writing


class PredictionLog:
    """The answers to one evaluation set, as JSON lines in one file for each process.

    Args:
        folder: of the evaluation set; created if it does not exist.
        key: everything that the answers depend on, as JSON: data, prompts, weights, decoding.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self.folder = folder
        self.key = dict(key)

    def matches(self) -> bool:
        """Whether the folder holds answers for the same key."""
        path = self.folder / "key.json"
        return path.is_file() and bool(read_json(path) == self.key)

    def begin(self, *, resume: bool) -> None:
        """Prepares the folder, and deletes its answers unless `resume` is set. Call it on one process, before others.

        Raises:
            UniRSError: the answers to resume from are of another key.
            DataError: a line of them is damaged; names file and line.
        """
        if resume and (self.folder / "key.json").is_file():
            if self.matches():
                self.read()  # Repairs the files before several processes read them at once.
                return
            raise UniRSError(
                f"{self.folder} holds answers of other weights, or to other data, prompts, samples or decoding. Omit "
                "'--resume', or name another folder."
            )
        for path in self.folder.glob("*.jsonl"):
            with writing(path):
                path.unlink()
        write_atomically(self.folder / "key.json", json.dumps(self.key, indent=2).encode())

    def append(self, rank: int, rows: Iterable[Prediction]) -> None:
        """Appends answers to the file of a process; they survive if the process is killed.

        Raises:
            UniRSError: the file cannot be written.
        """
        path = self.folder / f"{rank}.jsonl"
        with writing(path), path.open("ab") as file:
            file.write(b"".join(row.to_json() + b"\n" for row in rows))

    def read(self) -> dict[str, Prediction]:
        """All answers by id. An incomplete last line, of an interrupted write, is removed from its file.

        Raises:
            DataError: another line is damaged; names file and line.
        """
        rows: dict[str, Prediction] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for number, line in enumerate(complete_lines(path), start=1):
                try:
                    row = Prediction.from_json(line)
                except ValueError as error:
                    raise DataError(
                        f"{path}, line {number} is damaged ({error}). Delete the file, or start without '--resume'."
                    ) from error
                rows.setdefault(row.id, row)
        return rows


class AnswerLog(Callback):
    """Logs answers, and skips samples whose answers are logged for equal data, prompts, weights and decoding.

    Args:
        folder: of the answers; they are kept when the evaluation ends. None for
            `<trainer.default_root_dir>/<stage>.answers`, which is deleted then.
        resume: True requires that logged answers fit, False deletes them, and None keeps them if they fit.
    """

    def __init__(self, folder: Path | None = None, *, resume: bool | None = None) -> None:
        self.folder = folder
        self.resume = resume
        self._logs: dict[str, PredictionLog] = {}
        self._resumed: dict[str, Mapping[str, Prediction]] = {}
        self._weights = ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Sets the datamodule to skip samples that are answered already."""
        datamodule = getattr(trainer, "datamodule", None)
        if stage not in ("test", "validate") or not isinstance(datamodule, UniRSDataModule):
            return
        self._logs, self._resumed, self._weights = {}, {}, ""
        # Called when loaders are made, since the weights are loaded after `setup`.
        datamodule.answered = lambda eval_set: self._answered(trainer, cast("EvaluationModule", pl_module), eval_set)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Sets the datamodule to skip nothing."""
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

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the resumed answers to the metrics, which keep the first answer to a question."""
        for name, rows in self._resumed.items():
            # Every process takes part in gathering, though one has them all.
            rows_here = list(rows.values()) if trainer.is_global_zero else []
            cast("EvaluationModule", pl_module).add_predictions(name, rows_here)

    on_validation_epoch_start = on_test_epoch_start

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Deletes the log: the results are written."""
        if self._logs and self.folder is None and trainer.is_global_zero:
            shutil.rmtree(next(iter(self._logs.values())).folder.parent, ignore_errors=True)
        self._logs, self._resumed = {}, {}

    on_validation_end = on_test_end

    def _answered(self, trainer: Trainer, module: EvaluationModule, eval_set: EvalSet) -> Collection[str]:
        task = module.processor.tasks[eval_set.task]
        stage = trainer.state.fn.value if trainer.state.fn else ""
        data = cast("UniRSDataModule", trainer.datamodule)  # type: ignore[attr-defined]
        # Once for all evaluation sets: hashing large weights takes seconds.
        self._weights = self._weights or fingerprint(module.model.state_dict())
        key = {
            "set": eval_set.name,
            "samples": data.val_samples if stage == "validate" else data.test_samples,
            "data": hash_files(task.task.required_paths, task.root),
            "video_reader": describe_reader(data.video_reader),
            "prompt": repr(task.task.prompt),
            "clue": task.clue,
            "weights": self._weights,
            "decoding": module.decoding,
            "max_new_tokens": module.max_new_tokens,
            "generation": asdict(module.generation),
        }
        folder = self.folder or Path(trainer.default_root_dir) / f"{stage}.answers"
        log = PredictionLog(folder / eval_set.name, key)
        if trainer.is_global_zero:
            log.begin(resume=log.matches() if self.resume is None else self.resume)
        trainer.strategy.barrier("answers")
        self._logs[eval_set.name] = log
        self._resumed[eval_set.name] = log.read()
        trainer.strategy.barrier("answers")
        return self._resumed[eval_set.name]
