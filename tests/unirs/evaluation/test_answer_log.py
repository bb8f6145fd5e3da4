import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from unirs.data.batch import Batch
from unirs.errors import UniRSError
from unirs.evaluation.answer_log import PredictionLog
from unirs.metrics.base import Prediction
from unirs.training.module import UniRSModule

# The run is a copy.
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")

Cli = Callable[..., int]


def row(number: int) -> Prediction:
    return Prediction(str(number), "image", ("a.png",), "", "?", "yes", ("yes",))


@pytest.fixture
def copied_run(learnt_run: Path, tmp_path: Path) -> Path:
    """A tested run in a separate folder, with one example per evaluation batch."""
    run = Path(shutil.copytree(learnt_run, tmp_path / "run"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"]["default_root_dir"] = str(run)
    config["data"]["eval_batch_size"] = 1
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


@pytest.mark.parametrize(("stage", "answered"), [("test", 7), ("validate", 3)])
def test_an_interrupted_evaluation_resumes(
    copied_run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, stage: str, answered: int
) -> None:
    counts: list[int] = []
    original = UniRSModule.answer

    def answer(module: UniRSModule, batch: Batch) -> list[Prediction]:
        if len(counts) == limit:
            raise KeyboardInterrupt
        rows = original(module, batch)
        counts.append(len(rows))
        return rows

    monkeypatch.setattr(UniRSModule, "answer", answer)
    limit: float = float("inf")
    command = (stage, "--config", copied_run / "config.yaml")
    assert cli(*command) == 0
    whole, batches = results(copied_run / stage), len(counts)

    limit = answered
    counts.clear()
    assert cli(*command) != 0
    logs = copied_run / f"{stage}.answers"
    logged = [line for path in logs.rglob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(logged) == sum(counts)

    limit = float("inf")
    counts.clear()
    assert cli(*command) == 0
    # A set that is finished answers one example again.
    assert batches - answered <= len(counts) <= batches - answered + 1
    assert results(copied_run / stage) == whole
    assert not logs.exists()


def results(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics | {path.name: path.read_text() for path in (folder / "predictions").iterdir()}


def test_answers_of_another_key_are_not_used(copied_run: Path, cli: Cli) -> None:
    command = ("test", "--config", copied_run / "config.yaml")
    assert cli(*command) == 0
    whole = results(copied_run / "test")
    log = PredictionLog(copied_run / "test.answers" / "image", {"weights": "other"})
    log.begin(resume=False)
    log.append(0, [row(0)])
    assert cli(*command) == 0
    assert results(copied_run / "test") == whole


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_one_error(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, {})
    log.begin(resume=False)
    (tmp_path / "0.jsonl").symlink_to("/dev/full")
    with pytest.raises(UniRSError, match=rf"^{tmp_path / '0.jsonl'} cannot be written \(No space left on device\)"):
        log.append(0, [row(0)])


def test_a_half_written_line_is_not_an_answer(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, {"data": "a"})
    log.begin(resume=False)
    log.append(0, [row(0)])
    log.append(1, [row(1)])
    path = tmp_path / "1.jsonl"
    path.write_text(path.read_text() + '{"id": "2", "ta')
    assert log.read() == {"0": row(0), "1": row(1)}
    log.append(1, [row(2)])
    assert list(PredictionLog(tmp_path, {"data": "a"}).read()) == ["0", "1", "2"]
