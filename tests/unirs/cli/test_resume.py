"""Trainings that are stopped, killed or out of disk space, and resume to the last bit."""

import csv
import os
import pickle
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from unirs.training.module import UniRSModule

Train = Callable[..., Path]
Capture = pytest.CaptureFixture[str]

EPOCHS = {"max_epochs": 2, "log_every_n_steps": 1, "enable_model_summary": False}


def losses(run: Path) -> dict[int, str]:
    """Training loss by step, from all logs of a run."""
    found: dict[int, str] = {}
    for path in sorted(run.glob("logs/*/metrics.csv")):
        with path.open() as file:
            found |= {int(row["step"]): row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]}
    return found


def state(run: Path, name: str) -> dict[str, Any]:
    """Weights and optimizer of a checkpoint, flat."""
    checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    optimizer = {
        f"{index}.{key}": value
        for index, values in checkpoint["optimizer_states"][0]["state"].items()
        for key, value in values.items()
    }
    return {**checkpoint["state_dict"], **optimizer, "step": torch.tensor(checkpoint["global_step"])}


def assert_equal(run: Path, other: Path) -> None:
    for name in ("last", "best"):
        one, two = state(run, name), state(other, name)
        assert one.keys() == two.keys()
        assert [key for key in one if not torch.equal(one[key], two[key])] == []


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, Callable[[], None]], None]:
    """Has the n-th call of a step of the module do something before the step."""

    def call(step: str, count: int, action: Callable[[], None]) -> None:
        original, calls = getattr(UniRSModule, step), iter(range(count + 1))

        def wrapped(self: UniRSModule, *arguments: object, **options: object) -> object:
            if next(calls, None) == count:
                action()
            return original(self, *arguments, **options)

        monkeypatch.setattr(UniRSModule, step, wrapped)

    return call


@pytest.fixture
def whole(fit: Train, tmp_path: Path) -> Path:
    """A run that nothing stopped."""
    return fit(**EPOCHS).rename(tmp_path / "whole")


@pytest.mark.parametrize(
    ("number", "step", "count", "workers"),
    [
        (signal.SIGTERM, "training_step", 1, 0),
        (signal.SIGTERM, "training_step", 1, 2),
        (signal.SIGTERM, "validation_step", 1, 0),
        (signal.SIGHUP, "training_step", 1, 0),
        (signal.SIGINT, "training_step", 1, 0),
    ],
)
def test_a_signal_saves_and_the_run_resumes_to_the_last_bit(
    number: signal.Signals,
    step: str,
    count: int,
    workers: int,
    fit: Train,
    whole: Path,
    interrupt: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: Capture,
) -> None:
    options = ("--data.num_workers", workers)
    interrupt(step, count, lambda: os.kill(os.getpid(), number))
    run = fit(*options, code=128 + number, **EPOCHS)
    saved, step_saved = run / "checkpoints" / "last.ckpt", int(state(run, "last")["step"])
    assert (
        f"unirs: stopped by {number.name}. {saved} was saved at step {step_saved}: continue with '--ckpt_path last'.\n"
        in capfd.readouterr().err
    )
    monkeypatch.undo()
    run = fit(*options, "--ckpt_path", "last", **EPOCHS)
    assert losses(run) == losses(whole)
    assert_equal(run, whole)


