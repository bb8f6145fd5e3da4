"""The callback that scores the answers of an evaluation and writes the results."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

from lightning import Callback, LightningModule, Trainer

from unirs.data.datamodule import UniRSDataModule
from unirs.evaluation.engine import EvaluationModule
from unirs.evaluation.report.build import report_run
from unirs.evaluation.report.content import TaskSection
from unirs.evaluation.report.published import published_sections
from unirs.evaluation.results import TaskResult, format_table, skipped_lines, write_results
from unirs.evaluation.suite import Suite
from unirs.inference.change_maps import change_maps
from unirs.metrics.base import LazyRows, Prediction
from unirs.models.unirs_model import UniRSModel
from unirs.tasks.media import Media
from unirs.tasks.perturbation import Perturbation
from unirs.tasks.sample import TaskSplit
from unirs.tasks.task import SplitName
from unirs.utils.io import write_atomically
from unirs.utils.process import release_memory

_REPORT_SAMPLES = 120


class ResultsWriter(Callback):
    """Writes results to `<trainer.default_root_dir>/<stage>`: see `unirs.evaluation.results.write_results`.

    For `validate` and `test` it also prints the table.

    Args:
        most_frequent: whether the training split's most frequent answer is scored as a baseline.
        suite: the suite, if a test is that of a benchmark; the report has its published numbers.
        report: whether to write `report.html`, too.
    """

    def __init__(self, *, most_frequent: bool = True, suite: Suite | None = None, report: bool = True) -> None:
        self.most_frequent = most_frequent
        self.suite = suite
        self.report = report

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the results of `unirs validate`; validation during training only logs its scores."""
        if trainer.state.fn == "validate":
            self._write(trainer, cast("EvaluationModule", pl_module), "validate", "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the results of `unirs test` and `unirs bench`."""
        self._write(trainer, cast("EvaluationModule", pl_module), "bench" if self.suite else "test", "test")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Writes the samples that training and its validations skipped, if any, to `skipped.jsonl`."""
        data = cast("UniRSDataModule", trainer.datamodule)  # type: ignore[attr-defined]
        # Collective, both.
        skipped = list(dict.fromkeys([*data.skipped_samples(training=True), *data.skipped_samples(training=False)]))
        if skipped and trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / "skipped.jsonl"
            write_atomically(path, skipped_lines(skipped))
            print(f"{len(skipped)} samples could not be read, and were skipped: {path}")

    def _write(
        self, trainer: Trainer, module: EvaluationModule, stage: Literal["validate", "test", "bench"], split: SplitName
    ) -> None:
        model_rows = module.predictions()  # collective
        answers = {name: module.predictions(name) for name in get_args(Perturbation)}  # collective
        data = cast("UniRSDataModule", trainer.datamodule)  # type: ignore[attr-defined]
        skipped = data.skipped_samples(training=False)  # collective
        if not trainer.is_global_zero:
            return
        release_memory()
        if self.most_frequent:
            # The training split is not read again.
            answers["most_frequent"] = {
                name: most_frequent(
                    data.split(name, "train", keep=False),
                    rows,
                    by_category=data.tasks[name].task.scorer.category_is_given,
                )
                for name, rows in model_rows.items()
                if "train" in data.tasks[name].task.splits
            }
        folder = Path(trainer.default_root_dir)
        # Scores are not assigned to names, so that they are freed before the report is written.
        document = write_results(
            folder,
            stage,
            module.trained_steps,
            [_score(data, name, split, rows, slow=True) for name, rows in model_rows.items()],
            {
                baseline: [_score(data, name, split, rows, slow=False) for name, rows in by_task.items()]
                for baseline, by_task in answers.items()
                if by_task
            },
            skipped,
        )
        if self.report:
            model, processor = module.model, module.processor
            maps = None
            # Only this process writes, and a strategy may shard the model: its forward needs all processes.
            if isinstance(model, UniRSModel) and trainer.world_size == 1:
                maps = partial(change_maps, model, processor)
            report_run(
                folder,
                stage,
                folder / stage / "report.html",
                samples=_REPORT_SAMPLES,
                find_media=_media_finder(data, split),
                change_maps=maps,
                published=self._published(folder.name, document),
            )
        release_memory()
        if stage != "bench":
            files = "metrics.json, predictions/" + ", report.html" * self.report
            print(f"\n{format_table(document)}\n\nWritten to {folder / stage}: {files}")

    def _published(self, model: str, document: Mapping[str, Any]) -> Mapping[str, TaskSection]:
        if self.suite is None:
            return {}
        return published_sections(self.suite, model, document, {task.label: task.task for task in self.suite.tasks})


def most_frequent(train: TaskSplit, rows: Sequence[Prediction], *, by_category: bool) -> LazyRows:
    """Answers each row with the training split's most frequent answer.

    Args:
        train: training split; of equally frequent answers the alphabetically first counts.
        rows: the questions.
        by_category: count each category separately. Only valid if the category is known from the question.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for sample in train:
        for turn in sample.turns:
            count_of = counts[turn.category if by_category else ""]
            for target in turn.targets:
                count_of[target] += 1
    answers = {category: min(count, key=lambda answer: (-count[answer], answer)) for category, count in counts.items()}

    def guess(index: int) -> Prediction:
        row = rows[index]
        return row.with_answer(answers.get(row.category if by_category else "", ""))

    return LazyRows(len(rows), guess)


def _score(data: UniRSDataModule, name: str, split: SplitName, rows: Sequence[Prediction], *, slow: bool) -> TaskResult:
    evaluation = data.tasks[name].task.scorer.evaluate(rows, slow=slow)
    return TaskResult(name, rows, evaluation, data.split(name, split).num_excluded)


def _media_finder(data: UniRSDataModule, split: SplitName) -> Callable[[Prediction], Media]:
    # Not by the sources, which lack the dates of a series.
    @cache
    def by_sources(task: str) -> dict[tuple[str, ...], list[int]]:
        indices: dict[tuple[str, ...], list[int]] = {}
        for index, sample in enumerate(data.split(task, split)):
            indices.setdefault(sample.media.sources, []).append(index)
        return indices

    def find(row: Prediction) -> Media:
        samples = (data.split(row.task, split)[index] for index in by_sources(row.task)[row.media])
        return next(one.media for one in samples if any(turn.id == row.id for turn in one.turns))

    return find
