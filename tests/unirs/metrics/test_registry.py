import subprocess
import sys

import pytest

from unirs.errors import UniRSError
from unirs.metrics.caption import CaptionMetrics
from unirs.metrics.classification import Top1
from unirs.metrics.registry import NAMES, named_metric
from unirs.metrics.vqa import VqaAccuracy


def test_every_name_makes_a_metric() -> None:
    metrics = [named_metric(name, ["fire", "flood", "fire"]) for name in NAMES]
    assert metrics == [VqaAccuracy(), CaptionMetrics(), Top1(("fire", "flood"))]


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UniRSError, match="Did you mean 'caption'"):
        named_metric("captions")


def test_the_names_import_no_numpy() -> None:
    code = "import sys, unirs.metrics.registry; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
