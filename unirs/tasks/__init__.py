"""What a task plugin is made of, and what reads its data. Importing it loads no torch."""

from typing import TYPE_CHECKING

from unirs.utils.lazy import lazy_names

if TYPE_CHECKING:
    from unirs.tasks.fields import parse_row, pick, texts
    from unirs.tasks.folders import class_folders, files_of
    from unirs.tasks.image_source import InMemory
    from unirs.tasks.inputs import as_media
    from unirs.tasks.media import IMAGE_SUFFIXES, Image, Media, Modality, Pair, ResizeMode, ResizeSpec, Video
    from unirs.tasks.perturbation import PerturbedMedia
    from unirs.tasks.prompt import PromptTemplate
    from unirs.tasks.sample import LazySamples, Sample, TaskSplit, Turn
    from unirs.tasks.series import Series
    from unirs.tasks.splits import FileSplits, check_split, held_out
    from unirs.tasks.task import SplitName, Task
    from unirs.tasks.video_reader import FrameSampling, RefusedVideoError, VideoReader
    from unirs.utils.io import read_json, read_json_lines, read_row, read_text, scan_json_lines
    from unirs.utils.json_stream import read_json_list, read_json_lists

__all__ = ["LazySamples", "PromptTemplate", "Sample", "SplitName", "Task", "TaskSplit", "Turn"]
__all__ += ["Image", "Media", "Modality", "Pair", "PerturbedMedia", "ResizeMode", "ResizeSpec", "Series", "Video"]
__all__ += ["FrameSampling", "InMemory", "RefusedVideoError", "VideoReader", "as_media"]
__all__ += [
    "parse_row",
    "pick",
    "read_json",
    "read_json_lines",
    "read_json_list",
    "read_json_lists",
    "read_row",
    "read_text",
    "scan_json_lines",
    "texts",
]
__all__ += ["IMAGE_SUFFIXES", "FileSplits", "check_split", "class_folders", "files_of", "held_out"]

__getattr__ = lazy_names(
    __name__,
    {
        "unirs.tasks.fields": "parse_row pick texts",
        "unirs.tasks.folders": "class_folders files_of",
        "unirs.tasks.image_source": "InMemory",
        "unirs.tasks.inputs": "as_media",
        "unirs.tasks.media": "IMAGE_SUFFIXES Image Media Modality Pair ResizeMode ResizeSpec Video",
        "unirs.tasks.perturbation": "PerturbedMedia",
        "unirs.tasks.prompt": "PromptTemplate",
        "unirs.tasks.sample": "LazySamples Sample TaskSplit Turn",
        "unirs.tasks.series": "Series",
        "unirs.tasks.splits": "FileSplits check_split held_out",
        "unirs.tasks.task": "SplitName Task",
        "unirs.tasks.video_reader": "FrameSampling RefusedVideoError VideoReader",
        "unirs.utils.io": "read_json read_json_lines read_row read_text scan_json_lines",
        "unirs.utils.json_stream": "read_json_list read_json_lists",
    },
)
