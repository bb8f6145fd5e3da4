"""Scenes in <class>/<image> with splits by a file or by a hash."""

from pathlib import Path

from unirs import Image, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.metrics import Top1
from unirs.tasks import IMAGE_SUFFIXES, FileSplits, class_folders, files_of

PROMPT = PromptTemplate("scene", "Classify the image from the following classes. Answer in one word or a short phrase.")
SOURCE = "https://captain-whu.github.io/AID"


def build(root: Path, split_file: Path | None = None, seed: int = 0) -> Task:
    folders = {folder.name: folder.name.lower().replace("_", " ") for folder in class_folders(root)}
    classes = tuple(sorted(folders.values()))

    def samples(split: str) -> TaskSplit:
        listed = (files_of(root / folder, IMAGE_SUFFIXES, "an image") for folder in folders)
        groups = [[f"{path.parent.name}/{path.name}" for path in paths] for paths in listed]
        return TaskSplit([sample(name) for name in FileSplits(split_file, 0.2, 0.1, seed).select(split, groups)])

    def sample(name: str) -> Sample:
        scene = folders[name.split("/")[0]]
        return Sample(name, Image(root / name), (Turn(name, (scene,), category=scene),))

    data = {"load_split": samples, "required_paths": (root,), "download_hint": SOURCE}
    return Task(modality="image", prompt=PROMPT, metric=Top1(classes), choices=classes, **data)  # type: ignore[arg-type]
