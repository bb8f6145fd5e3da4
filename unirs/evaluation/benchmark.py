"""`unirs bench`: several models on the tasks of a suite, beside baselines that a trustworthy score must beat."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning import Fabric
from msgspec import structs

from unirs.data.dataset import Example
from unirs.errors import UniRSError, did_you_mean
from unirs.evaluation.baselines import most_frequent
from unirs.evaluation.benchmark_tables import (
    bench_tables,
    csv_report,
    json_report,
    latex_report,
    markdown_report,
    to_text,
)
from unirs.evaluation.prediction_log import PredictionLog
from unirs.evaluation.results import TaskResult, read_metrics, write_results
from unirs.evaluation.suite import Suite, SuiteTask
from unirs.inference.api import UniRS
from unirs.inference.completion import Decoding
from unirs.inference.hf_model import HFImageTextModel
from unirs.metrics.base import Prediction
from unirs.models.pretrained import is_saved_model
from unirs.tasks.config import TaskConfig
from unirs.tasks.media import Modality
from unirs.tasks.perturbation import Perturbation, PerturbedMedia
from unirs.tasks.sample import Sample
from unirs.utils.hashing import hash_files
from unirs.utils.io import write_atomically
from unirs.utils.progress import progress_bar
from unirs.utils.sources import resolve_source

PERTURBATIONS: Mapping[Modality, tuple[Perturbation, ...]] = {
    "image": ("blank",),
    "pair": ("blank", "swap_times", "repeat_first"),
    "video": ("blank", "repeat_first", "shuffle_frames"),
}
"""What is shown instead of the media, by kind: nothing, the times in the wrong order, one picture twice (or the first
frame all along), and frames in the wrong order. A model that scores as well on these does not use what it is shown."""


@dataclass(frozen=True)
class BenchOptions:
    """How a benchmark runs.

    Attributes:
        limit: samples of each task; all where None.
        tasks: labels to run; all where empty.
        decoding: free text, or ranking where a task has choices.
        batch_size: media of a batch.
        num_workers: processes that decode media and encode prompts, for UniRS models.
        device: `auto`, `cpu`, `gpu` or another accelerator that Lightning knows.
        devices: processes, each with a device of its own.
        resume: keep the answers that an interrupted run has left.
        baselines: also ask about altered media.
        max_new_tokens: the longest answer of a Hugging Face model in tokens.
    """

    limit: int | None = None
    tasks: tuple[str, ...] = ()
    decoding: Decoding = "generate"
    batch_size: int = 8
    num_workers: int = 0
    device: str = "auto"
    devices: int = 1
    resume: bool = False
    baselines: bool = True
    max_new_tokens: int = 48


class BenchmarkModel(Protocol):
    """A model as a benchmark sees it."""

    def predict(self, task: TaskConfig, samples: Sequence[Sample], options: BenchOptions) -> Iterator[Prediction]:
        """Answers all turns of samples."""
        ...


class UniRSAdapter:
    """A UniRS run or saved model, with the suite's prompts."""

    def __init__(self, source: str, device: torch.device) -> None:
        self.model = UniRS.from_pretrained(source, device=device)

    def predict(self, task: TaskConfig, samples: Sequence[Sample], options: BenchOptions) -> Iterator[Prediction]:
        """Answers all turns of samples."""
        clues = self.model.clues_for(task.name, [sample.media for sample in samples])
        examples = [Example(task.name, sample, clue=clues.get(sample.media, "")) for sample in samples]
        choices = (lambda row: task.task.choices_for(row.category)) if options.decoding == "loglikelihood" else None
        answers = self.model.predict_examples(
            {task.name: task.task.prompt},
            examples,
            batch_size=options.batch_size,
            num_workers=options.num_workers,
            choices=choices,
        )
        return (row for row, _ in answers)


