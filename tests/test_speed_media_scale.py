"""Complete runs of the speed scripts for media and for large data sets, with tiny sizes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "speed"


def run(script: str, folder: Path, *options: str) -> dict[str, dict[str, Any]]:
    subprocess.run([sys.executable, str(SCRIPTS / script), *options], cwd=folder, check=True, capture_output=True)
    rows = json.loads((folder / "runs" / "speed" / script).with_suffix(".json").read_text())
    assert all(list(row) == ["name", "ours", "baseline", "unit", "ratio"] for row in rows)
    assert all(row["ours"] > 0 for row in rows if "growth" not in row["name"])
    assert len({row["name"] for row in rows}) == len(rows)
    return {row["name"]: row for row in rows}


@pytest.mark.slow
def test_media(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    sizes = ("--videos", "2", "--seconds", "1", "--images", "2", "--rounds", "1", "--size", "32")
    rows = run("media.py", tmp_path, *sizes)
    assert {row["unit"] for row in rows.values()} == {"videos/s", "images/s"}
    assert all(row["ratio"] == pytest.approx(row["ours"] / row["baseline"], rel=0.5) for row in rows.values())
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "speed").rglob("*.*")}
    assert len([path for path in made if path.suffix == ".mp4"]) == 4
    run("media.py", tmp_path, *sizes)
    assert {path: path.stat().st_mtime_ns for path in made} == made


@pytest.mark.slow
def test_scale(tmp_path: Path) -> None:
    rows = run("scale.py", tmp_path, "--rows", "200", "400", "--rounds", "1", "--items", "100", "--workers", "1")
    assert len(rows) == 2 * 2 * 7
    for task in ("rsvqa_hr", "jsonl"):
        assert rows[f"{task}, 200 rows: processor time, of the first's"]["ratio"] == 1
        assert rows[f"{task}, 400 rows: processor time, of the first's"]["baseline"] > 0
        assert rows[f"{task}, 400 rows: wall time"]["baseline"] is None
