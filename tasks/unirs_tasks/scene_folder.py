"""Scene classification from class folders: AID, UC Merced, RSSCN7, NWPU-RESISC45 and their like."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from unirs import Image, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import Top1
from unirs.tasks import (
    IMAGE_SUFFIXES,
    Shares,
    SplitName,
    check_split,
    choose_split,
    class_folders,
    files_of,
    pick,
    read_split_file,
)

Preset = Literal["short", "classes", "plain"]

_INSTRUCTIONS: Mapping[Preset, str] = {
    "short": "Classify the image from the following classes. Answer in one word or a short phrase.",
    "classes": "Classify the given image in one of the following classes. Classes: {classes}. "
    "Answer in one word or a short phrase.",
    "plain": "What kind of scene does the image show?",
}


_PICTURE = f"a picture ({', '.join(sorted(IMAGE_SUFFIXES))})"


def build(
    root: Path,
    preset: Preset = "short",
    split_file: Path | None = None,
    test_share: float = 0.2,
    val_share: float = 0.1,
    seed: int = 0,
) -> Task:
    """Pictures in class folders. The class is the folder's name in lower case, its words parted by spaces.

    The pictures lie either in `root/{train,test}/<class>/<picture>`, with or without `root/val`, or in
    `root/<class>/<picture>`. Then a split file, or else a hash of the file names, says which split a picture is in.
    Where neither a folder nor the split file names validation pictures, `val` is a share of each class's training
    pictures, chosen by hash, and `train` is the rest. A share is at least one picture where a class has two; what is
    added to one class does not move another's pictures.

    Args:
        root: folder with the pictures.
        preset: the instruction. `short` and `classes` are the two that papers use, `classes` with the list of all
            classes; `plain` asks in a few words.
        split_file: CSV with the columns `file` (path from `root`) and `split` (`train`, `val` or `test`); pictures that
            it does not name are left out. From the current folder.
        test_share: share of each class's pictures that is `test` where nothing else says so, 0..1.
        val_share: share of each class's training pictures that is `val` where nothing else says so, 0..1.
        seed: another one chooses other pictures.

    Returns:
        The task. Where `root` does not exist, it has no classes.

    Raises:
        PluginError: the preset is unknown, or a share is not from 0 to 1.
    """
    instruction = pick("preset", preset, _INSTRUCTIONS)
    shares = Shares(test_share, val_share, seed)
    named = None if split_file is None else Path(split_file)
    parts = [folder for split in get_args(SplitName) for folder in class_folders(root / split)]
    # None if a class is named `train`: it holds images, a split holds folders.
    if parts and named is None:
        samples, folders = partial(_of_folders, root, shares), parts
    else:
        samples, folders = partial(_of_one_folder, root, named, shares), class_folders(root)
    classes = tuple(sorted({_name(folder.name) for folder in folders} - {""}))
    return Task(
        modality="image",
        load_split=samples,
        prompt=PromptTemplate(task_tag="scene", instruction=instruction.replace("{classes}", ", ".join(classes))),
        metric=Top1(classes=classes),
        required_paths=(root,) if named is None else (root, named),
        download_hint="a data set of class folders, such as AID, https://captain-whu.github.io/AID",
        choices=classes,
    )


def _of_folders(root: Path, shares: Shares, split: SplitName) -> TaskSplit:
    check_split(split)
    given_val = (root / "val").is_dir()
    folder = root / ("train" if split == "val" and not given_val else split)
    images_by_class = _images_by_class(folder)
    if split != "test" and not given_val:
        for name, files in images_by_class.items():
            val = shares.of_val(files)
            images_by_class[name] = [file for file in files if (file in val) == (split == "val")]
    return _split(folder, split, [f"{name}/{file}" for name, files in images_by_class.items() for file in files])


def _of_one_folder(root: Path, split_file: Path | None, shares: Shares, split: SplitName) -> TaskSplit:
    check_split(split)
    groups = [[f"{name}/{file}" for file in files] for name, files in _images_by_class(root).items()]
    given = None if split_file is None else read_split_file(split_file, {name for group in groups for name in group})
    return _split(root, split, choose_split(split, groups, given, shares))


def _images_by_class(folder: Path) -> dict[str, list[str]]:
    """File names of the images of each class folder."""
    images_by_class = {
        entry.name: [path.name for path in files_of(entry, IMAGE_SUFFIXES, _PICTURE)] for entry in class_folders(folder)
    }
    if not images_by_class:
        raise DataError(f"{folder} holds no class folders. It must hold <class>/<image>: correct 'root'.")
    for name, files in images_by_class.items():
        if not files:
            raise DataError(f"The class folder {folder / name} is empty. Add images, or remove it.")
    return images_by_class


def _split(folder: Path, split: SplitName, images: list[str]) -> TaskSplit:
    if not images:
        raise DataError(f"{folder} has no image for the split '{split}'. Add some, or raise the share chosen for it.")
    return TaskSplit([_sample(folder, image) for image in images])


def _sample(folder: Path, image: str) -> Sample:
    name = _name(image.split("/")[0])
    if not name:
        raise DataError(f"The class folder of {folder / image} has no letter or digit in its name. Rename it.")
    turn = Turn(id=image, references=(name,), category=name)
    return Sample(id=image, media=Image(folder / image), turns=(turn,))


def _name(folder: str) -> str:
    """The class that a folder stands for: `River_Lake` is `river lake`."""
    return " ".join(re.findall(r"[^\W_]+", folder.lower()))
