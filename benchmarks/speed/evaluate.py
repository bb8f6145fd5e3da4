"""Tests of ten thousand questions to a million, from RSVQA-HR's files to `metrics.json` and `report.html`.

    python benchmarks/speed/evaluate.py --rows 10000 100000 1000000

Runs `unirs test` on files in the format of RSVQA-HR (see scale.py) with 100 questions about each image of 512 x 512
pixels, and with a tiny model, so that most of the time is UniRS's own: reading rows, encoding prompts, collecting and
scoring answers, writing. Images are links to a few files; features of the frozen encoder are cached on disk. Black
frames are not evaluated. Times are processor times of the run and its workers, except those named wall time.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import PIL.Image
import scale
import timm
import yaml
from components import TINY
from measure import Row, report
from safetensors.torch import save_file

UNIRS = str(Path(sys.executable).with_name("unirs"))
ENCODER = "resnet10t"
FILES = 16
"""Different images; all others are links to them."""


@dataclass(frozen=True)
class Figures:
    """Of one test.

    Attributes:
        cpu: processor time of the process and its workers in seconds.
        after: processor time after the last answer.
        wall: seconds from start to end.
        first: seconds from start to the first logged answer.
        peak: largest memory of the main process in MB.
        before: its memory when the last answer was logged.
        size: bytes of the results, without the predictions.
    """

    cpu: float
    after: float
    wall: float
    first: float
    peak: float
    before: float
    size: int


def main() -> None:
    """Measures, and writes `runs/speed/evaluate.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000], help="the smallest first")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="processes of the loader")
    options = parser.parse_args()
    for count in options.rows:
        make(scale.DATA / str(count), count)
    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        save_file(timm.create_model(ENCODER).state_dict(), Path(folder) / "encoder.safetensors")
        checkpoint = train(Path(folder) / "fit", options.rows[0])
        for workers in options.workers:
            base: Figures | None = None
            for count in options.rows:
                run = Path(folder) / f"{count}-{workers}"
                figures = measure(run, checkpoint, count, workers)
                base = base or figures
                rows += describe(f"{count:,} questions, {workers} workers", count, figures, base, options.rows[0])
                print(f"{count} questions, {workers} workers: {figures}", flush=True)
    report(__file__, rows)


def describe(name: str, count: int, figures: Figures, base: Figures, least: int) -> list[Row]:
    """Rows of one test; the baseline is the smallest test."""
    growth = (figures.peak - base.peak) / (count - least) * 1e6 if count > least else None
    return [
        Row(
            f"{name}: questions per second of processor time, of the first's",
            count / figures.cpu,
            least / base.cpu,
            "questions/s",
            (count / figures.cpu) / (least / base.cpu),
        ),
        Row(f"{name}: after the last answer, processor time", figures.after / count * 1e6, None, "us/question", None),
        Row(f"{name}: wall time", figures.wall, None, "s", None),
        Row(f"{name}: first answer, wall time", figures.first, None, "s", None),
        Row(f"{name}: memory at the last answer", figures.before, None, "MB", None),
        Row(f"{name}: peak memory", figures.peak, base.peak, "MB", None),
        *([] if growth is None else [Row(f"{name}: growth of peak memory", growth, None, "bytes/question", None)]),
        Row(f"{name}: report, metrics and table", figures.size / 1e3, None, "kB", None),
    ]


def train(run: Path, count: int) -> Path:
    """Trains the model for a step, with a tokenizer of the questions' words; its checkpoint."""
    subprocess.run(  # noqa: S603
        [UNIRS, "fit", "--config", str(config(run, count, 0)), "--trainer.max_steps=1"], check=True
    )
    return run / "checkpoints" / "last.ckpt"


def config(run: Path, count: int, workers: int) -> Path:
    """Writes the config of a run."""
    run.mkdir(parents=True)
    document = {
        "model": {
            "encoder": {
                "name": "timm", "model": ENCODER, "weights": str(run.parent / "encoder.safetensors"),
                "tune": "frozen", "layer": 3, "image_size": 64,
            },
            "llm": {"config": {"model_type": "llama", **TINY}, "vocab_size": 512},
            "max_new_tokens": 2,
        },
        "data": {
            "tasks": [{"name": "rsvqa_hr", "root": str(scale.DATA / str(count)), "protocol": "rsvqa"}],
            "num_workers": workers,
            "blank_media": False,
            "feature_cache": str(run.parent / "features"),
        },
        "trainer": {
            "default_root_dir": str(run),
            "limit_val_batches": 0,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    }  # fmt: skip
    path = run / "run.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def measure(run: Path, checkpoint: Path, count: int, workers: int) -> Figures:
    """Runs a test.

    Raises:
        SystemExit: it failed; its message is on stderr.
    """
    command = [UNIRS, "test", "--config", str(config(run, count, workers)), f"--ckpt_path={checkpoint}"]
    log, results = run / "test.answers" / "rsvqa_hr" / "0.jsonl", run / "test"
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
    first, before, used, size = 0.0, 0.0, 0.0, 0
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        # Memory and processor time at the last growth of the log of answers.
        if log.exists() and log.stat().st_size > size:
            size, first = log.stat().st_size, first or time.perf_counter() - start
            before, used = memory(process.pid), seconds(process.pid)
        time.sleep(0.2)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not (results / "metrics.json").exists():
        raise SystemExit(f"The test of {count} questions failed. Delete {scale.DATA} if its files are damaged.")
    cpu = usage.ru_utime + usage.ru_stime
    written = sum(path.stat().st_size for path in results.iterdir() if path.is_file())
    return Figures(cpu, cpu - used, wall, first, usage.ru_maxrss / 1e3, before, written)


def memory(process: int) -> float:
    """Memory of a process in MB; 0 if it has ended."""
    path = Path(f"/proc/{process}/status")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return sum(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS:"))


def seconds(process: int) -> float:
    """Processor time of a process and of its children, running ones, too."""
    ticks = 0
    for pid in (process, *children(process)):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def children(process: int) -> list[int]:
    """The children of all threads of a process."""
    return [
        int(pid)
        for path in Path(f"/proc/{process}/task").glob("*/children")
        for pid in path.read_text(encoding="utf-8").split()
    ]


def make(root: Path, count: int) -> None:
    """Writes the files of a test split, and images, unless they exist."""
    scale.make(root, count)
    for name in ("questions", "answers", "images"):
        link(root / f"USGS_split_test_{name}.json", root / f"USGS_split_train_{name}.json")
    folder = root / "Data"
    folder.mkdir(exist_ok=True)
    chooser = np.random.default_rng(0)
    for index in range(-(-count // scale.PER_IMAGE)):
        path = folder / f"{index}.tif"
        if index >= FILES:
            link(path, folder / f"{index % FILES}.tif")
        elif not path.exists():
            PIL.Image.fromarray(chooser.integers(256, size=(512, 512, 3), dtype=np.uint8)).save(path)


def link(path: Path, target: Path) -> None:
    """Makes a hard link unless it exists."""
    if not path.exists():
        os.link(target, path)


if __name__ == "__main__":
    main()
