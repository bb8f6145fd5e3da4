"""UniRS: one vision-language model for remote sensing images, image pairs and videos.

Importing this package loads nothing else: a public name brings its module when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unirs.errors import UniRSError
    from unirs.inference.api import Answer, UniRS
    from unirs.tasks.media import Image, Media, Modality, Pair, Video
    from unirs.tasks.prompt import PromptTemplate
    from unirs.tasks.sample import Sample, TaskSplit, Turn
    from unirs.tasks.task import Task

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Image",
    "Media",
    "Modality",
    "Pair",
    "PromptTemplate",
    "Sample",
    "Task",
    "TaskSplit",
    "Turn",
    "UniRS",
    "UniRSError",
    "Video",
    "__version__",
]


_MODULES = {
    "inference.api": ("Answer", "UniRS"),
    "errors": ("UniRSError",),
    "tasks.media": ("Image", "Media", "Modality", "Pair", "Video"),
    "tasks.prompt": ("PromptTemplate",),
    "tasks.sample": ("Sample", "TaskSplit", "Turn"),
    "tasks.task": ("Task",),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the type of each is told above
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"unirs.{module}"), name)
    raise AttributeError(f"module 'unirs' has no attribute '{name}'")
