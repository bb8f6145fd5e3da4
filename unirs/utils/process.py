"""Memory and threads of the process."""

import ctypes
import os
from collections.abc import Callable

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 1 << 30
_SPINS = "5000"  # a few microseconds; libgomp's default is 300,000


def tune_process() -> None:
    """Lets OpenMP threads that wait sleep soon, and keeps freed memory for the next tensors.

    To be called before torch is imported. By default, a thread that waits for the others of its team spins, and on a
    busy machine takes their cores from them: two threads are then slower than one; on an idle machine, a short spin is
    as fast as a long one. glibc returns the memory of large tensors to the kernel, which clears it page by page for the
    next ones. Variables of the environment have precedence.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    mallopt = _glibc("mallopt")
    if mallopt is not None and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST - 1)


def release_memory() -> None:
    """Returns freed memory to the system: what took much once, such as reading rows, is not part of later peaks."""
    malloc_trim = _glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _glibc(name: str) -> Callable[..., int] | None:
    """A function of glibc; None with other libraries, and on Windows, where ctypes does not open the process itself."""
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
