"""The GPU script at tiny sizes on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def run(tmp_path: Path, *command: object) -> list[dict[str, object]]:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| section | variant |" in (tmp_path / "runs" / "gpu" / "gpu.md").read_text()
    return [json.loads(line) for line in (tmp_path / "runs" / "gpu" / "gpu.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_all_sections(tmp_path: Path) -> None:
    rows = run(tmp_path, sys.executable, SCRIPT, "--small")
    failed = {str(row["variant"]): row["note"] for row in rows if "seconds" not in row}
    # The only rows that need a GPU.
    assert failed
    assert all(name.startswith("+ flex_attention") and "GPUs only" in str(note) for name, note in failed.items())
    notes = {row["variant"]: str(row["note"]) for row in rows}
    assert notes["UniRS"].endswith("100% of the answers equal")
    assert float(notes["flex_attention, block mask"].rpartition(" ")[2]) < 1e-5


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    rows = run(tmp_path, sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2, SCRIPT, "--small")
    assert [row["variant"] for row in rows] == [
        "2 processes, without exchange of gradients",
        "2 processes, with it",
    ]


@pytest.mark.slow
def test_needs_a_gpu(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "--small" in done.stderr
