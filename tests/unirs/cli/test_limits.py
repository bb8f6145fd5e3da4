"""Limits of the machine: storage that cannot be written, and memory that does not suffice."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import yaml

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
    "command",
    [
        "predict no_run {image} --out {below}",
        "bench --suite {suite} --model no_model --out {below}",
        "ablate --suite {ablations} --out {below}",
        "synth --out {below}",
        "score no_file --task jsonl --root no_folder --out {below}",
        "compare no_run no_run --out {below}/changed.md",
        "convert no_source {below}/model",
        "tasks check jsonl --root no_folder --sheet {below}/sheet.png",
    ],
)
def test_results_are_checked_before_the_work(
    command: str,
    tmp_path: Path,
    cli: Callable[..., int],
    colours: Path,
    tiny_model: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = {"name": "jsonl", "root": "no_folder", "label": "t"}
    columns = {"accuracy": "A"}
    suite = {"title": "s", "tasks": [{"title": "t", "task": task, "columns": columns}]}
    groups = {"g": {"title": "g", "variants": {"a": {}}}}
    base = {"model": tiny_model, "data": {"tasks": [task]}}
    ablations = {"title": "s", "seeds": [0], "columns": {"t": columns}, "base": base, "groups": groups}
    for name, content in (("suite", suite), ("ablations", ablations)):
        (tmp_path / name).write_text(yaml.safe_dump(content))
    (tmp_path / "file").touch()
    names = {name: tmp_path / name for name in ("suite", "ablations")}
    names |= {"image": colours / "red.png", "below": tmp_path / "file" / "below"}
    assert cli(*(word.format(**names) for word in command.split())) == 1
    error = capsys.readouterr().err
    assert f"unirs: error: {names['below'].parent}" in error
    assert "cannot be written (Not a directory). Name another" in error


@pytest.mark.parametrize("synthetic", [True, False])
def test_data_are_checked_before_a_model_is_built(
    synthetic: bool,
    tmp_path: Path,
    cli: Callable[..., int],
    write_config: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    task = {"name": "levir_cc", "root": str(tmp_path / "file" / "data" / "levir_cc")}
    task |= {"synthetic": {"size": 8}} if synthetic else {}  # type: ignore[dict-item]
    config = write_config(tmp_path, [task], model={"init": "no_model"})
    assert cli("fit", "--config", config) == 1
    error = capsys.readouterr().err
    assert ("cannot be written (Not a directory). Set another 'root' for task 'levir_cc'" in error) == synthetic
    assert ("Task 'levir_cc': missing" in error) != synthetic


def test_a_feature_cache_is_checked_before_training(
    tmp_path: Path, fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    fit("--data.feature_cache", tmp_path / "file" / "features", code=1)
    error = capsys.readouterr().err
    assert "features cannot be written (Not a directory). Set another data.feature_cache, or" in error


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_test_of_a_run_that_cannot_be_written_goes_elsewhere(
    learnt_run: Path, tmp_path: Path, cli: Callable[..., int]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in learnt_run.rglob("*")}
    elsewhere = ("--trainer.default_root_dir", tmp_path, "--ckpt_path", learnt_run / "checkpoints" / "best.ckpt")
    assert cli("test", "--config", learnt_run / "config.yaml", *elsewhere) == 0
    results = "test/predictions/image.jsonl"
    assert (tmp_path / results).read_bytes() == (learnt_run / results).read_bytes()
    assert {path: path.stat().st_mtime_ns for path in learnt_run.rglob("*")} == before


@pytest.mark.parametrize(
    ("error", "messages"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), ["/data/x", "No space left on device"]),
        (OSError(errno.EROFS, "Read-only file system", "/data/x"), ["/data/x", "Read-only file system"]),
        (OSError(errno.EIO, "Input/output error", "/data/x"), ["/data/x", "Input/output error"]),
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
