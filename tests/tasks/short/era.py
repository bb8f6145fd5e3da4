"""ERA: which event an aerial video shows. A tenth of each class of Train is val."""

import re
from pathlib import Path

from unirs import PromptTemplate, Sample, Task, TaskSplit, Turn, Video
from unirs.errors import DataError, did_you_mean
from unirs.metrics import Top1
from unirs.tasks import class_folders, files_of, held_out

NAMES = (
    "post-earthquake, flood, fire, landslide, mudslide, traffic collision, traffic congestion, harvesting, ploughing, "
    "constructing, police chase, conflict, baseball, basketball, boating, cycling, running, soccer, swimming, "
    "car racing, party, concert, parade/protest, religious activity, non-event"
)
CLASSES = tuple(NAMES.split(", "))


def build(root: Path, num_frames: int = 8) -> Task:
    def samples(split: str) -> TaskSplit:
        folders = class_folders(root / ("Test" if split == "test" else "Train"))
        return TaskSplit(
            [sample(path) for folder in sorted(folders, key=class_index) for path in videos(folder, split)]
        )

    def sample(path: Path) -> Sample:
        key, name = f"{path.parent.name}/{path.name}", CLASSES[class_index(path.parent)]
        return Sample(
            key, Video(path, num_frames), (Turn(key, (name,), train_answers=(sentence(name),), category=name),)
        )

    return Task(
        modality="video",
        load_split=samples,
        prompt=PromptTemplate("video", "What is the event in the video?"),
        metric=Top1(CLASSES),
        choices=tuple(map(sentence, CLASSES)),
        required_paths=(root / "Train", root / "Test"),
        download_hint="https://lcmou.github.io/ERA_Dataset",
    )


def videos(folder: Path, split: str) -> list[Path]:
    paths = files_of(folder, {".mp4"}, "an .mp4 file")
    val = held_out((path.name for path in paths), 0.1)
    return [path for path in paths if split == "test" or (path.name in val) == (split == "val")]


def class_index(folder: Path) -> int:
    """Index of a folder's class in `CLASSES`: `PoliceChase` is `police chase`."""
    spellings = [re.sub(r"[\s\-_/]", "", name).lower() for name in (folder.name, *CLASSES)]
    if spellings[0] not in spellings[1:]:
        raise DataError(f"{folder} is not one of ERA's classes. {did_you_mean(folder.name, CLASSES)}")
    return spellings[1:].index(spellings[0])


def sentence(name: str) -> str:
    return f"This is a video about {name}."
