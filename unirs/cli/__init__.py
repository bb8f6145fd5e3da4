"""The commands that need no trainer, a module each: `register(parser)` adds options, and `run`, which does the work.

Only the module of the command asked for is imported, and it imports what the work needs inside `run`, so that
`unirs --help` stays quick.
"""

import warnings

COMMANDS = {
    "predict": "answer a question about new pictures, pairs or videos",
    "tasks": "list task plugins; write one (new); check one's data (check)",
    "plugins": "list plugins of all groups; show one's options",
    "synth": "write synthetic data sets in the real formats",
    "bench": "run models on a suite of tasks, beside published numbers",
    "ablate": "train variants of a model several times, and compare them",
    "score": "score saved answers again, without a model",
    "compare": "compare two runs: differences, their chance, and what changed",
    "convert": "write a VILA-1.5, UniRS or LLaVA checkpoint, or a run, as a saved model",
}
"""What each does, in the order of `unirs --help`."""


def hide_warnings() -> None:
    """Hides what a user can do nothing about."""
    # Lightning calls a function of torch's that it means to replace.
    warnings.filterwarnings("ignore", module="lightning.pytorch.utilities._pytree")
    # A barebones trainer logs nothing, as configured.
    warnings.filterwarnings("ignore", "You are trying to `self.log")
