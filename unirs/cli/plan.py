"""`unirs plan`: hours, memory and disk of a training or benchmark, from a few measured batches."""

import argparse
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from unirs.cli import add_option, check_positive, parse_options
from unirs.errors import UniRSError

if TYPE_CHECKING:
    from unirs.training.planning.estimate import Plan


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, nargs="+", metavar="FILE", help="a training: as for unirs fit")
    what.add_argument("--suite", type=Path, metavar="FILE", help="a benchmark of --model: as for unirs bench")
    parser.add_argument("--model", metavar="MODEL", help="the model of --suite")
    add_option(parser, "unirs fit (data.batch_size=4) or bench (batch_size=4)")
    parser.add_argument("--devices", type=int, metavar="N", help="devices of each node (default: the config's)")
    parser.add_argument("--nodes", type=int, metavar="N", help="nodes (default: the config's)")
    text = "samples, as if the data had so many; TASK.validation and TASK.test for other splits"
    parser.add_argument("--samples", nargs="+", default=[], metavar="TASK=N", help=text)
    parser.add_argument("--questions", nargs="+", default=[], metavar="TASK=N", help="the same by number of questions")
    parser.add_argument("--measure", type=int, default=20, metavar="N", help="samples of each task to measure")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON, in seconds and bytes")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    check_positive(options, "devices", "nodes", "measure")
    counts = [_counts(options.samples), _counts(options.questions)]
    if (options.suite is None) != (options.model is None):
        raise UniRSError("--suite needs --model, and --model is for --suite.")
    import lightning.pytorch  # noqa: F401 - it sets the levels, too

    # Lightning's notes on devices and seed.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)

    with TemporaryDirectory(prefix="unirs-plan-") as folder:
        plan = (_plan_fit if options.suite is None else _plan_bench)(options, Path(folder), counts)
    print(json.dumps(plan.to_dict(), indent=1) if options.json else plan.to_text())


def _counts(pairs: Sequence[str]) -> dict[str, float]:
    counts = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        if not number.isdigit() or int(number) == 0:
            raise UniRSError(f"--samples and --questions take TASK=N, such as rsvqa_hr=1000000, got '{pair}'.")
        counts[name] = float(number)
    return counts


def _plan_fit(options: argparse.Namespace, folder: Path, counts: Sequence[Mapping[str, float]]) -> "Plan":
    from unirs.cli.trainer_parts import TrainerParts
    from unirs.training.planning.plan import PlanOptions, plan_fit
    from unirs.training.planning.schedule import count_devices

    samples, questions = counts
    began = time.perf_counter()
    arguments = ["fit", *(f"--config={path}" for path in options.config), *(f"--{one}" for one in options.option)]
    parts = TrainerParts(arguments, folder)
    trainer = parts.trainer_config
    devices = options.devices or count_devices(trainer["devices"], trainer["accelerator"])
    devices *= options.nodes or trainer["num_nodes"]
    chosen = PlanOptions(devices, began, samples, questions, options.measure)
    return plan_fit(parts.model, parts.datamodule, parts.trainer, trainer, folder, chosen)


def _plan_bench(options: argparse.Namespace, folder: Path, counts: Sequence[Mapping[str, float]]) -> "Plan":
    from unirs.evaluation.benchmark import BenchOptions, bench_data, bench_trainer, load_evaluation
    from unirs.evaluation.suite import Suite
    from unirs.options import check_options
    from unirs.training.planning.plan import PlanOptions, plan_bench
    from unirs.utils.typed_yaml import read_yaml

    samples, questions = counts
    began = time.perf_counter()
    bench = BenchOptions(**check_options("unirs bench", BenchOptions, parse_options(options.option)))
    data = bench_data(read_yaml(options.suite, Suite).tasks, bench)
    module = load_evaluation(options.model, data, bench)
    devices = (options.devices or bench.devices) * (options.nodes or 1)
    chosen = PlanOptions(devices, began, samples, questions, options.measure)
    return plan_bench(module, data, bench_trainer(folder, replace(bench, devices=1, strategy="auto")), folder, chosen)
