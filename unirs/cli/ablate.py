"""`unirs ablate`: trains and compares variants of a config."""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unirs.cli import check_positive
from unirs.errors import UniRSError


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("--suite", type=Path, required=True, help="a YAML, e.g. benchmarks/suites/ablations.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="folder to write to")
    parser.add_argument("--jobs", type=int, default=2, help="parallel training runs, with one thread each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[], metavar="SEED", help="replace the suite's seeds")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="VARIANT", help="only these variants, with the first of their group"
    )
    parser.add_argument("--resume", action="store_true", help="skip finished training runs")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    check_positive(options, "jobs")
    if any(seed < 0 for seed in options.seeds):
        raise UniRSError(f"--seeds must be 0 or more, got {' '.join(map(str, options.seeds))}.")
    from unirs.evaluation.ablation import run_ablations
    from unirs.evaluation.ablation_suite import AblationSuite
    from unirs.utils.typed_yaml import read_yaml

    table = run_ablations(
        read_yaml(options.suite, AblationSuite),
        options.out,
        check_config=_config_checker(),
        jobs=options.jobs,
        seeds=options.seeds,
        only=options.only,
        resume=options.resume,
    )
    print(f"\n{table}\n\nWritten to {options.out}: table.md, table.csv, table.json, and run folders in runs/")


def _config_checker() -> Callable[[str, dict[str, Any]], None]:
    """A function that raises a `UniRSError` for a config that `unirs fit` does not accept."""
    from jsonargparse import ArgumentError, ArgumentParser
    from lightning import Trainer

    from unirs.data.datamodule import UniRSDataModule
    from unirs.training.module import UniRSModule
    from unirs.utils.sources import resolve_source
    from unirs.utils.typed_yaml import parser_mode

    parser = ArgumentParser(exit_on_error=False, parser_mode=parser_mode())
    parser.add_argument("--seed_everything", type=int)
    for section, section_class in (("model", UniRSModule), ("data", UniRSDataModule), ("trainer", Trainer)):
        parser.add_class_arguments(section_class, section)

    def check(name: str, config: dict[str, Any]) -> None:
        try:
            parser.parse_object(config)
        except ArgumentError as error:
            raise UniRSError(f"The config of '{name}' is wrong: {' '.join(str(error).split())}") from error
        for source in re.findall(r'"(package:[^"]*)"', json.dumps(config)):
            resolve_source(source)

    return check
