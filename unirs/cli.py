"""`unirs …`: the command line. Only what a command needs is imported."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from unirs import __version__, plugins
from unirs.errors import UniRSError, nearest
from unirs.task import Task

_TRAINER_COMMANDS = {
    "fit": "train a model: unirs fit --config FILE",
    "validate": "score a run's best checkpoint on the validation split",
    "test": "score a run's best checkpoint on the test split, with baselines",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: the command line without the program's name; the process's own where left out.

    Returns:
        The exit code: 0, or 1 where the user, a file or a plugin is at fault, told in one message.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments and arguments[0] in _TRAINER_COMMANDS:
            return _train(arguments)
        options = _parser().parse_args(arguments)
        options.run(options)
    except UniRSError as error:
        print(f"unirs: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("unirs: interrupted", file=sys.stderr)
        return 130
    return 0


def _train(arguments: list[str]) -> int:
    _hide_warnings()
    from jsonargparse import ArgumentError

    from unirs.trainer_cli import TrainerCLI

    try:
        TrainerCLI(arguments)
    except ArgumentError as error:
        told = " ".join(str(error).split())
        raise UniRSError(
            f"{told} ('unirs {' '.join(arguments)}'; 'unirs {arguments[0]} --help' lists all options)"
        ) from error
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unirs", description="One vision-language model for remote sensing images, image pairs and videos."
    )
    parser.add_argument("--version", action="version", version=f"unirs {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, text in _TRAINER_COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)

    predict = commands.add_parser("predict", help="answer a question about new pictures, pairs or videos")
    predict.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a trained run, e.g. runs/quickstart")
    predict.add_argument(
        "media",
        type=Path,
        nargs="+",
        metavar="MEDIA",
        help="a picture; two pictures (before, after); a video; or a folder of pictures, videos, or pairs in A/ and B/",
    )
    predict.add_argument("--question", help="what to ask; where left out, the task's own instruction")
    predict.add_argument("--task", help="whose prompt to use; where left out, the run's first task of the media's kind")
    predict.add_argument("--frames", type=int, default=8, help="frames of a video (default: %(default)s)")
    predict.add_argument("--out", type=Path, help="also write the answers as JSON lines to this file")
    predict.set_defaults(run=_predict)

    tasks = commands.add_parser("tasks", help="list task plugins")
    tasks.add_argument(
        "--root", type=Path, default=Path("data"), help="where data sets lie, each in a folder of its task's name"
    )
    tasks.set_defaults(run=_tasks)

    synth = commands.add_parser("synth", help="write synthetic data sets in the real formats")
    synth.add_argument(
        "--out", type=Path, required=True, help="folder to write to; each task gets a folder of its name"
    )
    synth.add_argument("--size", type=int, default=512, help="training items of each task (default: %(default)s)")
    synth.add_argument("--seed", type=int, default=0, help="same seed, same files (default: %(default)s)")
    synth.add_argument("--tasks", nargs="+", metavar="TASK", help="only these tasks")
    synth.set_defaults(run=_synth)
    return parser


def _hide_warnings() -> None:
    # Lightning calls a function of torch's that it means to replace; nothing a user can do about it.
    warnings.filterwarnings("ignore", module="lightning.pytorch.utilities._pytree")


def _predict(options: argparse.Namespace) -> None:
    _hide_warnings()
    from unirs.predict import predict, write_answers

    rows = predict(options.run_folder, options.media, options.question, options.task, options.frames)
    for row in rows:
        print(f"{' -> '.join(row.media)}: {row.prediction}")
    if options.out is not None:
        write_answers(options.out, rows)


def _tasks(options: argparse.Namespace) -> None:
    rows = [("NAME", "KIND", "METRIC", "DATA", "FROM")]
    for name, entry in plugins.available("unirs.tasks").items():
        task: Task = plugins.build("unirs.tasks", {"name": name, "root": options.root / name})
        found = sum(path.exists() for path in task.needs)
        data = "found" if found == len(task.needs) else "incomplete" if found else "missing"
        rows.append((name, task.kind, task.metric.name, f"{data}: {options.root / name}", plugins.origin(entry)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _synth(options: argparse.Namespace) -> None:
    if options.size < 1:
        raise UniRSError(f"--size must be 1 or more, got {options.size}.")
    names = options.tasks or plugins.available("unirs.tasks")
    tasks: dict[str, Task] = {
        name: plugins.build("unirs.tasks", {"name": name, "root": options.out / name}) for name in names
    }
    writers = {name: task.synthesize for name, task in tasks.items() if task.synthesize is not None}
    if options.tasks and len(writers) < len(tasks):
        without = next(name for name in tasks if name not in writers)
        raise UniRSError(f"Task '{without}' has no synthetic form. {nearest(without, writers)}")
    for name, write in writers.items():
        write(options.size, options.seed)
        print(f"{name}: written to {options.out / name}")

    from unirs.sheet import write_samples

    sheet = options.out / "sheet.png"
    write_samples(sheet, {name: tasks[name] for name in writers})
    print(f"Some of the test samples: {sheet}")
