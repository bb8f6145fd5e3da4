"""Runs a case: mutated files must end in a result, or in one `UniRSError` that names a file or key."""

import contextlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.mutations import mutate
from unirs.errors import UniRSError

# Of a machine that does other work, too.
SECONDS = 30
_MEMORY = 8 << 30

Run = Callable[[Path], None]


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        name: of the target.
        write: writes valid files into a folder.
        run: reads them.
        share: number of cases relative to other targets.
        keys: texts that identify the fault in a message that names no file.
    """

    name: str
    write: Callable[[Path], object]
    run: Run
    share: int = 10
    keys: tuple[str, ...] = field(default=())


class _HangError(BaseException):
    """The time limit; no `except Exception` catches it."""


_writes: list[str] | None = None
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.symlink", "os.link", "os.truncate", "os.chmod"}


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _writes is None:
        return
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike) and arguments[2] & _WRITE_FLAGS:
        _writes.append(os.fsdecode(arguments[0]))
    elif event in _CHANGES and isinstance(arguments[0], str | bytes | os.PathLike):
        _writes.extend(os.fsdecode(one) for one in arguments[:2] if isinstance(one, str | bytes | os.PathLike))


sys.addaudithook(_audit)


@contextlib.contextmanager
def _limits(seconds: float) -> Iterator[list[str]]:
    """Limits memory and time (unless it is 0) of a block, and yields the paths that it writes to."""
    global _writes

    def stop(_signum: int, _frame: FrameType | None) -> None:
        raise _HangError(f"no end after {seconds} s")

    former, memory = signal.signal(signal.SIGALRM, stop), resource.getrlimit(resource.RLIMIT_AS)
    # Address space beyond what the process has: other tests may have run in it.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, memory[1]))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    written: list[str] = []
    _writes = written
    try:
        yield written
    finally:
        _writes = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
        resource.setrlimit(resource.RLIMIT_AS, memory)


def run_case(target: Target, valid: Path, seed: int, index: int | None) -> str:
    """Runs a case on a mutated copy of the folder `valid`.

    If index is None, the copy is not mutated and must be read, and takes its time to import modules.

    Returns:
        What is wrong; empty if nothing is.
    """
    with tempfile.TemporaryDirectory(prefix=f"{target.name}-{index}-") as name:
        folder = Path(name).resolve() / "case"
        shutil.copytree(valid, folder)
        if index is not None:
            mutate(folder, random.Random(f"{seed}/{target.name}/{index}"), seed)  # noqa: S311
        names = [path.name for path in folder.rglob("*")] + [path.name for path in valid.rglob("*")]
        fault = ""
        with contextlib.chdir(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _limits(SECONDS if index is not None else 0) as written:
                try:
                    target.run(folder)
                except UniRSError as error:
                    message = str(error)
                    if index is None:
                        fault = message
                    elif not any(one in message for one in (*names, str(folder), *target.keys)):
                        fault = f"the message names neither file nor key: {type(error).__name__}: {message}"
                except (Exception, _HangError):  # noqa: BLE001 (reported as a fault)
                    fault = traceback.format_exc()
        # Modules that are imported for the first time may make folders of their own.
        outside = [] if index is None else [path for path in written if not _is_inside(folder, path)]
        if outside:
            fault += f"written outside of the case's folder: {', '.join(outside)}"
        return fault


def _is_inside(folder: Path, path: str) -> bool:
    # Python caches what it compiles when a case imports something for the first time.
    if path == os.devnull or "__pycache__" in path or path.startswith("/proc/"):
        return True
    return Path(os.path.abspath(os.path.join(folder, path))).is_relative_to(folder)  # noqa: PTH100, PTH118
