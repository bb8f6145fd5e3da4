"""`unirs bench`: several models on the tasks of a suite, beside baselines that a trustworthy score must beat."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from msgspec import structs

from unirs.data.datamodule import OnBadSample, UniRSDataModule
from unirs.errors import UniRSError, did_you_mean
from unirs.evaluation import benchmark_tables as tables
from unirs.evaluation.answer_log import AnswerLog
from unirs.evaluation.engine import EvaluationModule
from unirs.evaluation.progress import TrainerProgressBar
from unirs.evaluation.report.build import report_suite
from unirs.evaluation.results import read_metrics
from unirs.evaluation.results_writer import ResultsWriter
from unirs.evaluation.suite import Suite, SuiteTask
from unirs.inference.api import UniRS
from unirs.inference.completion import Decoding, complete
from unirs.inference.generation_options import GREEDY, GenerationOptions
from unirs.inference.hf_model import HFImageTextModel
from unirs.inference.hf_processor import HFProcessor
from unirs.models.pretrained import PromptConfig
from unirs.models.run_folder import is_unirs_model
from unirs.tasks.perturbation import Perturbation
from unirs.tasks.video_reader import DEFAULT_READER
from unirs.utils.io import check_writable, write_atomically
from unirs.utils.sources import resolve_source

_HF_MAX_NEW_TOKENS = 48


@dataclass(frozen=True)
class BenchOptions:
    """How a benchmark runs: the options of `unirs bench`."""

    limit: int | None = None
    tasks: tuple[str, ...] = ()
    decoding: Decoding = "generate"
    generation: GenerationOptions = GREEDY
    batch_size: int = 8
    num_workers: int = 0
    video_reader: str = DEFAULT_READER
    device: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    feature_cache: Path = Path("runs/features")
    feature_cache_gb: float = 10.0
    on_bad_sample: OnBadSample = "raise"
    max_bad_share: float = 0.01
    resume: bool = False
    baselines: bool = True
    report: bool = True
    trust_remote_code: bool = False


def run_bench(suite: Suite, models: Sequence[str], out: Path, options: BenchOptions) -> str:
    """Evaluates models on a suite, as `unirs test` evaluates a run on its tasks.

    Writes `<out>/<model>/bench/` in the format of a run's results, and the tables `<out>/table.{txt,md,tex,csv,json}`.
    Returns the table as text. Models are runs, saved models, or hub ids and folders of image-text-to-text models.

    Raises:
        UniRSError: an unknown task, model or device, data that are missing, two models of one name, or a folder that
            cannot be written.
    """
    chosen = structs.replace(suite, tasks=_chosen(suite, options.tasks))
    # Also folders: the last component of a path or hub id.
    names = [re.sub(r"^\.+|[^\w.\-]", "_", Path(model).name) or "model" for model in models]
    if len(set(names)) < len(names):
        raise UniRSError(f"Two models have one name in the tables: {', '.join(names)}. Rename a folder.")
    for folder in (out, *(out / name for name in names)):
        check_writable(folder, "Name another folder with '--out'.")
    data = bench_data(chosen.tasks, options)
    documents: dict[str, Any] = {}
    for name, model in zip(names, models, strict=True):
        _evaluate(load_evaluation(model, data, options), data, out / name, chosen, options)
        documents[name] = read_metrics(out / name / "bench" / "metrics.json")
        # The tables grow with each model, so that an interruption leaves those that are done.
        layout = tables.bench_tables(chosen, documents)
        for ending, text in {
            "txt": tables.to_text(layout) + "\n",
            "md": tables.markdown_report(layout, suite.title),
            "tex": tables.latex_report(layout),
            "csv": tables.csv_report(layout),
            "json": tables.json_report(layout, suite),
        }.items():
            write_atomically(out / f"table.{ending}", text.encode(errors="backslashreplace"))
        if options.report:
            report_suite(out, out / "report.html")
    return tables.to_text(layout)


def bench_data(tasks: Sequence[SuiteTask], options: BenchOptions) -> UniRSDataModule:
    """The data of a suite's tasks, which exist or are made."""
    data = UniRSDataModule(
        [task.task for task in tasks],
        eval_batch_size=options.batch_size,
        num_workers=options.num_workers,
        video_reader=options.video_reader,
        feature_cache=options.feature_cache,
        feature_cache_gb=options.feature_cache_gb,
        test_samples=options.limit,
        on_bad_sample=options.on_bad_sample,
        max_bad_share=options.max_bad_share,
    )
    data.perturbations = get_args(Perturbation) if options.baselines else ()
    data.prepare_data()
    return data


def load_evaluation(model: str, data: UniRSDataModule, options: BenchOptions) -> EvaluationModule:
    """Loads a UniRS run or saved model, or else a Hugging Face image-text-to-text model, and sets `data` to its inputs.

    Tasks have clues if the model was trained with clues for them.
    """
    prompts: Mapping[str, PromptConfig] = {}
    trust, generation = options.trust_remote_code, options.generation
    how: Any = {"decoding": options.decoding, "generation": generation}
    if is_unirs_model(Path(resolve_source(model))):
        unirs = UniRS.from_pretrained(model, device="cpu", trust_remote_code=trust)
        processor, prompts = unirs.processor, unirs.config.prompts
        run, longest = partial(complete, unirs.model, processor), unirs.config.max_new_tokens
        module = EvaluationModule(unirs.model, processor, run, max_new_tokens=longest, **how)
        module.clue_generator = unirs.clue_generator
    else:
        vlm = HFImageTextModel(model, trust_remote_code=trust)
        # Choices are scored, and texts sampled, for one prompt at a time.
        batched = options.decoding == "generate" and generation.temperature == 0
        hf_processor = HFProcessor(vlm.chat, _HF_MAX_NEW_TOKENS, batched=batched)
        module = EvaluationModule(vlm.model, hf_processor, vlm.complete, max_new_tokens=_HF_MAX_NEW_TOKENS, **how)
    for name, task in data.tasks.items():
        data.tasks[name] = replace(task, clue="test" if name in prompts and prompts[name].clue else "never")
    data.max_length, data.processor = module.processor.max_length, module.processor
    return module


def _evaluate(
    module: EvaluationModule, data: UniRSDataModule, folder: Path, suite: Suite, options: BenchOptions
) -> None:
    # The log comes last: it ends when the results are written.
    trainer = bench_trainer(
        folder,
        options,
        ResultsWriter(most_frequent=options.baselines, suite=suite, report=options.report),
        AnswerLog(folder / "answers", resume=options.resume),
    )
    trainer.test(module, data, verbose=False)


def bench_trainer(folder: Path, options: BenchOptions, *callbacks: Callback) -> Trainer:
    """The trainer that evaluates a model, on the devices of the options."""
    several = options.devices > 1 and options.strategy == "auto"
    try:
        return Trainer(
            accelerator=options.device,
            devices=options.devices,
            strategy="ddp_spawn" if several else options.strategy,
            default_root_dir=folder,
            callbacks=[*callbacks, *[TrainerProgressBar()] * sys.stderr.isatty()],
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
        )
    except (MisconfigurationException, ValueError) as error:
        raise UniRSError(f"{' '.join(str(error).split())} Correct '--device', '--devices' or '--strategy'.") from error


def _chosen(suite: Suite, labels: Sequence[str]) -> tuple[SuiteTask, ...]:
    known = [task.label for task in suite.tasks]
    for label in labels:
        if label not in known:
            raise UniRSError(f"The suite has no task '{label}'. {did_you_mean(label, known)}")
    return tuple(task for task in suite.tasks if not labels or task.label in labels)
