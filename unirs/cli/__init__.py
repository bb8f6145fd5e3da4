"""Commands without a trainer, one module each: `register(parser)` adds options, and sets `run`, which does the work.

`unirs --help` is fast, as only the module of the given command is imported, which imports the rest inside `run`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unirs.errors import UniRSError

if TYPE_CHECKING:
    from unirs.inference.generation_options import GenerationOptions

COMMANDS = {
    "predict": "answer a question about new images, pairs or videos",
    "demo": "open a page in the browser that answers questions about uploaded media",
    "tasks": "list task plugins; write one (new); check the data of one (check)",
    "plugins": "list plugins of all groups; show options of one",
    "synth": "write synthetic data sets in the real formats",
    "bench": "evaluate models on a suite of tasks, beside published numbers",
    "plan": "estimate hours, memory and disk of a training or benchmark",
    "ablate": "train variants of a model several times, and compare them",
    "serve": "answer questions over HTTP, in the form of OpenAI's chat completions",
    "score": "score saved answers again, without a model",
    "report": "write an HTML report of a run, of two runs, or of a suite",
    "export": "write a suite as tasks of lmms-eval",
    "compare": "compare two runs: differences, their significance, and changed rows",
    "completion": "print a script for completion in a shell",
    "convert": "convert a VILA-1.5, UniRS or LLaVA checkpoint, or a run, to a saved model",
}
"""Commands and their descriptions, in the order of `unirs --help`."""


class HelpFormatter(argparse.HelpFormatter):
    """Adds the default of an option to its help."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.option_strings and isinstance(action.default, str | Path | int | float)
        hidden = isinstance(action.default, bool) or action.default == argparse.SUPPRESS
        return f"{action.help} (default: %(default)s)" if shown and not hidden else action.help


def check_positive(options: argparse.Namespace, *names: str) -> None:
    """Raises a `UniRSError` for an option below 1."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UniRSError(f"--{name.replace('_', '-')} must be 1 or more, got {value}.")


def add_generation_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `GenerationOptions`."""
    group = parser.add_argument_group("generation of free text")
    group.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token; else samples")
    group.add_argument("--top-p", type=float, default=1.0, help="probability of the tokens to sample from, 0..1")
    group.add_argument("--num-beams", type=int, default=1, help="number of beams, without sampling")
    group.add_argument("--repetition-penalty", type=float, default=1.0, help="more than 1 discourages repeated tokens")
    group.add_argument("--sampling-seed", type=int, default=0, help="seed of sampling")


def generation_options(options: argparse.Namespace) -> "GenerationOptions":
    """The options that `add_generation_options` added."""
    from unirs.inference.generation_options import GenerationOptions

    return GenerationOptions(
        options.temperature, options.top_p, options.num_beams, options.repetition_penalty, options.sampling_seed
    )


def add_option(parser: argparse.ArgumentParser, owner: str = "the task") -> None:
    """Adds `--option KEY=VALUE`."""
    text = f"an option of {owner}, its value as in a config; can be given several times"
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help=text)


def add_video_reader(parser: argparse.ArgumentParser) -> None:
    """Adds `--video-reader`."""
    from unirs.tasks.video_reader import DEFAULT_READER

    text = "decodes videos: pyav, decord, torchcodec or another plugin of unirs.video_readers"
    parser.add_argument("--video-reader", default=DEFAULT_READER, metavar="NAME", help=text)


def task_spec(name: str, root: Path | None, options: Sequence[str]) -> dict[str, Any]:
    """The `name`, `root` (default: `data/NAME`) and options of a task, as `plugins.create` takes them."""
    from unirs.plugins import short_name

    return {"name": name, "root": root or Path("data") / short_name(name), **parse_options(options)}


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """The values of `--option KEY=VALUE`, each as in a config."""
    import yaml

    parsed: dict[str, Any] = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator:
            raise UniRSError(f"--option needs KEY=VALUE, got '{option}'.")
        try:
            parsed[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            raise UniRSError(f"--option {key}: '{value}' is no value of a config ({error}).") from error
    return parsed