@pytest.mark.parametrize(("step", "count"), [("training_step", 2), ("validation_step", 0), ("training_step", 3)])
def test_a_crash_loses_only_the_steps_since_the_last_save(
    step: str, count: int, fit: Train, whole: Path, interrupt: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash() -> None:
        raise ZeroDivisionError

    interrupt(step, count, crash)
    with pytest.raises(ZeroDivisionError):
        fit("--checkpoint.every_n_steps", 1, **EPOCHS)
    monkeypatch.undo()
    run = fit("--checkpoint.every_n_steps", 1, "--ckpt_path", "last", **EPOCHS)
    assert_equal(run, whole)


def test_the_last_checkpoint_is_of_the_last_epoch_though_no_score_improves(fit: Train) -> None:
    run = fit("--model.optim.lr", 1e-9, max_epochs=3)
    steps = [int(state(run, name)["step"]) for name in ("best", "last")]
    assert steps[0] * 3 == steps[1]


def test_training_resumes_from_the_best_checkpoint_if_there_is_no_last(
    fit: Train, whole: Path, interrupt: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    interrupt("on_train_epoch_start", 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    fit(code=128 + signal.SIGTERM, **EPOCHS)
    monkeypatch.undo()
    (tmp_path / "run" / "checkpoints" / "last.ckpt").unlink()
    assert_equal(fit("--ckpt_path", "last", **EPOCHS), whole)


def test_a_job_that_slurm_queued_again_resumes(
    fit: Train, whole: Path, interrupt: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    interrupt("training_step", 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    fit(code=128 + signal.SIGTERM, **EPOCHS)
    monkeypatch.undo()
    (tmp_path / "run" / "checkpoints" / "last.ckpt").rename(tmp_path / "run" / "hpc_ckpt_1.ckpt")
    job = {"NTASKS": "1", "JOB_NAME": "train", "JOB_ID": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert_equal(fit(**EPOCHS), whole)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def _code(path: Path) -> None:
    class Run:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (path.with_name("touched"),))

    path.write_bytes(pickle.dumps({"state_dict": Run()}))


def _archive_with_code(path: Path) -> None:
    class Run:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (path.with_name("touched"),))

    torch.save({"state_dict": {}, "callbacks": Run()}, path)


@pytest.mark.parametrize("damage", [_cut, _code, _archive_with_code, lambda path: path.write_bytes(b"")])
def test_a_checkpoint_that_is_damaged_or_runs_code_is_one_error(
    damage: Callable[[Path], object], fit: Train, capfd: Capture
) -> None:
    run = fit(**EPOCHS | {"max_epochs": 1})
    damage(run / "checkpoints" / "last.ckpt")
    before = (run / "checkpoints" / "best.ckpt").read_bytes()
    capfd.readouterr()
    fit("--ckpt_path", "last", code=1, **EPOCHS)
    text = capfd.readouterr().err
    assert text.count("unirs: error:") == 1
    assert "Traceback" not in text
    assert str(run / "checkpoints" / "last.ckpt") in text
    assert not (run / "checkpoints" / "touched").exists()
    assert (run / "checkpoints" / "best.ckpt").read_bytes() == before


def test_a_checkpoint_is_not_downloaded(fit: Train, capfd: Capture) -> None:
    fit("--ckpt_path", "http://localhost/last.ckpt", code=1)
    assert "is a URL. Download it" in capfd.readouterr().err


@contextmanager
def _file_size(limit: int) -> Iterator[None]:
    """No file may grow beyond a limit, as on a disk that is full."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_a_full_disk_leaves_the_former_checkpoint(fit: Train, capfd: Capture) -> None:
    run = fit(**EPOCHS | {"max_epochs": 1})
    before = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    capfd.readouterr()
    with _file_size(min(map(len, before.values())) // 2):
        fit("--ckpt_path", "last", "--data.cache_gb", 0, code=1, **EPOCHS)
    text = capfd.readouterr().err
    assert "last.ckpt cannot be written" in text
    assert text.count("unirs: error:") == 1
    assert {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before


@pytest.mark.parametrize(("option", "value"), [("every_n_steps", 0), ("every_n_minutes", -1)])
def test_intervals_are_positive(option: str, value: int, fit: Train, capfd: Capture) -> None:
    fit(f"--checkpoint.{option}", value, code=1)
    assert f"checkpoint.{option} is {value}" in capfd.readouterr().err


def test_no_checkpoint_to_resume_from_is_an_error(fit: Train, capfd: Capture) -> None:
    fit("--ckpt_path", "last", code=1)
    assert "last.ckpt" in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forks beside threads
@pytest.mark.parametrize("loss", ["sample_mean", "token_mean"])
def test_two_processes_train_as_one_though_their_data_are_uneven(loss: str, fit: Train, tmp_path: Path) -> None:
    # Eleven samples in steps of four: the last step of two processes has two samples and one.
    data = ("--data.tasks.image.weight", 0.75, "--data.feature_cache_gb", 0)
    # Batch normalisation by the pairs of both.
    model = ("--model.loss", loss, "--model.change.name", "change_extraction", "--model.change.min_pairs", 1)
    # AdamW would turn the rounding errors of gradients that are zero into steps.
    arguments = (*model, *data, "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 0.1)
    one = fit(*arguments, "--data.batch_size", 4, **EPOCHS).rename(tmp_path / "one")
    two = fit(*arguments, "--data.batch_size", 2, devices=2, strategy="ddp_fork", **EPOCHS)
    assert len(losses(one)) == 6
    assert {step: pytest.approx(float(loss), rel=1e-5) for step, loss in losses(one).items()} == {
        step: float(loss) for step, loss in losses(two).items()
    }
    left, right = state(one, "last"), state(two, "last")
    assert [key for key in left if not torch.allclose(left[key], right[key], rtol=1e-4, atol=1e-5)] == []
