"""Ctrl-C within each command: exit code 130, one line, no incomplete files."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Cli = Callable[..., int]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def suite(synthetic: Path, tmp_path: Path) -> Path:
    task = {"name": "rsvqa_lr", "root": str(synthetic / "rsvqa_lr")}
    path = tmp_path / "suite.yaml"
    entry = {"title": "Q", "task": task, "columns": {"accuracy": "Accuracy"}}
    path.write_text(yaml.safe_dump({"title": "Questions", "tasks": [entry]}))
    return path


@pytest.mark.parametrize(
    ("command", "function", "remedy"),
    [
        ("bench --suite SUITE --model RUN --out OUT", "unirs.inference.completion.decode", "'--resume'"),
        ("predict RUN IMAGE --out OUT/answers.jsonl", "unirs.inference.api.complete", "'--out'"),
        ("plan --config RUN/config.yaml", "unirs.training.planning.measure.move_data_to_device", "again"),
        ("export --suite SUITE --out OUT", "unirs.evaluation.lmms_eval.media_files", "again"),
        ("convert RUN OUT/saved", "unirs.models.pretrained.save_model", "again"),
        ("synth --out OUT --size 2 --tasks era", "unirs_tasks.synth.era.map_items", "again"),
        ("tasks check rsvqa_lr --root DATA", "unirs.evaluation.task_check.TaskCheck.check_split", "again"),
        ("report RUN --out OUT/report.html", "unirs.evaluation.report.content.track", "again"),
        ("compare RUN RUN --out OUT/rows.jsonl", "unirs.evaluation.comparison.compare_rows", "again"),
        ("score RUN/test/predictions/era.jsonl --out OUT", "unirs.evaluation.scoring._answered", "again"),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_an_interrupted_command(
    command: str,
    function: str,
    remedy: str,
    suite: Path,
    joint_run: Path,
    synthetic: Path,
    tmp_path: Path,
    cli: Cli,
    capfd: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    data, out = synthetic / "rsvqa_lr", tmp_path / "out"
    image = next(path for path in data.rglob("*") if path.suffix in {".png", ".tif"})
    paths = {"SUITE": suite, "RUN": joint_run, "IMAGE": image, "OUT": out, "DATA": data}
    for name, path in paths.items():
        command = command.replace(name, str(path))
    monkeypatch.setattr(function, interrupt)
    assert cli(*command.split()) == 130
    message = capfd.readouterr().err.splitlines()[-1]
    assert message.startswith("unirs: interrupted. ")
    assert remedy in message
    # A benchmark keeps its log of answers.
    assert not [path for path in out.rglob("*") if path.is_file() and "answers" not in path.parts]


@pytest.mark.slow
def test_interrupt_of_all_processes_of_a_command(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("unirs")), "synth", "--out", str(tmp_path / "out"), "--size", "20000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.parent.is_dir():
        process.kill()
        pytest.skip("needs /proc")
    # Worker processes, which are still starting, and multiprocessing's tracker of resources.
    while len(children.read_text().split()) < 1 + min(2, os.cpu_count() or 1):
        time.sleep(0.05)
    # As a terminal does it.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == "unirs: interrupted. Run it again."
