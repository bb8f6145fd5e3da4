"""`unirs score`: scores saved answers again, without a model."""

import argparse
from pathlib import Path
from typing import get_args

from unirs.cli import add_option, parse_options, task_spec
from unirs.errors import UniRSError
from unirs.evaluation.answer_formats import FORMATS
from unirs.metrics.registry import METRICS
from unirs.tasks.task import SplitName
from unirs.utils.io import check_writable


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="answers as JSON lines: predictions/<task>.jsonl of a run, or rows as another program writes them",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--task", help="a task plugin that defines the references and the metric")
    group.add_argument(
        "--as",
        dest="protocol",
        metavar="PROTOCOL",
        help=f"the rule if rows have references: all (those that fit, side by side), {', '.join(METRICS)}, or a dotted "
        "path",
    )
    parser.add_argument("--root", type=Path, help="the task's data (default: data/TASK)")
    add_option(parser, "the task or the protocol")
    parser.add_argument("--split", choices=get_args(SplitName), default="test", help="the task's split")
    parser.add_argument(
        "--format",
        dest="answer_format",
        metavar="FORMAT",
        help=f"the format of FILE: {', '.join(FORMATS)} (default: the one whose fields all rows have)",
    )
    parser.add_argument(
        "--references",
        type=Path,
        metavar="FILE",
        help="JSON lines with id, references and category (default: references or ground_truth of the answers)",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="CATEGORY",
        help="questions that do not count, such as count; can be given several times",
    )
    parser.add_argument("--allow-missing", action="store_true", help="questions without an answer count as wrong")
    parser.add_argument("--allow-unknown", action="store_true", help="exclude answers to other questions")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write metrics.json and rows to DIR/score")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from unirs.evaluation.protocol_table import format_protocols
    from unirs.evaluation.results import format_table, to_document, write_results
    from unirs.evaluation.scoring import ALL, score

    if options.task is None and options.root is not None:
        raise UniRSError("--root is of a task: add --task NAME.")
    if options.task is None and options.protocol is None and options.option:
        raise UniRSError("--option is of a task or a protocol: add --task NAME or --as PROTOCOL.")
    if options.out is not None:
        check_writable(options.out, "Name another folder with '--out'.")
    scored = score(
        options.file,
        task=task_spec(options.task, options.root, options.option) if options.task else None,
        protocol=options.protocol,
        options=parse_options(options.option) if options.protocol else {},
        **{name: getattr(options, name) for name in _PASSED},
    )
    results = list(scored.results.values())
    document = None
    if options.out is not None:
        document = write_results(options.out, "score", None, results, {})
    if options.protocol == ALL:
        print(format_protocols(scored))
    else:
        print(format_table(document or to_document("score", None, results, {})))
    print(*(f"  {note}" for note in scored.notes), sep="\n")
    if options.out is not None:
        print(f"\nWritten to {options.out / 'score'}: metrics.json, table.txt, predictions/")


_PASSED = ("split", "answer_format", "references", "exclude", "allow_missing", "allow_unknown")
