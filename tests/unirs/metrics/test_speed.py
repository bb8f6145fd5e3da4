import shutil
import time

import pytest

from unirs.evaluation.results import TaskResult, summary
from unirs.metrics.base import Prediction
from unirs.metrics.caption import CaptionMetrics

PAIRS, REFERENCES, SECONDS = 1929, 5, 30


@pytest.mark.slow
def test_intervals_of_all_caption_metrics_on_a_test_set_as_large_as_levir_ccs() -> None:
    words = [
        "many",
        "houses",
        "are",
        "built",
        "on",
        "the",
        "bare",
        "land",
        "and",
        "a",
        "road",
        "some",
        "trees",
        "removed",
    ]

    def sentence(seed: int) -> str:
        return " ".join(words[(seed * 7 + position * (1 + seed % 5)) % len(words)] for position in range(8 + seed % 9))

    rows = [
        Prediction(
            str(number),
            "levir_cc",
            (f"A/{number}.png", f"B/{number}.png"),
            ("changed", "unchanged")[number % 2],
            "",
            sentence(number * 11),
            tuple(sentence(number * 3 + reference) for reference in range(REFERENCES)),
        )
        for number in range(PAIRS)
    ]
    start = time.perf_counter()
    numbers = summary(TaskResult("levir_cc", rows, CaptionMetrics().evaluate(rows), {}))
    seconds = time.perf_counter() - start
    assert ("meteor" in numbers) == (shutil.which("java") is not None)
    assert all(numbers[name]["ci_low"] < numbers[name]["value"] < numbers[name]["ci_high"] for name in numbers)
    assert seconds < SECONDS
    print(f"{len(numbers)} statistics in {seconds:.1f} s")
