"""`unirs ablate`: trains the variants of a suite, several at once, and compares what they answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from lightning import Trainer
from tqdm import tqdm

from unirs.data.datamodule import UniRSDataModule
from unirs.errors import UniRSError
from unirs.evaluation.ablation_suite import AblationSuite, Plan, TrainingRun, make_plan
from unirs.evaluation.ablation_tables import csv_report, evaluate_groups, json_report, markdown_report, to_text
from unirs.tasks.config import TaskConfig
from unirs.training.module import UniRSModule
from unirs.utils.io import write_atomically
from unirs.utils.sources import resolve_source

# One process for both, as half of a short training's time goes into imports.
_TRAIN_AND_TEST = (
    "import sys; from unirs.cli.main import main; config = ['--config', sys.argv[1]]; "
    "sys.exit(main(['fit', *config]) or main(['test', *config]))"
)

_SECONDS_BETWEEN_LOOKS = 0.2

_LOG_LINES = 5


def run_ablations(
    suite: AblationSuite,
    out: Path,
    *,
    jobs: int = 2,
    seeds: Sequence[int] = (),
    only: Sequence[str] = (),
    resume: bool = False,
) -> str:
    """Trains and tests what a suite asks for, and answers its questions.

    Writes a run folder a training, `<out>/runs/<variant>-seed<seed>-<digest>`, with its config `fit.yaml` and its
    output `log.txt`, and the tables `<out>/table.{md,csv,json}`.

    Args:
        suite: what to train.
        out: the folder to write to.
        jobs: trainings at once, each in a process of one thread.
        seeds: other seeds than the suite's.
        only: variants to train, with the first of their question; all where empty.
        resume: keep the trainings that are finished; one that was interrupted begins anew.

    Returns:
        The tables as text.

    Raises:
        UniRSError: a config is wrong, data are missing, the folder holds trainings and `resume` is not set, or a
            training fails; says where its output is.
    """
    plan = make_plan(suite, seeds, only)
    runs = out / "runs"
    _check(plan, runs)
    if not resume and runs.is_dir() and any(runs.iterdir()):
        raise UniRSError(f"{runs} already holds trainings. Go on with '--resume', or name another '--out'.")
    for spec in {json.dumps(spec, sort_keys=True): spec for spec in _tasks(plan)}.values():
        TaskConfig.from_config(spec).prepare()
    _train_all(plan.trainings, runs, jobs)
    answers = evaluate_groups(suite, plan, runs)
    write_atomically(out / "table.md", markdown_report(answers, suite, plan.seeds).encode())
    write_atomically(out / "table.csv", csv_report(answers).encode())
    write_atomically(out / "table.json", json_report(answers, suite, plan).encode())
    return to_text(answers, suite, plan.seeds)


def _tasks(plan: Plan) -> Iterator[Mapping[str, Any]]:
    return (spec for training in plan.trainings for spec in training.config["data"]["tasks"])


def _check(plan: Plan, runs: Path) -> None:
    """Finds what is wrong in a config before anything is trained for it."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--seed_everything", type=int)
    for part, of in (("model", UniRSModule), ("data", UniRSDataModule), ("trainer", Trainer)):
        parser.add_class_arguments(of, part)
    for training in plan.trainings:
        config = training.resolved(runs)
        try:
            parser.parse_object(config)
        except ArgumentError as error:
            raise UniRSError(f"The config of '{training.folder}' is wrong: {' '.join(str(error).split())}") from error
        for text in _texts(config):
            resolve_source(text)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    parts: Iterable[object] = ()
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, list):
        parts = value
    for part in parts:
        yield from _texts(part)


def _finished(folder: Path) -> bool:
    # Its folder is written whole.
    return (folder / "test" / "metrics.json").is_file()


@dataclass(frozen=True)
class _Running:
    training: TrainingRun
    process: subprocess.Popen[bytes]


def _train_all(trainings: Sequence[TrainingRun], runs: Path, jobs: int) -> None:
    """Trains what is not finished; those that need others once those are there."""
    waiting = [training for training in trainings if not _finished(runs / training.folder)]
    done = {training.folder for training in trainings if training not in waiting}
    running: list[_Running] = []
    with tqdm(total=len(trainings), initial=len(done), desc="trainings", unit="training") as bar:
        try:
            while waiting or running:
                ready = [training for training in waiting if done.issuperset(training.depends_on)]
                for training in ready[: jobs - len(running)]:
                    waiting.remove(training)
                    running.append(_Running(training, _start(training, runs)))
                    bar.set_postfix_str(", ".join(one.training.folder for one in running))
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    _succeed(one, runs)
                    done.add(one.training.folder)
                    bar.update()
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            for one in running:
                one.process.terminate()
                one.process.wait()


def _start(training: TrainingRun, runs: Path) -> subprocess.Popen[bytes]:
    folder = runs / training.folder
    shutil.rmtree(folder, ignore_errors=True)
    config = folder / "fit.yaml"
    write_atomically(config, yaml.safe_dump(training.resolved(runs), sort_keys=False).encode())
    # Small tensors: two processes of one thread do more than one process of two.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 (no part of the command comes from data)
            [sys.executable, "-c", _TRAIN_AND_TEST, str(config)], stdout=log, stderr=log, env=environment
        )


def _succeed(one: _Running, runs: Path) -> None:
    log = runs / one.training.folder / "log.txt"
    code = one.process.returncode
    if code == 0:
        return
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = " ".join(" ".join(lines[-_LOG_LINES:]).split())
    raise UniRSError(
        f"Training '{one.training.folder}' failed (exit code {code}; its output is in {log}): {told} "
        "What is finished stays: go on with '--resume'."
    )
