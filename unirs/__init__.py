"""UniRS: one vision-language model for remote sensing images, image pairs and videos.

Importing this package loads nothing else: a public name brings its module when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unirs.api import Answer, UniRS
    from unirs.errors import UniRSError
    from unirs.media import Image, Media, MediaKind, Pair, Video
    from unirs.prompt import Prompt
    from unirs.sample import Sample, Split, Turn
    from unirs.task import Task

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Image",
    "Media",
    "MediaKind",
    "Pair",
    "Prompt",
    "Sample",
    "Split",
    "Task",
    "Turn",
    "UniRS",
    "UniRSError",
    "Video",
    "__version__",
]


_MODULES = {
    "api": ("Answer", "UniRS"),
    "errors": ("UniRSError",),
    "media": ("Image", "Media", "MediaKind", "Pair", "Video"),
    "prompt": ("Prompt",),
    "sample": ("Sample", "Split", "Turn"),
    "task": ("Task",),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the type of each is told above
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"unirs.{module}"), name)
    raise AttributeError(f"module 'unirs' has no attribute '{name}'")
