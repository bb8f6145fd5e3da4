import subprocess
import sys
from pathlib import Path

import pytest
from torchmetrics.text import CHRFScore

from unirs.errors import UniRSError
from unirs.metrics.caption import CaptionMetrics
from unirs.metrics.classification import Top1
from unirs.metrics.registry import METRICS, named_metric
from unirs.metrics.vqa import VqaAccuracy


def test_names_of_scorers_and_of_torchmetrics() -> None:
    metrics = {name: named_metric(name, ["fire", "flood", "fire"]) for name in METRICS}
    assert metrics["exact"] == VqaAccuracy()
    assert metrics["caption"] == CaptionMetrics()
    assert metrics["top1"] == Top1(("fire", "flood"))
    assert metrics["chrf"] is CHRFScore
    assert all(map(callable, metrics.values()))


def test_dotted_paths_and_files(tmp_path: Path) -> None:
    assert named_metric("torchmetrics.text:CHRFScore") is CHRFScore
    assert named_metric("unirs.metrics:VqaAccuracy") == VqaAccuracy()
    path = tmp_path / "my_metrics.py"
    path.write_text("from torchmetrics.text import CHRFScore\ndef short():\n    return CHRFScore(n_char_order=2)\n")
    metric = named_metric(f"{path}:short")()
    assert isinstance(metric, CHRFScore)
    assert metric.n_char_order == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("captions", "Unknown metric 'captions'. Did you mean 'caption'"),
        ("torchmetrics.text:CHRFScor", "Did you mean 'CHRFScore'"),
        ("no_such_package:Metric", "'no_such_package:Metric' does not import"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(UniRSError, match=message):
        named_metric(name)


def test_scorers_and_tasks_import_no_torch_or_numpy() -> None:
    code = (
        "import sys; from unirs.tasks.task import Task; from unirs.metrics import Scorer, TextMetric, named_metric;"
        "from unirs.metrics.registry import PROTOCOLS; [named_metric(name) for name in PROTOCOLS];"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
