"""`unirs tasks`: lists task plugins; `new` writes one, `check` reads the data of one."""

import argparse
from pathlib import Path
from typing import get_args

from unirs import plugins
from unirs.cli import add_option, add_video_reader, check_positive, task_spec
from unirs.errors import UniRSError
from unirs.tasks.media import Modality
from unirs.tasks.task import Task
from unirs.utils.io import check_writable


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument(
        "--root", type=Path, default=Path("data"), help="folder of data sets, each in a folder of its task's name"
    )
    parser.set_defaults(run=_list)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")

    new = actions.add_parser("new", help="write a working task plugin, its test and a tiny data set")
    new.add_argument("name", metavar="NAME", help="the task's name: letters, digits and _")
    new.add_argument("--modality", choices=get_args(Modality), required=True, help="modality of its samples")
    new.add_argument("--out", type=Path, metavar="FILE", help="the plugin's file (default: NAME.py)")
    new.set_defaults(run=_new)

    check = actions.add_parser("check", help="read a task's data and list problems")
    check.add_argument("name", metavar="NAME", help="a plugin's name, dotted path or file")
    check.add_argument("--root", type=Path, help="folder of its data (default: data/NAME)")
    add_option(check)
    check.add_argument("--tokenizer", metavar="SOURCE", help="count its tokens: hub id, folder or .gguf file")
    check.add_argument("--model", metavar="RUN", help="count its visual tokens: trained run, saved model or hub id")
    text = "run code that the config of --model names by file or dotted path"
    check.add_argument("--trust-remote-code", action="store_true", help=text)
    check.add_argument("--limit", type=int, metavar="N", help="check N samples of each split (default: all)")
    add_video_reader(check)
    check.add_argument("--sheet", type=Path, help="the contact sheet's file (default: NAME_sheet.png)")
    check.set_defaults(run=_check)


def _list(options: argparse.Namespace) -> None:
    rows = [("NAME", "MODALITY", "METRIC", "DATA", "FROM")]
    for name, entry in plugins.list_plugins("unirs.tasks").items():
        task: Task = plugins.create("unirs.tasks", {"name": name, "root": options.root / name})
        found = sum(path.exists() for path in task.required_paths)
        data = "found" if found == len(task.required_paths) else "incomplete" if found else "missing"
        rows.append((name, task.modality, task.scorer.name, f"{data}: {options.root / name}", plugins.origin(entry)))
    # Importing tabulate would take a fifth of the command's time.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _new(options: argparse.Namespace) -> None:
    from unirs.tasks.scaffold import write_task

    written = write_task(options.name, options.modality, options.out or Path(f"{options.name}.py"))
    print(f"Written: {written.plugin}, {written.test}, {written.example}/")
    print(f"Its test:  pytest {written.test}")
    print(f"Its check: unirs tasks check {written.plugin} --root {written.example}")


def _check(options: argparse.Namespace) -> None:
    check_positive(options, "limit")
    from unirs.evaluation.contact_sheet import write_samples
    from unirs.evaluation.task_check import check_task
    from unirs.models.llm import LLMConfig, load_tokenizer
    from unirs.tasks.config import TaskConfig

    name = plugins.short_name(options.name)
    sheet = options.sheet or Path(f"{name}_sheet.png")
    check_writable(sheet.parent, "Name another file with '--sheet'.")
    task = TaskConfig.from_config(task_spec(options.name, options.root, options.option)).task
    tokenizer = None if options.tokenizer is None else load_tokenizer(LLMConfig(source=options.tokenizer))
    processor = None
    if options.model is not None:
        from unirs.inference.api import UniRS

        processor = UniRS.from_pretrained(options.model, trust_remote_code=options.trust_remote_code).processor
    report = check_task(
        task,
        limit=options.limit,
        tokenizer=tokenizer,
        processor=processor,
        video_reader=options.video_reader,
        progress=True,
    )
    for line in report.lines():
        print(line)
    if report.examples:
        write_samples(sheet, report.examples)
        print(f"contact sheet: {sheet}")
    problems = sum(map(len, report.problems.values()))
    if problems:
        raise UniRSError(f"Task '{name}' has {problems} problem{'s' if problems > 1 else ''}, listed above.")
    print("no problems found")
