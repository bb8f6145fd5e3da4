"""The commands that need no trainer, a module each: `register(commands)` adds its parser, whose `run` does the work.

A module imports what the work needs inside `run`, so that `unirs --help` stays quick.
"""

import warnings

from unirs.commands import ablate, bench, compare, convert, predict, score, synth, tasks

COMMANDS = (predict, tasks, synth, bench, ablate, score, compare, convert)
"""In the order of `unirs --help`."""


def hide_warnings() -> None:
    """Hides what a user can do nothing about."""
    # Lightning calls a function of torch's that it means to replace.
    warnings.filterwarnings("ignore", module="lightning.pytorch.utilities._pytree")
