"""`unirs ablate`: what the parts of the model and the ways to train it are worth, by many short trainings."""

import argparse
from pathlib import Path


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("--suite", type=Path, required=True, help="a YAML, e.g. benchmarks/suites/ablations.yaml")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/ablations"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="trainings at once, each with one thread (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[], metavar="SEED", help="other seeds than the suite's")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="VARIANT", help="these variants, with the first of their question"
    )
    parser.add_argument("--resume", action="store_true", help="keep the trainings that are finished")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from unirs.cli import hide_warnings
    from unirs.errors import UniRSError

    if options.jobs < 1:
        raise UniRSError(f"--jobs must be 1 or more, got {options.jobs}.")
    if any(seed < 0 for seed in options.seeds):
        raise UniRSError(f"--seeds must be 0 or more, got {' '.join(map(str, options.seeds))}.")
    hide_warnings()
    from unirs.evaluation.ablation import run_ablations
    from unirs.evaluation.ablation_suite import read_ablations

    table = run_ablations(
        read_ablations(options.suite),
        options.out,
        jobs=options.jobs,
        seeds=options.seeds,
        only=options.only,
        resume=options.resume,
    )
    print(f"\n{table}\n\nWritten to {options.out}: table.md, table.csv, table.json, and a run a training in runs/")
