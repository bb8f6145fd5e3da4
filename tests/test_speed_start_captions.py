"""Complete runs of the speed scripts for the command line and for captions, with small sizes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "speed"
KEYS = ["name", "ours", "baseline", "unit", "ratio"]


def run(folder: Path, script: str, *arguments: str) -> tuple[str, list[dict[str, float | str | None]]]:
    """Runs a script and returns its output and the rows that it writes."""
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    rows = json.loads((folder / "runs" / "speed" / script).with_suffix(".json").read_text())
    assert all(list(row) == KEYS for row in rows)
    return done.stdout, rows


def test_commands(tmp_path: Path) -> None:
    output, rows = run(tmp_path, "start.py", "--parts", "commands", "--rounds", "1", "--warmup", "0")
    assert [str(row["name"]).split(",")[0] for row in rows] == ["unirs --help", "unirs tasks"]
    assert all(row["unit"] == "s" and row["baseline"] is None and row["ratio"] is None for row in rows)
    assert all(str(row["name"]) in output for row in rows)


@pytest.mark.slow
def test_first_step_of_training(tmp_path: Path) -> None:
    output, (row,) = run(tmp_path, "start.py", "--parts", "fit", "--rounds", "1", "--warmup", "0", "--pairs", "16")
    found = re.search(r"only ours: (.*); only baseline: none", output)
    assert found
    # Of data files, and of videos; Cython's runtime comes with the latter.
    assert {name for name in found[1].split(", ") if not name.startswith("_cython")} <= {"av", "msgspec"}
    assert row["ratio"] == pytest.approx(float(str(row["ours"])) / float(str(row["baseline"])))


def test_captions(tmp_path: Path) -> None:
    output, rows = run(tmp_path, "captions.py", "--pairs", "40", "--resamples", "3", "--rounds", "1")
    values, few, full = rows
    assert [row["unit"] for row in rows] == ["pairs/s", "pairs/s", "s"]
    assert few["name"] == "values and 95 % intervals of 3 resamples (bar 5)"
    assert all(float(str(row["ratio"])) > 0 for row in (values, few))
    assert full["baseline"] is None
    assert full["ratio"] is None
    assert "1,000 resamples" in output
