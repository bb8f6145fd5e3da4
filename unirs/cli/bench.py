"""`unirs bench`: models on the tasks of a suite, beside published numbers and sanity baselines."""

import argparse
from pathlib import Path

from unirs.cli import check_positive


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("--suite", type=Path, required=True, help="a YAML, e.g. benchmarks/suites/quick.yaml")
    parser.add_argument(
        "--model",
        nargs="+",
        required=True,
        metavar="MODEL",
        help="runs, saved UniRS models, or Hugging Face image-text-to-text models (folder or hub id)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="only these tasks")
    parser.add_argument("--limit", type=int, help="only so many samples of each task, always the same ones")
    parser.add_argument("--resume", action="store_true", help="keep the answers that an interrupted run has left")
    parser.add_argument("--device", default="auto", help="cpu, gpu, … (default: %(default)s)")
    parser.add_argument("--devices", type=int, default=1, help="processes, a device each (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="media of a batch (default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=0, help="processes that decode media (default: %(default)s)")
    parser.add_argument(
        "--decoding",
        choices=("generate", "loglikelihood"),
        default="generate",
        help="free text, or the likeliest choice where a task has choices (default: %(default)s)",
    )
    parser.add_argument("--no-baselines", action="store_true", help="do not ask about altered media")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    check_positive(options, "limit", "devices", "batch_size")
    from unirs.evaluation.benchmark import BenchOptions, run_bench
    from unirs.evaluation.suite import read_suite

    table = run_bench(
        read_suite(options.suite),
        options.model,
        options.out,
        BenchOptions(
            limit=options.limit,
            tasks=tuple(options.tasks),
            decoding=options.decoding,
            batch_size=options.batch_size,
            num_workers=options.num_workers,
            device=options.device,
            devices=options.devices,
            resume=options.resume,
            baselines=not options.no_baselines,
        ),
    )
    print(f"\n{table}\n\nWritten to {options.out}: table.md, table.tex, table.csv, table.json, and a folder a model")
