"""UniRS: one vision-language model for remote sensing images, image pairs, videos and series of dated images.

Importing this package imports no other: each public name imports its module on first use.
"""

from typing import TYPE_CHECKING

from unirs.utils.lazy import lazy_names

if TYPE_CHECKING:
    from unirs.errors import UniRSError
    from unirs.factory import create_change_extractor, create_encoder, create_projector, create_task
    from unirs.inference.api import UniRS
    from unirs.inference.completion import Completion
    from unirs.inference.generation_options import GenerationOptions
    from unirs.plugins import list_plugins, plugin_options
    from unirs.tasks.media import Image, Media, Modality, Pair, Video
    from unirs.tasks.prompt import PromptTemplate
    from unirs.tasks.sample import Sample, TaskSplit, Turn
    from unirs.tasks.series import Series
    from unirs.tasks.task import Task

__version__ = "0.1.0"

__all__ = ["Completion", "GenerationOptions", "UniRS", "UniRSError", "__version__"]
__all__ += ["Image", "Media", "Modality", "Pair", "PromptTemplate", "Sample", "Series", "Task", "TaskSplit", "Turn"]
__all__ += ["Video"]
__all__ += ["create_change_extractor", "create_encoder", "create_projector", "create_task"]
__all__ += ["list_plugins", "plugin_options"]

__getattr__ = lazy_names(
    __name__,
    {
        "unirs.errors": "UniRSError",
        "unirs.factory": "create_change_extractor create_encoder create_projector create_task",
        "unirs.inference.api": "UniRS",
        "unirs.inference.completion": "Completion",
        "unirs.inference.generation_options": "GenerationOptions",
        "unirs.plugins": "list_plugins plugin_options",
        "unirs.tasks.media": "Image Media Modality Pair Video",
        "unirs.tasks.prompt": "PromptTemplate",
        "unirs.tasks.sample": "Sample TaskSplit Turn",
        "unirs.tasks.series": "Series",
        "unirs.tasks.task": "Task",
    },
)
