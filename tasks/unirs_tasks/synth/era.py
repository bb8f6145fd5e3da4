"""A synthetic ERA: drone videos of events in ERA's on-disk format."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from unirs.errors import DataError
from unirs_tasks.synth.events import EVENTS
from unirs_tasks.synth.video import Camera, encode, render
from unirs_tasks.synth.writing import map_items, new_folder


def write(root: Path, size: int, seed: int) -> None:
    """Writes `Train/<Class>/*.mp4` and `Test/<Class>/*.mp4`.

    Videos are H.264, 224x224 px, 4 s at 8 frames a second. Each shows a different scene. Equal arguments give equal
    bytes for equal versions of NumPy, Pillow and PyAV.

    Args:
        root: output folder; must not exist or must be empty.
        size: number of training videos over all classes; at least two per class are written, one of them for
            validation. The test split has a quarter as many, and at least two per class.
        seed: of all randomness.

    Raises:
        DataError: `root` is not empty, or `size` is less than 1.
    """
    if size < 1:
        raise DataError(f"Synthetic ERA at {root}: 'size' must be 1 or more, got {size}.")
    least = 2 * len(EVENTS)
    names = _names("Train", max(least, size)) + _names("Test", max(least, size // 4))
    with new_folder(root) as folder:
        for parent in {(folder / name).parent for name in names}:
            parent.mkdir(parents=True)
        map_items(partial(_video, folder), names, seed=seed, description="ERA")


def _names(split: str, count: int) -> list[str]:
    classes = list(EVENTS)
    turns = ((classes[index % len(classes)], index // len(classes)) for index in range(count))
    return [f"{split}/{name}/{number:05d}.mp4" for name, number in turns]


def _video(folder: Path, name: str, rng: np.random.Generator) -> None:
    path = folder / name
    scene = EVENTS[path.parent.name](rng)
    encode(render(scene, Camera.sample(rng)), path)
