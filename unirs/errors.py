"""What UniRS raises when the user, a file or a plugin is at fault.

Each message says what is wrong, in which file or row, and what to do. The command line prints it on one line and ends
with exit code 1; anything that is not a `UniRSError` is a bug and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class UniRSError(Exception):
    """Base of all errors that a message is enough for."""


class DataError(UniRSError):
    """A dataset's file or row is missing or wrong."""


class MediaError(DataError):
    """A picture or video is missing, does not decode, or is not what its kind asks for."""


class PluginError(UniRSError):
    """A plugin is unknown, named twice, does not load, or was given an option it does not have."""


class ModelError(UniRSError):
    """Model parts, weights or prompts do not fit together."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Says what exists, and what a mistyped name probably meant, as the end of an error message."""
    names = sorted(known)
    match = get_close_matches(name, names, n=1)
    hint = f"Did you mean '{match[0]}'? " if match else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."
