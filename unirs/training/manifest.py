"""`manifest.json`: what it takes to know later what a run was made of."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import unirs
from unirs.utils.io import write_atomically

_PACKAGES = ("torch", "lightning", "transformers", "timm", "torchmetrics", "numpy")


def write_manifest(
    folder: Path,
    *,
    seed: int | None,
    tasks: Mapping[str, Mapping[str, str]],
    weights: str | None,
    decoding: Mapping[str, object],
    command: Sequence[str],
) -> None:
    """Writes `<folder>/manifest.json`; an interrupted write leaves a former one as it was.

    Beside the arguments it holds the versions of Python and the packages that results depend on, the platform, and the
    commit of the git checkout that the process runs in, null where there is none. `dirty` says whether files known to
    git differ from that commit; files unknown to git, such as the run's own, do not count.

    Args:
        folder: the run's folder; made where it does not exist.
        seed: the seed of the run, None where it has none.
        tasks: for each task, hashes such as `{"data": ..., "prompt": ...}`.
        weights: hash of the weights, None for weights that were never trained or loaded.
        decoding: the options of decoding; what JSON has no type for is written as its `str`.
        command: the command line, one argument an item.
    """
    document = {
        "command": list(command),
        "seed": seed,
        "git": _git(),
        "platform": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            "unirs": unirs.__version__,
            **{package: _version(package) for package in _PACKAGES},
        },
        "weights": weights,
        "tasks": {task: dict(sorted(hashes.items())) for task, hashes in sorted(tasks.items())},
        "decoding": dict(sorted(decoding.items())),
    }
    text = json.dumps(document, ensure_ascii=False, indent=2, default=str)
    # An argument may hold bytes that are not UTF-8; their backslash form is also how JSON spells them.
    write_atomically(folder / "manifest.json", text.encode("utf-8", errors="backslashreplace") + b"\n")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, str | bool] | None:
    try:
        commit = _run_git("rev-parse", "--verify", "HEAD")
        changes = _run_git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}


def _run_git(*arguments: str) -> str:
    # No lock is taken, so that looking never disturbs a git command that runs at the same time.
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()  # noqa: S603
