"""`unirs score`: saved answers scored again, without a model."""

import argparse
from pathlib import Path
from typing import Any, get_args

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
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--task", help="a task plugin, whose split is the references and whose metric scores")
    how.add_argument(
        "--metric", help=f"how to score if the references are in rows: {', '.join(METRICS)}, or a dotted path"
    )
    parser.add_argument("--root", type=Path, help="the task's data (default: data/TASK)")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the task, e.g. protocol=rsvqa; can be given several times",
    )
    parser.add_argument(
        "--split", choices=get_args(SplitName), default="test", help="the task's split (default: %(default)s)"
    )
    parser.add_argument(
        "--references",
        type=Path,
        metavar="FILE",
        help="JSON lines with id, references and kind; where left out, the answers' own references or ground_truth",
    )
    parser.add_argument("--allow-missing", action="store_true", help="questions without an answer count as wrong")
    parser.add_argument("--allow-unknown", action="store_true", help="leave out answers to other questions")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write metrics.json and rows to DIR/score")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from unirs.evaluation.results import format_table, to_document, write_results
    from unirs.evaluation.scoring import score

    if options.task is None and (options.root is not None or options.option):
        raise UniRSError("--root and --option are of a task: add --task NAME.")
    scored = score(
        options.file,
        task=_task(options) if options.task else None,
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
    print(format_table(document))
    for note in scored.notes:
        print(f"  {note}")
    if options.out is not None:
        print(f"\nWritten to {options.out / 'score'}: metrics.json, table.txt, predictions/")


def _task(options: argparse.Namespace) -> dict[str, Any]:
    import yaml

    from unirs.plugins import short_name

    values = {}
    for option in options.option:
        name, separator, value = option.partition("=")
        if not separator:
            raise UniRSError(f"--option {option}: write it as NAME=VALUE, e.g. protocol=rsvqa.")
        # As a config would read it: numbers are numbers.
        values[name] = yaml.safe_load(value)
    root = options.root or Path("data") / short_name(options.task)
    return {**values, "name": options.task, "root": root}
