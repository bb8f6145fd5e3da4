"""UniRS: one vision-language model for remote sensing images, image pairs and videos.

Importing this package loads neither torch nor any plugin.
"""

from typing import TYPE_CHECKING, Any

from unirs.errors import UniRSError
from unirs.media import Image, Media, MediaKind, Pair, Video
from unirs.prompt import Prompt
from unirs.sample import Sample, Split, Turn
from unirs.task import Task

if TYPE_CHECKING:
    from unirs.api import Answer, UniRS

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


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the two classes that need torch
    if name in ("Answer", "UniRS"):
        from unirs import api

        return getattr(api, name)
    raise AttributeError(f"module 'unirs' has no attribute '{name}'")
