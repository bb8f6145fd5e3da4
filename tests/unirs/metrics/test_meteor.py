import logging
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import unirs
from unirs.metrics import meteor
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import interval, point_estimate
from unirs.metrics.caption import CaptionMetrics, tokenize

WORDS = ["a", "the", "road", "is", "built", "houses", "house", "some", "trees", "removed", "on", "land", "constructed"]
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")


def rows(count: int) -> list[Prediction]:
    source = random.Random(5)  # noqa: S311
    captions = ["", "qwertz", "A road is built.", "Ein Fluß — naïve"]
    captions += [" ".join(source.choices(WORDS, k=source.randint(1, 9))) for _ in range(count - len(captions))]
    references = [tuple(" ".join(source.choices(WORDS, k=source.randint(1, 9))) for _ in range(3)) for _ in captions]
    references[2:4] = [("some trees", "a road is built"), ("ein Fluß naïve", "a river")]
    return [
        Prediction(str(number), "levir_cc", (f"{number}.png",), ("changed", "unchanged")[number % 2], "", text, texts)
        for number, (text, texts) in enumerate(zip(captions, references, strict=True))
    ]


def by_pycocoevalcap(some: list[Prediction]) -> float:
    from pycocoevalcap.meteor.meteor import Meteor

    scorer = Meteor()
    references = {row.id: [tokenize(text) for text in row.references] for row in some}
    score, _ = scorer.compute_score(references, {row.id: [tokenize(row.text)] for row in some})
    for pipe in (scorer.meteor_p.stdin, scorer.meteor_p.stdout, scorer.meteor_p.stderr):
        pipe.close()
    return float(score)


@needs_java
@pytest.mark.slow
def test_the_score_equals_pycocoevalcaps_over_all_rows_and_by_category() -> None:
    some = rows(40)
    del some[3]  # pycocoevalcap's wrapper leaves the encoding to the machine
    statistics = CaptionMetrics().evaluate(some).statistics
    changed = [row for row in some if row.category == "changed"]
    assert point_estimate(statistics["meteor"]) == pytest.approx(by_pycocoevalcap(some), abs=1e-9)
    assert point_estimate(statistics["meteor/changed"]) == pytest.approx(by_pycocoevalcap(changed), abs=1e-9)
    assert list(statistics)[3:6] == ["bleu_4", "meteor", "rouge_l"]
    low, high = interval(statistics["meteor"], [row.media for row in some], resamples=200)
    assert 0 < low < point_estimate(statistics["meteor"]) < high < 1


@needs_java
@pytest.mark.slow
def test_single_rows() -> None:
    some = rows(4)
    alignments = meteor.meteor_rows(
        [tokenize(row.text) for row in some], [[tokenize(text) for text in row.references] for row in some]
    )
    assert alignments is not None
    assert meteor.meteor_value(alignments).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert np.isnan(meteor.meteor_value(np.zeros(7)))


def test_it_is_omitted_during_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("Java was started"))
    assert "meteor" not in CaptionMetrics().evaluate(rows(5), slow=False).statistics


def test_a_missing_java_is_reported_once(tmp_path: Path) -> None:
    code = (
        "from unirs.metrics.caption import CaptionMetrics; from unirs.metrics.base import Prediction\n"
        "row = Prediction('1', 't', ('a',), '', '', 'a road', ('a road',))\n"
        "for _ in range(3): print('meteor' in CaptionMetrics().evaluate([row]).statistics)"
    )
    roots = os.pathsep.join([str(Path(unirs.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PATH": str(tmp_path), "PYTHONPATH": roots}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3
    assert done.stderr.count("METEOR is omitted") == 1
    assert "Install a Java runtime" in done.stderr


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Could not reserve enough space' >&2; exit 1", "Could not reserve enough space"),
        ("cat > /dev/null; kill -9 $$", "SIGKILL"),
        ("cat > /dev/null; echo 1 2 3", "numbers for 5 rows"),
        ("cat", "could not convert"),
        ("exec sleep 600", "timed out"),
    ],
)
def test_a_failing_java_is_reported_and_meteor_omitted(
    script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    if reason == "timed out":
        monkeypatch.setattr(meteor, "_SECONDS_TO_START", 0.1)
        monkeypatch.setattr(meteor, "_SECONDS_A_ROW", 0.0)
    with caplog.at_level(logging.WARNING):
        statistics = CaptionMetrics().evaluate(rows(5)).statistics
    assert "cider" in statistics
    assert "meteor" not in statistics
    assert reason in caplog.text
