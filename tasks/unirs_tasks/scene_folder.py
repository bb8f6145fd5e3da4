"""Scene classification from class folders: AID, UC Merced, RSSCN7, NWPU-RESISC45 and others."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from unirs import Image, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import Top1, fold, words
from unirs.ranges import UnitInterval
from unirs.tasks import IMAGE_SUFFIXES, FileSplits, SplitName, check_split, class_folders, files_of, pick

Preset = Literal["short", "classes", "plain"]

_INSTRUCTIONS: Mapping[Preset, str] = {
    "short": "Classify the image from the following classes. Answer in one word or a short phrase.",
    "classes": "Classify the given image in one of the following classes. Classes: {classes}. "
    "Answer in one word or a short phrase.",
    "plain": "What kind of scene does the image show?",
}
_IMAGE_FILE = f"an image ({', '.join(sorted(IMAGE_SUFFIXES))})"


def build(
    root: Path,
    preset: Preset = "short",
    split_file: Path | None = None,
    test_share: UnitInterval = 0.2,
    val_share: UnitInterval = 0.1,
    seed: int = 0,
) -> Task:
    """Images in class folders. The class is the folder's name in lower case, its words separated by spaces.

    The images are either in `root/{train,test}/<class>/<image>`, with or without `root/val`, or in
    `root/<class>/<image>`. In the second case a split file or a hash of the file names defines the splits. If neither a
    folder nor the split file names validation images, `val` is a share of each class's training images, selected by
    hash, and `train` is the rest. A share is at least one image if a class has two; images added to one class do not
    change the split of another.

    Args:
        root: folder with the images.
        preset: the instruction. `short` and `classes` are used in papers, `classes` with the list of all classes;
            `plain` is a short question.
        split_file: CSV with the columns `file` (path from `root`) and `split` (`train`, `val` or `test`), relative to
            the current folder; images that it omits are excluded.
        test_share: share of each class's images that is `test` if no folder or file defines it, 0..1.
        val_share: share of each class's training images that is `val` if no folder or file defines it, 0..1.
        seed: changes the selection by hash.

    Returns:
        The task, without classes if `root` does not exist.

    Raises:
        PluginError: the preset is unknown, or a share is not from 0 to 1.
    """
    instruction = pick("preset", preset, _INSTRUCTIONS)
    splits = FileSplits(split_file, test_share, val_share, seed)
    split_folders = [folder for split in get_args(SplitName) for folder in class_folders(root / split)]
    # Empty if a class is named `train`: it holds images, a split holds folders.
    if split_folders and split_file is None:
        load_split, folders = partial(_of_folders, root, splits), split_folders
    else:
        load_split, folders = partial(_of_one_folder, root, splits), class_folders(root)
    classes = tuple(sorted({_name(folder.name) for folder in folders} - {""}))
    return Task(
        modality="image",
        load_split=load_split,
        prompt=PromptTemplate(task_tag="scene", instruction=instruction.replace("{classes}", ", ".join(classes))),
        metric=Top1(classes=classes),
        required_paths=(root, *filter(None, [split_file])),
        download_hint="a data set of class folders, such as AID, https://captain-whu.github.io/AID",
        choices=classes,
    )


def _of_folders(root: Path, splits: FileSplits, split: SplitName) -> TaskSplit:
    check_split(split)
    given_val = (root / "val").is_dir()
    folder = root / ("train" if split == "val" and not given_val else split)
    images_by_class = _images_by_class(folder)
    if split != "test" and not given_val:
        for name, files in images_by_class.items():
            val = splits.val_of(files)
            images_by_class[name] = [file for file in files if (file in val) == (split == "val")]
    return _split(folder, split, [f"{name}/{file}" for name, files in images_by_class.items() for file in files])


def _of_one_folder(root: Path, splits: FileSplits, split: SplitName) -> TaskSplit:
    check_split(split)
    groups = [[f"{name}/{file}" for file in files] for name, files in _images_by_class(root).items()]
    return _split(root, split, splits.select(split, groups))


def _images_by_class(folder: Path) -> dict[str, list[str]]:
    """File names of the images of each class folder."""
    images_by_class = {
        entry.name: [path.name for path in files_of(entry, IMAGE_SUFFIXES, _IMAGE_FILE)]
        for entry in class_folders(folder)
    }
    if not images_by_class:
        raise DataError(f"{folder} holds no class folders. It must hold <class>/<image>: correct 'root'.")
    for name, files in images_by_class.items():
        if not files:
            raise DataError(f"The class folder {folder / name} is empty. Add images, or remove it.")
    return images_by_class


def _split(folder: Path, split: SplitName, images: list[str]) -> TaskSplit:
    if not images:
        raise DataError(f"{folder} has no image for the split '{split}'. Add some, or raise its share.")
    return TaskSplit([_sample(folder, image) for image in images])


def _sample(folder: Path, image: str) -> Sample:
    name = _name(image.split("/")[0])
    if not name:
        raise DataError(f"The class folder of {folder / image} has no letter or digit in its name. Rename it.")
    turn = Turn(id=image, references=(name,), category=name)
    return Sample(id=image, media=Image(folder / image), turns=(turn,))


def _name(folder: str) -> str:
    """The class of a folder: `River_Lake` is `river lake`."""
    return " ".join(words(fold(folder, str.lower)))
