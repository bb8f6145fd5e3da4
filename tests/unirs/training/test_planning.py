"""Estimates of time, memory and disk, `unirs plan`."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from unirs.errors import UniRSError
from unirs.training.planning.estimate import ZERO, Machine, Pieces, Seconds, Stage, estimate, override_counts
from unirs.training.planning.schedule import read_schedule

Cli = Callable[..., int]
Capture = pytest.CaptureFixture[str]


def exactly(seconds: float) -> Seconds:
    return Seconds(seconds, seconds, seconds)


def stage(name: str = "training", task: str = "vqa", passes: float = 3, **pieces: object) -> Stage:
    """100 samples with 10 questions each, in 200 examples: 4 s to read and encode one, 2 s to compute."""
    times: dict[str, Any] = {"read": exactly(1), "read_cached": exactly(0.5), "encode": exactly(3)}
    times |= {"compute": exactly(2), "cache": "features", "cached_bytes": 1e6} | pieces
    return Stage(name, task, 100, 200, 1000, passes, Pieces(**times))


MACHINE: dict[str, Any] = {
    "devices": 1,
    "num_workers": 0,
    "feature_cache_bytes": 1e12,
    "frame_cache_bytes": 0,
    "start": 10,
    "clue": ZERO,
    "memory": ("RAM", 2e9),
    "checkpoint_bytes": 3e8,
}


@pytest.mark.parametrize(
    ("pieces", "machine", "seconds"),
    [
        # 600 draws, 100 of which read and encode media for the first time.
        ({}, {}, 10 + 100 * 4 + 500 * 0.5 + 600 * 2),
        ({}, {"feature_cache_bytes": 0}, 10 + 600 * (4 + 2)),
        ({}, {"feature_cache_bytes": 5e7}, 10 + 350 * 4 + 250 * 0.5 + 600 * 2),
        # A trainable encoder is part of each step; frames that are cached are not decoded again.
        ({"cache": "frames"}, {}, 10 + 600 * (1 + 3 + 2)),
        ({"cache": "frames"}, {"frame_cache_bytes": 1e9}, 10 + 100 * 1 + 500 * 0.5 + 600 * (3 + 2)),
        # Workers read while the device computes: the slower of the two counts.
        ({}, {"num_workers": 1}, 10 + 100 * 3 + 600 * 2),
        ({"read": exactly(50)}, {"num_workers": 2}, 10 + (100 * 50 + 500 * 0.5) / 2),
        ({}, {"devices": 8}, 10 + (100 * 4 + 500 * 0.5 + 600 * 2) / 8),
        ({}, {"clue": exactly(7)}, 10 + 100 * (4 + 7) + 500 * 0.5 + 600 * 2),
    ],
)
def test_time_from_measured_pieces(pieces: dict[str, Any], machine: dict[str, Any], seconds: float) -> None:
    plan = estimate([stage(**pieces)], Machine(**MACHINE | machine))
    assert plan.seconds.mean == pytest.approx(seconds)
    assert plan.seconds.low < 0.8 * seconds < 1.2 * seconds < plan.seconds.high


def test_the_range_is_that_of_the_measured_batches() -> None:
    plan = estimate([stage(compute=Seconds(1, 2, 9))], Machine(**MACHINE))
    assert (plan.seconds.low, plan.seconds.high) == (10 + 400 + 250 + 600, 10 + 400 + 250 + 600 * 9)


def test_disk_and_memory() -> None:
    plan = estimate([stage(), stage("validation")], Machine(**MACHINE))
    assert plan.disk == {"features": 2 * 100 * 1e6, "checkpoints": 6e8}
    assert list(plan.memory.values()) == [2e9]
    limited = estimate([stage()], Machine(**MACHINE | {"feature_cache_bytes": 4e7}))
    assert limited.disk["features"] == 4e7
    assert "100 MB, more than the feature cache may hold (40 MB)" in limited.to_text()


def test_counts_of_data_that_are_not_here() -> None:
    stages = [stage(), stage("validation"), stage("test (blank)"), stage(task="era")]
    changed = override_counts(stages, {"vqa": 1e6, "vqa.test": 5000})
    assert [(one.samples, one.examples, one.questions) for one in changed] == [
        (1e6, 2e6, 1e7),
        (100, 200, 1000),
        (5000, 10_000, 50_000),
        (100, 200, 1000),
    ]
    (by_questions, *_) = override_counts(stages, {"vqa": 1e6}, questions=True)
    assert (by_questions.samples, by_questions.questions) == (1e5, 1e6)
    with pytest.raises(UniRSError, match=r"no 'vqa.tset'. Did you mean 'vqa.test'"):
        override_counts(stages, {"vqa.tset": 1})


@pytest.mark.parametrize(
    ("trainer", "epochs", "validations"),
    [
        ({"max_epochs": 3}, 3, 3),
        ({"max_epochs": 3, "check_val_every_n_epoch": 2}, 3, 1),
        ({"max_epochs": 2, "val_check_interval": 0.25}, 2, 8),
        ({"max_steps": 50, "accumulate_grad_batches": 4}, 2, 2),
        ({"max_epochs": 4, "limit_train_batches": 10}, 0.4, 4),
        ({"max_epochs": 4, "limit_val_batches": 0}, 4, 0),
        ({}, 1000, 1000),
    ],
)
def test_schedules_of_100_batches(trainer: dict[str, Any], epochs: float, validations: float) -> None:
    defaults = {"max_epochs": None, "max_steps": -1, "limit_train_batches": None, "limit_val_batches": None}
    defaults |= {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "val_check_interval": None}
    schedule = read_schedule(defaults | trainer, 100)
    assert (schedule.epochs, schedule.validations) == (epochs, validations)


def test_a_training_without_end_has_no_plan(joint_run: Path, cli: Cli, capsys: Capture) -> None:
    assert cli("plan", "--config", joint_run / "config.yaml", "--option", "trainer.max_epochs=-1") == 1
    assert "set trainer.max_epochs or trainer.max_steps" in capsys.readouterr().err


@pytest.fixture
def plan(cli: Cli, capsys: Capture) -> Callable[..., dict[str, Any]]:
    """The plan of a command as a dictionary."""

    def call(*arguments: object) -> dict[str, Any]:
        assert cli("plan", *arguments, "--json", "--measure", 2) == 0
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    return call


def test_plan_of_a_training(joint_run: Path, plan: Callable[..., dict[str, Any]]) -> None:
    before = {path: path.stat().st_mtime_ns for path in joint_run.parent.rglob("*")}
    found = plan("--config", joint_run / "config.yaml", "--samples", "era=1000", "--devices", 2, "--nodes", 2)
    assert {path: path.stat().st_mtime_ns for path in joint_run.parent.rglob("*")} == before
    stages = {(one["name"], one["task"]): one for one in found["stages"]}
    assert {key: (one["samples"], one["passes"]) for key, one in stages.items() if key[0] == "training"} == {
        ("training", "rsvqa_lr"): (16, 2),
        ("training", "levir_cc"): (16, 1),
        ("training", "era"): (1000, 2),
    }
    assert stages["validation", "era"]["passes"] == 2
    assert stages["test (blank)", "levir_cc"]["questions"] == stages["test", "levir_cc"]["questions"] > 0
    assert found["devices"] == 4
    written = (joint_run / "checkpoints" / "best.ckpt").stat().st_size
    assert 2 * 0.8 * written < found["disk"]["checkpoints"] < 2 * 1.1 * written


def test_plan_of_a_benchmark(joint_run: Path, synthetic: Path, tmp_path: Path, cli: Cli, capsys: Capture) -> None:
    task = {"name": "rsvqa_lr", "root": str(synthetic / "rsvqa_lr")}
    suite = {"title": "Questions", "tasks": [{"title": "Q", "task": task, "columns": {"accuracy": "Accuracy"}}]}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    chosen = ["--suite", tmp_path / "suite.yaml", "--model", joint_run]
    assert cli("plan", *chosen, "--questions", "rsvqa_lr=1000000", "--measure", 2, "--option", "baselines=false") == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "rsvqa_lr" in line)
    assert "1,000,000" in row
    assert cli("plan", "--suite", tmp_path / "suite.yaml") == 1
    assert "--suite needs --model" in capsys.readouterr().err
    assert cli("plan", *chosen, "--option", "batchsize=4") == 1
    assert "Did you mean 'batch_size'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_plan_against_the_real_duration(
    synthetic: Path,
    write_config: Callable[..., Path],
    tmp_path: Path,
    cli: Cli,
    plan: Callable[..., dict[str, Any]],
) -> None:
    tasks = [{"name": name, "root": str(synthetic / name)} for name in ("rsvqa_lr", "levir_cc")]
    config = write_config(tmp_path, tasks, epochs=8, data={"feature_cache": str(tmp_path / "features")})
    found = plan("--config", config)
    expected = sum(one["seconds"]["mean"] for one in found["stages"] if not one["name"].startswith("test"))
    start = time.perf_counter()
    assert cli("fit", "--config", config) == 0
    assert expected / 4 < time.perf_counter() - start < expected * 4 + 10
