"""`unirs ablate`: trains the variants of a suite in parallel processes and compares their predictions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from unirs.errors import UniRSError
from unirs.evaluation.ablation_suite import AblationSuite, TrainingRun, make_plan
from unirs.evaluation.ablation_tables import evaluate_groups, to_csv, to_markdown, to_text
from unirs.tasks.config import TaskConfig
from unirs.utils.io import check_writable, write_atomically
from unirs.utils.progress import progress_bar

# One process for both, as half of a short training run is spent on imports.
_TRAIN_AND_TEST = (
    "import sys; from unirs.cli.main import main; config = ['--config', sys.argv[1]]; "
    "sys.exit(main(['fit', *config]) or main(['test', *config]))"
)

# Small tensors: two processes with one thread each are faster than one process with two threads.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

_POLL_SECONDS = 0.2
_LOG_LINES = 5  # in an error


def run_ablations(
    suite: AblationSuite,
    out: Path,
    *,
    check_config: Callable[[str, dict[str, Any]], None],
    jobs: int = 2,
    seeds: Sequence[int] = (),
    only: Sequence[str] = (),
    resume: bool = False,
) -> str:
    """Trains and tests the variants of a suite, compares them, and returns the tables as text.

    Writes a run folder for each training, `<out>/runs/<variant>-seed<seed>-<digest>`, with its config `fit.yaml` and
    its output `log.txt`, and the tables `<out>/table.{md,csv,json}`. The options are those of `unirs ablate`;
    `check_config` takes a name and a config of `unirs fit`, and raises a `UniRSError` if it is wrong.

    Raises:
        UniRSError: a config is wrong, data are missing, the folder holds runs and `resume` is not set, or a run fails.
    """
    plan = make_plan(suite, seeds, only)
    runs = out / "runs"
    for folder in (out, runs):
        check_writable(folder, "Name another folder with '--out'.")
    configs = {training.folder: training.resolved(runs) for training in plan.trainings}
    for name, config in configs.items():
        check_config(name, config)
    if not resume and runs.is_dir() and any(runs.iterdir()):
        raise UniRSError(f"{runs} already holds training runs. Add '--resume', or name another '--out'.")
    for task in {repr(task): task for config in configs.values() for task in config["data"]["tasks"]}.values():
        TaskConfig.from_config(task).prepare()
    _train_all(plan.trainings, runs, jobs)
    document = evaluate_groups(suite, plan, runs)
    write_atomically(out / "table.md", to_markdown(document).encode(errors="backslashreplace"))
    write_atomically(out / "table.csv", to_csv(document).encode(errors="backslashreplace"))
    write_atomically(out / "table.json", (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode())
    return to_text(document)


def _train_all(trainings: Sequence[TrainingRun], runs: Path, jobs: int) -> None:
    """Runs all unfinished trainings; a run starts when the runs that it depends on are finished."""
    # The test folder is written atomically.
    waiting = [run for run in trainings if not (runs / run.folder / "test" / "metrics.json").is_file()]
    done = {run.folder for run in trainings if run not in waiting}
    processes: dict[str, subprocess.Popen[bytes]] = {}
    with progress_bar("training runs", len(trainings), unit="runs") as advance:
        advance(len(done))
        try:
            while waiting or processes:
                ready = [run for run in waiting if done.issuperset(run.depends_on)]
                for run in ready[: jobs - len(processes)]:
                    waiting.remove(run)
                    processes[run.folder] = _start(run, runs)
                for name in [name for name, process in processes.items() if process.poll() is not None]:
                    code = processes.pop(name).returncode
                    if code:
                        raise _failure(name, code, runs)
                    done.add(name)
                    advance()
                time.sleep(_POLL_SECONDS)
        finally:
            for process in processes.values():
                process.terminate()
                process.wait()


def _start(training: TrainingRun, runs: Path) -> subprocess.Popen[bytes]:
    folder = runs / training.folder
    shutil.rmtree(folder, ignore_errors=True)
    config = folder / "fit.yaml"
    write_atomically(config, yaml.safe_dump(training.resolved(runs), sort_keys=False).encode())
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 (no word of the command comes from data)
            [sys.executable, "-c", _TRAIN_AND_TEST, str(config)], stdout=log, stderr=log, env=os.environ | _ENVIRONMENT
        )


def _failure(name: str, code: int, runs: Path) -> UniRSError:
    log = runs / name / "log.txt"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    output = " ".join(" ".join(lines[-_LOG_LINES:]).split())
    return UniRSError(
        f"Training run '{name}' failed (exit code {code}; its output is in {log}): {output} "
        "Finished runs are kept: continue with '--resume'."
    )
