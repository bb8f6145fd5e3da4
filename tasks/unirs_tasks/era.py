"""ERA: which event an aerial video shows.

Source: "ERA: A Data Set and Deep Learning Benchmark for Event Recognition in Aerial Videos", IEEE GRSM 8(4), 2020.
"""

import re
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

from unirs import PromptTemplate, Sample, Task, TaskSplit, Turn, Video
from unirs.errors import DataError, did_you_mean
from unirs.metrics import Top1
from unirs.ranges import PositiveInt
from unirs.tasks import FrameSampling, SplitName, check_split, class_folders, files_of, held_out
from unirs_tasks._shared import synthesize

_NAMES = (
    "post-earthquake, flood, fire, landslide, mudslide, traffic collision, traffic congestion, harvesting, ploughing, "
    "constructing, police chase, conflict, baseball, basketball, boating, cycling, running, soccer, swimming, "
    "car racing, party, concert, parade/protest, religious activity, non-event"
)
CLASSES = tuple(_NAMES.split(", "))
"""ERA's 25 classes, in the paper's order."""


def build(root: Path, num_frames: PositiveInt = 8, frame_sampling: FrameSampling = "uniform") -> Task:
    """ERA: videos of five seconds, 24 frames per second, 640x640 pixels, 25 classes.

    ERA has no validation set: `val` is a tenth of each class of `Train`, at least one video if a class has two,
    selected by a hash of the file name; `train` is the rest. Videos added to one class do not change the split of
    another.

    Args:
        root: folder with `Train/<Class>/*.mp4` and `Test/<Class>/*.mp4`. Class folders are matched without regard to
            case, spaces, `-`, `_` and `/`.
        num_frames: number of frames of a video.
        frame_sampling: `uniform` spreads them evenly from the first frame to the last; `vila` ends with the last but
            one, as the public code of VILA and UniRS does.
    """
    to_video = partial(Video, num_frames=num_frames, frame_sampling=frame_sampling)
    return Task(
        modality="video",
        load_split=partial(_read_split, root, to_video),
        prompt=PromptTemplate(task_tag="video", instruction="What is the event in the video?"),
        metric=Top1(classes=CLASSES),
        required_paths=(root / "Train", root / "Test"),
        download_hint="ERA, https://lcmou.github.io/ERA_Dataset",
        synthesize=partial(synthesize, "era", root),
        choices=tuple(map(_sentence, CLASSES)),
    )


def _read_split(root: Path, to_video: Callable[[Path], Video], split: SplitName) -> TaskSplit:
    check_split(split)
    folder = root / ("Test" if split == "test" else "Train")
    videos = _videos_by_class(folder)
    samples: list[Sample] = []
    for name in CLASSES:
        val = set() if split == "test" else held_out((path.name for path in videos[name]), 0.1)
        paths = [path for path in videos[name] if (path.name in val) == (split == "val")]
        samples += [_sample(path, name, to_video(path)) for path in paths]
    if not samples:
        raise DataError(f"{folder} has no video for the split '{split}'. It must hold <Class>/*.mp4.")
    return TaskSplit(samples)


def _videos_by_class(folder: Path) -> defaultdict[str, list[Path]]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. It must hold <Class>/*.mp4: download ERA, or correct its root.")
    known = {_key(name): name for name in CLASSES}
    videos: defaultdict[str, list[Path]] = defaultdict(list)
    for entry in class_folders(folder):
        if _key(entry.name) not in known:
            hint = did_you_mean(entry.name.lower(), CLASSES)
            raise DataError(f"{entry} is not one of ERA's classes. {hint} Rename or remove the folder.")
        videos[known[_key(entry.name)]] += files_of(entry, {".mp4"}, "an .mp4 file")
    return videos


def _key(name: str) -> str:
    return re.sub(r"[\s\-_/]", "", name).lower()


def _sentence(name: str) -> str:
    return f"This is a video about {name}."


def _sample(path: Path, name: str, video: Video) -> Sample:
    key = f"{path.parent.name}/{path.name}"
    turn = Turn(id=key, references=(name,), train_answers=(_sentence(name),), category=name)
    return Sample(id=key, media=video, turns=(turn,))
