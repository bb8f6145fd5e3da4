"""`manifest.json`: code, data, weights and options of a run."""

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
    video_reader: str | None,
    command: Sequence[str],
) -> None:
    """Writes `<folder>/manifest.json`; an interrupted write leaves the former file unchanged.

    It also holds versions of Python and packages, the platform, and the commit of the git checkout of the working
    directory, null outside of one. `dirty`: tracked files differ from that commit.

    Args:
        folder: created if it does not exist.
        seed: of the run.
        tasks: for each task, hashes such as `{"data": ..., "prompt": ...}`.
        weights: their hash; None if they were neither trained nor loaded.
        decoding: its options; values without a JSON type are written as their `str`.
        video_reader: name and version of what decodes videos; None if it is unknown.
        command: arguments of the command line.
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
        "video_reader": video_reader,
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
    # Without a lock, so that other git commands can run at the same time.
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()  # noqa: S603