class HFAdapter:
    """A Hugging Face image-text-to-text model, prompted zero-shot without task tags."""

    def __init__(self, source: str, device: torch.device) -> None:
        self.model = HFImageTextModel(source, device=device)

    def predict(self, task: TaskConfig, samples: Sequence[Sample], options: BenchOptions) -> Iterator[Prediction]:
        """Answers all turns of samples."""
        if options.decoding == "loglikelihood":
            raise UniRSError("Hugging Face models answer in free text only. Leave out '--decoding loglikelihood'.")
        prompt = replace(task.task.prompt, task_tag="")
        queries = [(sample, turn) for sample in samples for turn in sample.turns]
        for start in range(0, len(queries), options.batch_size):
            chunk = queries[start : start + options.batch_size]
            questions = [prompt(turn.prompt_fields) for _, turn in chunk]
            answers = self.model.generate([sample.media for sample, _ in chunk], questions, options.max_new_tokens)
            for (sample, turn), question, text in zip(chunk, questions, answers, strict=True):
                paths = sample.media.sources
                yield Prediction(turn.id, task.name, paths, turn.category, question, text.strip(), turn.references)


def run_bench(suite: Suite, models: Sequence[str], out: Path, options: BenchOptions) -> str:
    """Runs models on a suite.

    Writes `<out>/<model>/bench/` as a run has its results, and the tables `<out>/table.{txt,md,tex,csv,json}`.

    Args:
        suite: the tasks and the published numbers.
        models: runs, saved models, or hub ids and folders of image-text-to-text models.
        out: the folder to write to.
        options: how to run.

    Returns:
        The table as text.

    Raises:
        UniRSError: an unknown task or model, data that are missing, or two models of one name.
    """
    chosen = _chosen(suite, options.tasks)
    names = [model_name(model) for model in models]
    if len(set(names)) < len(names):
        raise UniRSError(f"Two models would be called by one name in the tables: {', '.join(names)}. Rename a folder.")
    for task in chosen:
        TaskConfig.from_config(task.task).prepare()
    documents: dict[str, Any] = {}
    for name, model in zip(names, models, strict=True):
        folder = out / name
        fabric = Fabric(accelerator=options.device, devices=options.devices, strategy=_strategy(options.devices))
        fabric.launch(partial(_answer, model=model, suite_tasks=chosen, folder=folder, options=options))
        documents[name] = _finish(model, chosen, folder, options)
        # The tables grow with each model, so that an interruption leaves those that are done.
        tables = bench_tables(structs.replace(suite, tasks=chosen), documents)
        for ending, text in {
            "txt": to_text(tables) + "\n",
            "md": markdown_report(tables, suite.title),
            "tex": latex_report(tables),
            "csv": csv_report(tables),
            "json": json_report(tables, suite),
        }.items():
            write_atomically(out / f"table.{ending}", text.encode())
    return to_text(tables)


def model_name(model: str) -> str:
    """What a model is called in tables and folders: the last part of its path or hub id."""
    return re.sub(r"[^\w.\-]", "_", Path(model).name) or "model"


def load_model(model: str, device: torch.device) -> BenchmarkModel:
    """Loads a UniRS run or saved model, or else a Hugging Face image-text-to-text model."""
    folder = Path(resolve_source(model))
    ours = (folder / "config.yaml").is_file() or (folder / "checkpoints").is_dir() or is_saved_model(folder)
    return UniRSAdapter(model, device) if ours else HFAdapter(model, device)


def _chosen(suite: Suite, labels: Sequence[str]) -> tuple[SuiteTask, ...]:
    known = [task.label for task in suite.tasks]
    for label in labels:
        if label not in known:
            raise UniRSError(f"The suite has no task '{label}'. {did_you_mean(label, known)}")
    return tuple(task for task in suite.tasks if not labels or task.label in labels)


def _strategy(devices: int) -> str:
    return "ddp_spawn" if devices > 1 else "auto"


