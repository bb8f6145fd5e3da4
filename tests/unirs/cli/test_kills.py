"""Trainings that are killed at random moments, within epochs and within writes, on another device than /tmp."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

STEPS = 16

UNIRS = str(Path(sys.executable).with_name("unirs"))


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A folder on another device than the system's temporary folder."""
    shared = Path("/dev/shm")  # noqa: S108 - a temporary folder within
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second device")
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


@pytest.fixture
def command(config: Path, device: Path) -> Callable[[str], list[str]]:
    """The command line of a training with a checkpoint after each of its steps; its folder's name is the argument."""
    content: dict[str, Any] = yaml.safe_load(config.read_text())
    # Large enough that a kill can hit the write of a checkpoint.
    content["model"]["llm"]["config"] |= {"hidden_size": 512, "intermediate_size": 2048}
    content["data"] |= {"batch_size": 2}
    content["trainer"] |= {"max_epochs": 4, "enable_model_summary": False}
    content["checkpoint"] = {"every_n_steps": 1}
    (device / "config.yaml").write_text(yaml.safe_dump(content))
    base = [UNIRS, "fit", "--config", str(device / "config.yaml"), "--trainer.default_root_dir"]
    return lambda name: [*base, str(device / name)]


def wait_for(process: subprocess.Popen[bytes], happened: Callable[[], bool]) -> bool:
    """Whether something happens before the process ends."""
    while process.poll() is None:
        if happened():
            return True
        time.sleep(0)
    return False


def _moment(kind: str, folder: Path, generator: random.Random) -> Callable[[], bool]:
    """When to kill: at a random time, after a random number of saves, or while a checkpoint is written."""
    last = folder / "last.ckpt"
    if kind == "random":
        end = time.monotonic() + generator.uniform(4, 14)
        return lambda: time.monotonic() >= end
    count = generator.randrange(1, STEPS)
    saved: set[int] = set()

    def happened() -> bool:
        if last.exists():
            saved.add(last.stat().st_mtime_ns)
        return len(saved) >= count and (kind == "step" or any(folder.glob(".*.partial")))

    return happened


@pytest.mark.slow
def test_twenty_kills_end_as_never_killed(command: Callable[[str], list[str]], device: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(name: str) -> subprocess.Popen[bytes]:
        resume = ["--ckpt_path", "last"] if any((device / name).glob("checkpoints/*.ckpt")) else []
        return subprocess.Popen([*command(name), *resume], env=environment, stderr=subprocess.PIPE)

    def finish(name: str) -> None:
        process = start(name)
        _, text = process.communicate()
        assert process.returncode == 0, text.decode()

    finish("whole")
    expected = torch.load(device / "whole" / "checkpoints" / "last.ckpt", weights_only=True)
    generator = random.Random(0)  # noqa: S311 - moments, not secrets
    kinds = ["random"] * 10 + ["step"] * 5 + ["write"] * 5
    hits = 0
    for number, kind in enumerate(kinds):
        folder = device / str(number) / "checkpoints"
        process = start(str(number))
        if wait_for(process, _moment(kind, folder, generator)):
            process.send_signal(signal.SIGKILL)
        process.communicate()
        hits += any(folder.glob(".*.partial"))
        finish(str(number))
        found = torch.load(folder / "last.ckpt", weights_only=True)
        different = [
            key for key, value in expected["state_dict"].items() if not torch.equal(value, found["state_dict"][key])
        ]
        assert (number, kind, different) == (number, kind, [])
        assert found["global_step"] == expected["global_step"]
        assert not list(folder.glob(".*"))
    # Each kill within a write left a part of it, and some of the others may have, too.
    assert hits >= kinds.count("write")
