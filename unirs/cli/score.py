"""`unirs score`: scores saved answers again, without a model."""

import argparse
from pathlib import Path
from typing import get_args

from unirs.cli import add_task_option, task_spec
from unirs.errors import UniRSError
from unirs.metrics.registry import METRICS
from unirs.tasks.task import SplitName


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="answers as JSON lines: predictions/<task>.jsonl of a run, or rows with question_id and answer (or text)",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--task", help="a task plugin that defines the references and the metric")
    group.add_argument("--metric", help=f"the metric if rows have references: {', '.join(METRICS)}, or a dotted path")
    parser.add_argument("--root", type=Path, help="the task's data (default: data/TASK)")
    add_task_option(parser)
    parser.add_argument("--split", choices=get_args(SplitName), default="test", help="the task's split")
    parser.add_argument(
        "--references",
        type=Path,
        metavar="FILE",
        help="JSON lines with id, references and category (default: references or ground_truth of the answers)",
    )
    parser.add_argument("--allow-missing", action="store_true", help="questions without an answer count as wrong")
    parser.add_argument("--allow-unknown", action="store_true", help="exclude answers to other questions")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write metrics.json and rows to DIR/score")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from unirs.evaluation.results import format_table, to_document, write_results
    from unirs.evaluation.scoring import score

    if options.task is None and (options.root is not None or options.option):
        raise UniRSError("--root and --option are of a task: add --task NAME.")
    scored = score(
        options.file,
        task=task_spec(options.task, options.root, options.option) if options.task else None,
        split=options.split,
        metric=options.metric,
        references=options.references,
        allow_missing=options.allow_missing,
        allow_unknown=options.allow_unknown,
    )
    results = [scored.result]
    if options.out is None:
        document = to_document("score", None, results, {})
    else:
        document = write_results(options.out, "score", None, results, {})
    print(format_table(document), *(f"  {note}" for note in scored.notes), sep="\n")
    if options.out is not None:
        print(f"\nWritten to {options.out / 'score'}: metrics.json, table.txt, predictions/")