@cache
def _load(spec: str, limit: int | None) -> tuple[TaskConfig, list[Sample]]:
    """A task and its test samples, or always the same random subset of them; built and read once in each process.

    Args:
        spec: the task's config as JSON.
        limit: number of samples; all if None.
    """
    task = TaskConfig.from_config(json.loads(spec))
    samples = task.task.load_split("test")
    count = len(samples) if limit is None else min(limit, len(samples))
    generator = torch.Generator().manual_seed(0)
    order = sorted(torch.randperm(len(samples), generator=generator)[:count].tolist())
    return task, [samples[index] for index in order]


def _perturbations(task: TaskConfig, options: BenchOptions) -> list[Perturbation | None]:
    return [None, *(PERTURBATIONS[task.task.modality] if options.baselines else ())]


def _log(
    model: str, task: TaskConfig, perturbation: Perturbation | None, folder: Path, options: BenchOptions
) -> PredictionLog:
    key = {
        "model": model,
        "data": hash_files(task.task.required_paths, task.root),
        "prompt": repr(task.task.prompt),
        "perturbation": perturbation,
        "decoding": options.decoding,
        "limit": options.limit,
        "max_new_tokens": options.max_new_tokens,
    }
    return PredictionLog(folder / "answers" / f"{task.name}.{perturbation or 'model'}", key)


def _answer(
    fabric: Fabric, *, model: str, suite_tasks: Sequence[SuiteTask], folder: Path, options: BenchOptions
) -> None:
    """Every process answers its share of the samples and appends to files of its own."""
    loaded: BenchmarkModel | None = None
    for suite_task in suite_tasks:
        task, samples = _load(json.dumps(suite_task.task), options.limit)
        for perturbation in _perturbations(task, options):
            log = _log(model, task, perturbation, folder, options)
            if fabric.is_global_zero:
                log.begin(resume=options.resume)
            fabric.barrier()
            done = log.read()
            fabric.barrier()
            left = [sample for sample in samples if any(turn.id not in done for turn in sample.turns)]
            share = left[fabric.global_rank :: fabric.world_size]
            if perturbation is not None:
                share = [replace(sample, media=PerturbedMedia(sample.media, perturbation)) for sample in share]
            if not share:
                continue
            loaded = loaded or load_model(model, fabric.device)
            name = f"{model_name(model)}, {task.name}" + (f", {perturbation}" if perturbation else "")
            turns = sum(len(sample.turns) for sample in share)
            with progress_bar(name, turns, unit="questions", show=fabric.is_global_zero) as advance:
                for row in loaded.predict(task, share, options):
                    log.append(fabric.global_rank, [row])
                    advance()
    fabric.barrier()


def _finish(model: str, suite_tasks: Sequence[SuiteTask], folder: Path, options: BenchOptions) -> dict[str, Any]:
    """Scores the answers and writes the results."""
    results: list[TaskResult] = []
    baselines: dict[str, list[TaskResult]] = {}
    for suite_task in suite_tasks:
        task, samples = _load(json.dumps(suite_task.task), options.limit)
        excluded = task.task.load_split("test").num_excluded
        for perturbation in _perturbations(task, options):
            rows = _log(model, task, perturbation, folder, options).read()
            ordered = [rows[turn.id] for sample in samples for turn in sample.turns]
            evaluation = task.task.scorer.evaluate(ordered, slow=perturbation is None)
            decoding = options.decoding if task.task.choices else "generate"
            result = TaskResult(task.name, ordered, evaluation, excluded, decoding)
            if perturbation is None:
                results.append(result)
            else:
                baselines.setdefault(perturbation, []).append(result)
        if options.baselines and "train" in task.task.splits:
            model_rows = results[-1].rows
            guessed = most_frequent(
                task.task.load_split("train"), model_rows, by_category=task.task.scorer.category_is_given
            )
            evaluation = task.task.scorer.evaluate(guessed, slow=False)
            baselines.setdefault("most_frequent", []).append(
                TaskResult(task.name, guessed, evaluation, excluded, "generate")
            )
    write_results(folder, "bench", None, results, baselines)
    return read_metrics(folder / "bench" / "metrics.json")
