"""Writing a data set: in parallel, the same bytes whatever the number of processes, whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from unirs.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Starting processes takes longer than so few items.
_FEW = 16


@contextmanager
def new_folder(root: Path) -> Iterator[Path]:
    """A folder to write a data set to, which becomes `root` once all is written.

    Until then it is a hidden folder beside `root`; it is removed where the block raises or is interrupted.

    Args:
        root: may exist if it is an empty folder.

    Raises:
        DataError: `root` holds something already.
    """
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise DataError(f"{root} exists and is not an empty folder. Remove it, or name another folder to write to.")
    partly = root.parent / f".{root.name}.{os.getpid()}.partial"
    partly.mkdir(parents=True)
    try:
        yield partly
        if root.exists():
            root.rmdir()
        partly.rename(root)
    except BaseException:
        shutil.rmtree(partly, ignore_errors=True)
        raise


def generator(seed: int, *key: int) -> np.random.Generator:
    """The source of randomness for one part of a data set; parts with different keys are independent."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def map_items(
    function: Callable[[Item, np.random.Generator], Result],
    items: Sequence[Item],
    *,
    seed: int,
    description: str,
    processes: int | None = None,
) -> list[Result]:
    """Calls `function(item, generator)` on all items, in parallel where there are many.

    Args:
        function: picklable: defined at a module's top level, or a `functools.partial` of such.
        items: picklable.
        seed: of the data set; item i gets `generator(seed, i)`.
        description: shown before the progress bar on stderr.
        processes: how many; all CPUs where left out. The result does not depend on it.

    Returns:
        The results in the order of the items.
    """
    call = partial(_call, function, seed)
    count = min(processes or os.cpu_count() or 1, len(items))
    numbered = list(enumerate(items))
    if len(items) <= _FEW or count == 1:
        return list(_progress(map(call, numbered), len(items), description))
    # Forked children of a process with threads, such as torch's, may hang.
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))
    try:
        chunk = max(1, min(32, len(items) // (4 * count)))
        return list(_progress(pool.map(call, numbered, chunksize=chunk), len(items), description))
    finally:
        pool.shutdown(cancel_futures=True)


def write_json(path: Path, content: Any) -> None:  # noqa: ANN401 - anything that JSON can hold
    """Writes JSON as UTF-8."""
    path.write_text(json.dumps(content), encoding="utf-8")


def write_png(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Writes a picture `[H, W, 3]` as PNG.

    Sensor noise leaves little to find for a search for repetitions, and for the best filter of each row, which are what
    makes PNG slow; so there is one filter, the difference from the pixel on the left, and no search.
    """
    height, width, _ = picture.shape
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = 1
    rows[:, 1:4] = picture[:, 0]
    np.subtract(picture[:, 1:], picture[:, :-1], out=rows[:, 4:].reshape(height, width - 1, 3))
    packer = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)
    packed = packer.compress(rows.tobytes()) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", packed), _chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _call(function: Callable[[Item, np.random.Generator], Result], seed: int, numbered: tuple[int, Item]) -> Result:
    index, item = numbered
    return function(item, generator(seed, index))


def _progress(results: Iterable[Result], total: int, description: str) -> Iterable[Result]:
    bar: Iterable[Result] = tqdm(results, total=total, desc=description, unit="item")
    return bar
