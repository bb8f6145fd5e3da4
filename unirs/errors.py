"""Errors that the user, a file or a plugin causes.

A message names what is wrong, the file or row, and the remedy. The command line prints it on one line and ends with
exit code 1. Any other exception is a bug and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class UniRSError(Exception):
    """Base of all errors whose message suffices without a traceback."""


class DataError(UniRSError):
    """A file or row of a data set is missing or wrong."""


class MediaError(DataError):
    """An image or video is missing, does not decode, or does not fit its modality."""


class PluginError(UniRSError):
    """A plugin is unknown, ambiguous or does not import, or an option is unknown or wrong."""


class ModelError(UniRSError):
    """Components, weights or prompts of a model do not fit together."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest match of an unknown name, and all known ones."""
    names = sorted(known)
    return f"{nearest(name, names)}Known: {', '.join(names) or 'none'}."


def nearest(name: str, known: Iterable[str]) -> str:
    """The nearest match of an unknown name as a question with a space at its end; empty if none is near."""
    match = get_close_matches(name, sorted(known), n=1)
    return f"Did you mean '{match[0]}'? " if match else ""
