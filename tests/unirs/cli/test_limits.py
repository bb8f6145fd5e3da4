"""Limits of the machine: storage that cannot be written, and memory that does not suffice."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from unirs.cli import trainer
from unirs.errors import UniRSError
from unirs.utils.io import check_writable

NOBODY = 65534


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that this process may not write; as root, it takes the rights of another user."""
    # Not tmp_path, which other users may not enter.
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)


def test_a_folder_that_cannot_be_written(read_only: Path) -> None:
    with pytest.raises(
        UniRSError, match=rf"^{read_only}/runs/a cannot be written \(Permission denied\)\. Name another"
    ):
        check_writable(read_only / "runs" / "a", "Name another.")
    assert list(read_only.iterdir()) == []


def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "runs" / "a", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("command", "remedy"), [("fit", "default_root_dir."), ("test", "with --ckpt_path.")])
def test_run_folders_are_checked_before_the_work(
    command: str,
    remedy: str,
    tmp_path: Path,
    cli: Callable[..., int],
    write_config: Callable[..., Path],
    colour_tasks: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run").touch()
    folder = tmp_path / "run" / "below"
    assert cli(command, "--config", write_config(tmp_path, colour_tasks), "--trainer.default_root_dir", folder) == 1
    error = capsys.readouterr().err
    assert f"{folder} cannot be written (Not a directory)" in error
    assert error.rstrip().endswith(remedy)


@pytest.mark.parametrize(
    ("error", "messages"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), ["/data/x", "No space left on device"]),
        (OSError(errno.EROFS, "Read-only file system", "/data/x"), ["/data/x", "Read-only file system"]),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), ["/data/x", "Permission denied"]),
        (MemoryError(), ["Out of memory (MemoryError)", "data.batch_size", "trainer.precision"]),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), ["Out of memory (CUDA out", "frames"]),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), ["Out of memory (DefaultCPU"]),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), ["Out of memory", "data.num_workers"]),
    ],
)
def test_limits_are_one_message(
    error: Exception,
    messages: list[str],
    cli: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(trainer, "TrainerCLI", fail)
    assert cli("fit") == 1
    printed = capsys.readouterr().err
    assert printed.startswith("unirs: error: ")
    assert printed.count("\n") == 1
    assert all(message in printed for message in messages)


def test_other_errors_keep_their_traceback(cli: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(trainer, "TrainerCLI", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        cli("fit")
