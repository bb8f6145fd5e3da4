"""UniRS: one vision-language model for remote sensing images, image pairs and videos.

Importing this package loads neither torch nor any plugin.
"""

from unirs.errors import UniRSError
from unirs.media import Image, Media, MediaKind, Pair, Video
from unirs.prompt import Prompt
from unirs.sample import Sample, Split, Turn
from unirs.task import Task

__version__ = "0.1.0"

__all__ = [
    "Image",
    "Media",
    "MediaKind",
    "Pair",
    "Prompt",
    "Sample",
    "Split",
    "Task",
    "Turn",
    "UniRSError",
    "Video",
    "__version__",
]
