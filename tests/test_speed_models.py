"""Complete runs of the speed scripts with models, with tiny components: results of both sides must agree."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "speed"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "names"),
    [
        (
            ["train.py", "--media", "4", "2", "1", "--rounds", "1"],
            [*["training, steady state"] * 2, *["training, first epoch"] * 2, "loss of the same samples"],
        ),
        (
            ["eval_vqa.py", "--images", "1", "--questions", "6", "--rounds", "1"],
            ["6 questions per image, one at a time", "6 questions per image, batches"],
        ),
        (["eval_choices.py", "--frames", "2", "--rounds", "1"], ["scoring 25 classes"]),
        (["roofline.py", "--media", "4", "2", "1", "--steps", "1"], ["training step of the peak"]),
    ],
    ids=lambda value: value[0].partition(".")[0],
)
def test_both_sides_agree(tmp_path: Path, command: list[str], names: list[str]) -> None:
    script, *arguments = command
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), "--tiny", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "runs" / "speed" / script).with_suffix(".json").read_text())
    assert [str(row["name"]).startswith(name) for row, name in zip(rows, names, strict=True)] == [True] * len(names)
    # The difference between losses may be 0.
    assert all(row["ours"] > 0 or row["ratio"] is None for row in rows)
