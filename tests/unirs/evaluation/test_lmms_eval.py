"""Suites as tasks of lmms-eval, and UniRS as its model."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from unirs.evaluation.lmms_eval import aggregate, doc_to_visual, process_results

Cli = Callable[..., int]
Capture = pytest.CaptureFixture[str]

COLUMNS = {
    "rsvqa_lr": ("accuracy", "accuracy_macro", "accuracy/presence"),
    "levir_cc": ("bleu_4", "cider"),
    "era": ("top1", "top1_macro"),
}


@pytest.fixture
def suite(synthetic: Path, tmp_path: Path) -> Path:
    """A suite of the tasks of `joint_run`."""
    options = {"era": {"num_frames": 2}}
    tasks = [
        {
            "title": name,
            "task": {"name": name, "root": str(synthetic / name)} | options.get(name, {}),
            "columns": {column: column for column in columns},
        }
        for name, columns in COLUMNS.items()
    ]
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump({"title": "Joint", "tasks": tasks}))
    return path


@pytest.fixture
def exported(suite: Path, cli: Cli, tmp_path: Path) -> Path:
    assert cli("export", "--suite", suite, "--out", tmp_path / "tasks") == 0
    return tmp_path / "tasks"


def read(path: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, path.read_text().splitlines()))


def test_exported_tasks_score_as_the_test_of_a_run(exported: Path, joint_run: Path) -> None:
    metrics = json.loads((joint_run / "test" / "metrics.json").read_text())["tasks"]
    for task, columns in COLUMNS.items():
        documents = read(exported / f"unirs_{task}.jsonl")
        answers = read(joint_run / "test" / "predictions" / f"{task}.jsonl")
        texts = {row["id"]: row["text"] for row in answers}
        scored = [process_results(one, [texts[one["turn"]]]) for one in documents]
        values = {name: aggregate([items[name] for items in scored]) for name in columns}
        assert values == {name: metrics[task][name]["value"] for name in columns}


def test_other_models_get_images_videos_and_plain_questions(exported: Path) -> None:
    first = {task: read(exported / f"unirs_{task}.jsonl")[0] for task in COLUMNS}
    assert [len(doc_to_visual(one)) for one in first.values()] == [1, 2, 1]
    assert {image.mode for image in doc_to_visual(first["levir_cc"])} == {"RGB"}
    (video,) = doc_to_visual(first["era"])
    assert Path(video).is_file()
    assert "[" not in first["rsvqa_lr"]["question"]  # no task tag
    assert not list(exported.glob(".*"))


def test_a_limited_export(suite: Path, cli: Cli, tmp_path: Path) -> None:
    assert cli("export", "--suite", suite, "--out", tmp_path / "tasks", "--limit", 1) == 0
    assert len((tmp_path / "tasks" / "unirs_era.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
def test_the_package_gives_the_scores_of_a_benchmark(
    exported: Path, suite: Path, joint_run: Path, tmp_path: Path, cli: Cli
) -> None:
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if uv is None:
        pytest.skip("needs uv, to make an environment with lmms-eval")
    root = Path(__file__).parents[3]
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, python.parents[1]], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, f"{root}[lmms-eval]"], check=True)
    command: list[str | Path] = [
        python.with_name("lmms-eval"),
        "--model",
        "unirs",
        "--model_args",
        f"pretrained={joint_run}",
    ]
    command += ["--include_path", exported, "--tasks", "unirs_suite", "--output_path", tmp_path / "results"]
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (results,) = (tmp_path / "results").rglob("*_results.json")
    found = json.loads(results.read_text())["results"]
    assert cli("bench", "--suite", suite, "--model", joint_run, "--out", tmp_path / "bench", "--no-baselines") == 0
    tasks = json.loads((tmp_path / "bench" / "run" / "bench" / "metrics.json").read_text())["tasks"]
    for task, columns in COLUMNS.items():
        values = {column: found[f"unirs_{task}"][f"{column},none"] for column in columns}
        assert values == {column: tasks[task][column]["value"] for column in columns}
