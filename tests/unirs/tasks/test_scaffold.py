import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unirs import plugins
from unirs.errors import UniRSError
from unirs.evaluation.task_check import check_task
from unirs.tasks.scaffold import write_task
from unirs.tasks.task import Task

Cli = Callable[..., int]
MODALITIES = ("image", "pair", "video", "series")


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_new_task_works_unchanged(modality: str, tmp_path: Path, cli: Cli, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tasks" / "mine.py"
    assert cli("tasks", "new", "my_task", "--modality", modality, "--out", path) == 0
    assert f"pytest {path.with_name('test_mine.py')}" in capfd.readouterr().out
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["mine.py", "my_task_example", "test_mine.py"]
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 30
    task: Task = plugins.create("unirs.tasks", {"name": str(path), "root": path.parent / "my_task_example"})
    assert task.modality == modality
    assert len(task.choices) == 2
    report = check_task(task)
    assert (report.problems, report.samples) == ({}, {"train": 2, "val": 2, "test": 2})
    assert cli("tasks", "check", path, "--root", path.parent / "my_task_example", "--sheet", tmp_path / "s.png") == 0
    assert (tmp_path / "s.png").is_file()


@pytest.mark.parametrize("modality", MODALITIES)
def test_its_test_passes_and_can_fail(modality: str, tmp_path: Path) -> None:
    written = write_task("my_task", modality, tmp_path / "my_task.py")  # type: ignore[arg-type]
    run = runpy.run_path(str(written.test))["test_reads_its_example"]
    run()
    train, test = (sorted(written.example.glob(f"{split}_*.*")) for split in ("train", "test"))
    for source, target in zip(train, test, strict=True):
        target.write_bytes(source.read_bytes())
    with pytest.raises(AssertionError):
        run()


def test_its_code_is_clean(tmp_path: Path) -> None:
    for modality in MODALITIES:
        write_task(f"my_{modality}", modality, tmp_path / f"my_{modality}.py")  # type: ignore[arg-type]
    ruff = str(Path(sys.executable).with_name("ruff"))
    config = ["--config", str(Path(__file__).parents[3] / "pyproject.toml")]
    for command in (["format", "--check"], ["check", "--ignore", "D,ANN,S101,INP"]):
        done = subprocess.run([ruff, *command, *config, str(tmp_path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("existing", ["mine.py", "test_mine.py", "my_task_example"])
def test_nothing_is_overwritten(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).mkdir()
    with pytest.raises(UniRSError, match=f"{existing} exists, and nothing is overwritten"):
        write_task("my_task", "image", tmp_path / "mine.py")
    assert [entry.name for entry in tmp_path.iterdir()] == [existing]


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("my-task", "a.py", "'my-task' cannot name a task"),
        ("1task", "a.py", "'1task' cannot name a task"),
        ("täsk", "a.py", "cannot name a task"),
        ("task", "a.txt", r"a\.txt does not end with \.py"),
    ],
)
def test_invalid_names(tmp_path: Path, name: str, file: str, message: str) -> None:
    with pytest.raises(UniRSError, match=message):
        write_task(name, "image", tmp_path / file)
    assert not list(tmp_path.iterdir())


def test_modality_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("tasks", "new", "my_task") == 2
    assert cli("tasks", "new", "my_task", "--modality", "sound") == 2
    assert not list(tmp_path.iterdir())
