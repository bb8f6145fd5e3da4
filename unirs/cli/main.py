"""`unirs`: the command line. Only what a command needs is imported."""

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module

from unirs import __version__
from unirs.cli import COMMANDS, HelpFormatter
from unirs.cli.notes import hide_notes
from unirs.errors import UniRSError, did_you_mean, nearest
from unirs.utils.process import tune_process

TRAINER_COMMANDS = {
    "fit": "train a model: unirs fit --config FILE",
    "validate": "score a run's best checkpoint on the validation split",
    "test": "score a run's best checkpoint on the test split, with baselines",
}

_CONTINUE = {
    "fit": "If it has saved checkpoints, continue with '--ckpt_path last'.",
    "validate": "Answers are kept: run the same command again.",
    "test": "Answers are kept: run the same command again.",
    "bench": "Answers are kept: continue with '--resume'.",
    "ablate": "Finished trainings are kept: continue with '--resume'.",
    "predict": "With '--out', answers are kept: run the same command again.",
}
"""What to do after an interrupt, by command; others leave no incomplete files."""

_STORAGE = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EIO)
# Messages of torch's RuntimeErrors, on the GPU, the CPU and in workers that the system has killed.
_OUT_OF_MEMORY = ("out of memory", "not enough memory", "allocate memory", "ALLOC_FAILED", "killed by signal")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line, by default that of the process; `arguments` do not contain the program's name.

    Returns:
        The exit code: 0, 1 after the one message of a `UniRSError`, or 130 after an interrupt.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Names of files may hold bytes that are not UTF-8, and a terminal may be limited to ASCII.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    hide_notes()
    tune_process()
    try:
        if arguments and arguments[0] in TRAINER_COMMANDS:
            return _train(arguments)
        parser = build_parser(arguments)
        options, unknown = parser.parse_known_args(arguments)
        if unknown:
            parser.error(
                f"unrecognized arguments: {' '.join(unknown)}. {_nearest_option(unknown, parser)}".rstrip(" .")
            )
        options.run(options)
    except UniRSError as error:
        print(f"unirs: error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning turns an interrupt into exit code 1.
        if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        print(f"unirs: interrupted. {_CONTINUE.get(arguments[0], 'Run it again.')}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has enough. The interpreter's flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, MemoryError, RuntimeError) as error:
        message = _describe_limit(error)
        if message is None:
            raise
        print(f"unirs: error: {message}", file=sys.stderr)
        return 1
    return 0


def _describe_limit(error: Exception) -> str | None:
    """The message for an error that a limit of the machine causes, with what to do; None for other errors."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, OSError) and error.errno in _STORAGE:
        return f"{error.filename or 'A file'} cannot be read or written ({error.strerror}). Check its rights and disk."
    if isinstance(error, MemoryError) or any(text in reason for text in _OUT_OF_MEMORY):
        return (
            f"Out of memory ({reason}). Lower data.batch_size, data.eval_batch_size (--batch-size), data.max_length, "
            "data.max_turns, data.num_workers, data.cache_gb or the number of frames of videos, or set "
            "trainer.precision to bf16-true."
        )
    return None


def _train(arguments: list[str]) -> int:
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from unirs.cli.trainer import TrainerCLI, config_errors

    try:
        with config_errors(arguments):
            TrainerCLI(arguments)
    except SIGTERMException:
        return 128 + signal.SIGTERM
    return 0


def _nearest_option(arguments: Sequence[str], parser: argparse.ArgumentParser) -> str:
    """The nearest match of the first unknown option among those of a parser and its commands."""
    unknown = next((argument.partition("=")[0] for argument in arguments if argument.startswith("--")), None)
    return "" if unknown is None else nearest(unknown, _option_names(parser))


def _option_names(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _option_names(command)


def build_parser(arguments: Sequence[str] = (), *, everything: bool = False) -> argparse.ArgumentParser:
    """A parser of all commands, with the options of the given one, or of all but the trainer's."""
    parser = argparse.ArgumentParser(
        prog="unirs", description="One vision-language model for remote sensing images, image pairs and videos."
    )
    parser.add_argument("--version", action="version", version=f"unirs {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, text in TRAINER_COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    given = next((argument for argument in arguments if not argument.startswith("-")), None)
    names = [*TRAINER_COMMANDS, *COMMANDS]
    if given is not None and given not in names:
        parser.error(f"unknown command '{given}'. {did_you_mean(given, names)}")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, formatter_class=HelpFormatter)
        if everything or name == given:
            import_module(f"unirs.cli.{name}").register(command)
    return parser
