"""`unirs compare`: compares two runs on the same questions."""

import argparse
from pathlib import Path

from unirs.cli import add_option, parse_options
from unirs.errors import UniRSError
from unirs.metrics.registry import METRICS
from unirs.utils.io import check_writable


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("runs", type=Path, nargs=2, metavar="RUN", help="folders of two runs: A and B")
    parser.add_argument("--stage", default="test", help="test, validate, bench or score")
    parser.add_argument("--task", help="only this task (default: all)")
    parser.add_argument(
        "--as",
        dest="protocol",
        metavar="PROTOCOL",
        help=f"the metric of a task that the run's config does not name: {', '.join(METRICS)}, or a dotted path",
    )
    add_option(parser, "the protocol")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that a model's config names by file or dotted path"
    )
    parser.add_argument("--intersect", action="store_true", help="compare the tasks and rows that both runs have")
    parser.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap")
    parser.add_argument("--show", type=int, default=5, help="changed rows to list in either direction")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all changed rows to FILE.jsonl or FILE.md")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from unirs.evaluation.comparison import compare_runs
    from unirs.evaluation.comparison_report import format_comparison, write_report

    if options.resamples < 1 or options.show < 0:
        raise UniRSError("--resamples must be 1 or more, and --show 0 or more.")
    if options.out is not None:
        check_writable(options.out.parent, "Name another file with '--out'.")
    first, second = options.runs
    if options.option and options.protocol is None:
        raise UniRSError("--option is of a protocol: add --as PROTOCOL.")
    names = ("protocol", "intersect", "resamples", "trust_remote_code")
    choice = {name: getattr(options, name) for name in names}
    chosen = parse_options(options.option)
    comparisons = compare_runs(first, second, options.stage, options.task, options=chosen, **choice)
    print(f"A: {first / options.stage}\nB: {second / options.stage}")
    for comparison in comparisons:
        print(f"\n{format_comparison(comparison, options.show)}")
    print(
        f"\nIntervals and p of B - A: paired bootstrap, {options.resamples} resamples, rows of the same media together."
        "\np is not corrected for the number of lines; McNemar's takes rows as independent."
    )
    if options.out is not None:
        write_report(options.out, comparisons, (str(first), str(second)))
        print(f"Written to {options.out}")
