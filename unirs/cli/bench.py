"""`unirs bench`: models on the tasks of a suite, beside published numbers and sanity baselines."""

import argparse
import logging
from dataclasses import fields
from pathlib import Path

from unirs.cli import add_generation_options, add_video_reader, check_positive, generation_options


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("--suite", type=Path, required=True, help="a YAML file, e.g. benchmarks/suites/quick.yaml")
    parser.add_argument(
        "--model",
        nargs="+",
        required=True,
        metavar="MODEL",
        help="training runs, saved UniRS models, or Hugging Face image-text-to-text models (folder or hub id)",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder to write to")
    parser.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="only these tasks")
    parser.add_argument("--limit", type=int, help="samples of each task, always the same ones (default: all)")
    parser.add_argument("--resume", action="store_true", help="keep the answers of an interrupted run")
    parser.add_argument("--device", default="auto", help="cpu, gpu, …")
    parser.add_argument("--devices", type=int, default=1, help="number of processes, a device each")
    parser.add_argument("--strategy", default="auto", help="Lightning's strategy, e.g. ddp_fork")
    parser.add_argument(
        "--batch-size", type=int, default=8, help="samples of a batch, or questions for Hugging Face models"
    )
    parser.add_argument("--num-workers", type=int, default=0, help="processes that decode media")
    add_video_reader(parser)
    parser.add_argument(
        "--on-bad-sample",
        choices=("raise", "skip"),
        default="raise",
        help="end at a sample whose media or text cannot be read, or skip and list it",
    )
    parser.add_argument(
        "--max-bad-share", type=float, default=0.01, help="share of a task's samples that may be skipped"
    )
    parser.add_argument(
        "--feature-cache",
        type=Path,
        default=Path("runs/features"),
        metavar="DIR",
        help="folder for the features of frozen UniRS encoders",
    )
    parser.add_argument("--feature-cache-gb", type=float, default=10.0, help="its disk space; 0 disables it")
    parser.add_argument(
        "--decoding",
        choices=("generate", "loglikelihood"),
        default="generate",
        help="free text, or the likeliest choice if a task has choices",
    )
    add_generation_options(parser)
    parser.add_argument(
        "--no-baselines",
        action="store_false",
        dest="baselines",
        help="omit perturbed media and the most frequent answer",
    )
    parser.add_argument("--no-report", action="store_false", dest="report", help="write no report.html")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that a model's config names by file or dotted path"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    check_positive(options, "limit", "devices", "batch_size")
    # Lightning's notes on devices and loggers.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    from unirs.evaluation.benchmark import BenchOptions, run_bench
    from unirs.evaluation.suite import Suite
    from unirs.utils.typed_yaml import read_yaml

    options.generation = generation_options(options)
    values = {entry.name: getattr(options, entry.name) for entry in fields(BenchOptions)}
    bench_options = BenchOptions(**values | {"tasks": tuple(options.tasks)})
    table = run_bench(read_yaml(options.suite, Suite), options.model, options.out, bench_options)
    print(
        f"\n{table}\n\nWritten to {options.out}: table.md, table.tex, table.csv, table.json, and a folder a model"
        + ", report.html" * options.report
    )
