"""Scenes in <class>/<image>: splits by a file, or else by a hash."""

from pathlib import Path

from unirs import Image, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.metrics import Top1
from unirs.tasks import IMAGE_SUFFIXES, Shares, choose_split, class_folders, files_of, read_split_file

ASKED = PromptTemplate("scene", "Classify the image from the following classes. Answer in one word or a short phrase.")
SOURCE = "https://captain-whu.github.io/AID"


def build(root: Path, split_file: str = "", seed: int = 0) -> Task:
    folders = {folder.name: folder.name.lower().replace("_", " ") for folder in class_folders(root)}
    classes = tuple(sorted(folders.values()))

    def samples(split: str) -> TaskSplit:
        listed = (files_of(root / folder, IMAGE_SUFFIXES, "a picture") for folder in folders)
        groups = [[f"{path.parent.name}/{path.name}" for path in paths] for paths in listed]
        given = read_split_file(Path(split_file), {name for group in groups for name in group}) if split_file else None
        return TaskSplit([sample(name) for name in choose_split(split, groups, given, Shares(0.2, 0.1, seed))])

    def sample(name: str) -> Sample:
        scene = folders[name.split("/")[0]]
        return Sample(name, Image(root / name), (Turn(name, (scene,), category=scene),))

    data = {"load_split": samples, "required_paths": (root,), "download_hint": SOURCE}
    return Task(modality="image", prompt=ASKED, metric=Top1(classes), choices=classes, **data)  # type: ignore[arg-type]
