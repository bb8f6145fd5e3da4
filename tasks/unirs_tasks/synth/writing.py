"""Writing a data set: in parallel, atomically, and independent of the number of processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from unirs.errors import DataError
from unirs.utils.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")

# Up to this many items, starting processes takes longer than the work itself.
_FEW = 16


@contextmanager
def new_folder(root: Path) -> Iterator[Path]:
    """Context of a temporary folder that is renamed to `root` at the end.

    The temporary folder is hidden, beside `root`, and is removed if the block raises or is interrupted.

    Args:
        root: may exist if it is an empty folder.

    Raises:
        DataError: `root` is not empty.
    """
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise DataError(f"{root} exists and is not an empty folder. Remove it, or choose another output folder.")
    temporary = root.parent / f".{root.name}.{os.getpid()}.partial"
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if root.exists():
            root.rmdir()
        temporary.rename(root)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def generator(seed: int, *key: int) -> np.random.Generator:
    """The random generator for one component of a data set; different keys give independent generators."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def map_items(
    function: Callable[[Item, np.random.Generator], Result],
    items: Sequence[Item],
    *,
    seed: int,
    description: str,
    processes: int | None = None,
) -> list[Result]:
    """Calls `function(item, generator)` on all items, in parallel if there are many.

    Args:
        function: picklable: defined at a module's top level, or a `functools.partial` of such.
        items: picklable.
        seed: of the data set; item i gets `generator(seed, i)`.
        description: label of the progress bar on stderr.
        processes: number of processes; default: all CPUs. The result does not depend on it.

    Returns:
        The results in the order of the items.
    """
    call = partial(_call, function, seed)
    count = min(processes or os.cpu_count() or 1, len(items))
    numbered = list(enumerate(items))
    if len(items) <= _FEW or count == 1:
        return list(track(map(call, numbered), description, len(items), unit="items"))
    # Forked children of a process with threads, such as torch's, may hang.
    # Ctrl-C is for the main process, which ends the others; also on systems without signal masks.
    ignore = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=ignore)
    try:
        chunk = max(1, min(32, len(items) // (4 * count)))
        with _delayed_interrupts():
            results = pool.map(call, numbered, chunksize=chunk)
        return list(track(results, description, len(items), unit="items"))
    except BaseException:
        # They would finish their items first.
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _delayed_interrupts() -> Iterator[None]:
    """Delays Ctrl-C to the end of the block; processes that start in it never get it, not even while Python starts."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def write_json(path: Path, content: Any) -> None:  # noqa: ANN401 - any JSON value
    """Writes JSON as UTF-8."""
    path.write_text(json.dumps(content), encoding="utf-8")


def write_png(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Writes an image `[H, W, 3]` as PNG, uncompressed: sensor noise leaves little to compress, and that slowly."""
    Image.fromarray(image).save(path, compress_level=0)


def _call(function: Callable[[Item, np.random.Generator], Result], seed: int, numbered: tuple[int, Item]) -> Result:
    index, item = numbered
    return function(item, generator(seed, index))
