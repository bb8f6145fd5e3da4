"""`unirs synth`: synthetic data sets in the real formats."""

import argparse
from dataclasses import replace
from pathlib import Path

from unirs import plugins
from unirs.cli import check_positive
from unirs.errors import UniRSError, did_you_mean
from unirs.tasks.task import Task
from unirs.utils.io import check_writable


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write to; each task gets a folder of its name"
    )
    parser.add_argument("--size", type=int, default=512, help="training items of each task")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same files")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="only these tasks")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    check_positive(options, "size")
    check_writable(options.out, "Name another folder with '--out'.")
    tasks: dict[str, Task] = {
        name: plugins.create("unirs.tasks", {"name": name, "root": options.out / name})
        for name in [*plugins.list_plugins("unirs.tasks"), *(options.tasks or ())]
    }
    writers = {name: task.synthesize for name, task in tasks.items() if task.synthesize is not None}
    for name in options.tasks or ():
        if name not in writers:
            raise UniRSError(f"Task '{name}' has no synthetic form. {did_you_mean(name, writers)}")
    writers = {name: writers[name] for name in options.tasks or writers}
    for name, write in writers.items():
        write(options.size, options.seed)
        print(f"{name}: written to {options.out / name}")

    from unirs.evaluation.contact_sheet import spread, write_samples

    samples = []
    for name in writers:
        test = tasks[name].load_split("test")
        for index in spread(len(test), 8):
            # Samples often have the same questions in the same order.
            turns = test[index].turns
            samples.append((name, tasks[name].prompt, replace(test[index], turns=(turns[index % len(turns)],))))
    sheet = options.out / "sheet.png"
    write_samples(sheet, samples)
    print(f"Some of the test samples: {sheet}")
