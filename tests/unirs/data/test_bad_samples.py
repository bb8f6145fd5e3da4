"""Samples that cannot be read: they end a run, or are skipped, counted and listed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from unirs.data.dataset import DecodedDataset, Example, VisualInput
from unirs.data.sampler import Draw
from unirs.errors import DataError
from unirs.tasks.media import Image, Media
from unirs.tasks.prompt import VISUAL
from unirs.tasks.sample import Sample, Turn


@pytest.fixture
def damaged(colours: Path, tmp_path: Path) -> Path:
    """Four images of one colour each, of which one file is cut short and one question holds a visual placeholder."""
    root = tmp_path / "damaged"
    shutil.copytree(colours, root)
    (root / "red.png").write_bytes((root / "red.png").read_bytes()[:40])
    rows = json.loads((root / "image.json").read_text())
    rows[2]["turns"][0][0] = f"Which {VISUAL} colour?"
    (root / "image.json").write_text(json.dumps(rows))
    return root


@pytest.fixture
def config(damaged: Path, tmp_path: Path, write_config: Callable[..., Path]) -> Path:
    tasks = [{"name": str(damaged / "plugin.py"), "root": str(damaged), "label": "image"}]
    return write_config(tmp_path, tasks, epochs=2, data={"batch_size": 1, "eval_batch_size": 2})


def skipped(path: Path) -> dict[str, str]:
    return {row["id"]: row["error"] for row in map(json.loads, path.read_text().splitlines())}


@pytest.mark.parametrize("workers", [0, 1])
def test_raise(workers: int, config: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("fit", "--config", config, "--data.num_workers", workers) == 1
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    error = next(line for line in printed.splitlines() if line.startswith("unirs: error: "))
    assert "red.png" in error or VISUAL in error


@pytest.mark.parametrize("command", ["fit", "test"])
def test_full_shared_memory_is_an_error_and_not_waited_for(
    command: str,
    colour_tasks: list[dict[str, Any]],
    tmp_path: Path,
    write_config: Callable[..., Path],
    cli: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = write_config(tmp_path, colour_tasks)
    assert command == "fit" or cli("fit", "--config", config) == 0
    capsys.readouterr()

    def fail(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch>: No space left on device (28)")

    # Workers are forks.
    monkeypatch.setattr(torch.Tensor, "share_memory_", fail)
    assert cli(command, "--config", config, "--data.num_workers", 1) == 1
    error = capsys.readouterr().err
    assert "does not fit in shared memory" in error
    assert "--shm-size" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("workers", [0, 2])
def test_skip(
    workers: int, config: Path, tmp_path: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--config", config, "--data.on_bad_sample", "skip", "--data.max_bad_share", 0.5]
    options += ["--data.num_workers", workers]
    with pytest.warns(UserWarning, match=r"A sample is skipped: 'image\d' of task 'image'"):
        assert cli("fit", *options) == 0
    run = tmp_path / "run"
    errors = skipped(run / "skipped.jsonl")
    assert list(errors) == ["image0", "image2"]
    assert "red.png" in errors["image0"]
    assert VISUAL in errors["image2"]
    assert "2 samples could not be read, and were skipped" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="A sample is skipped"):
        assert cli("test", *options) == 0
    document = json.loads((run / "test" / "metrics.json").read_text())
    assert document["skipped"] == {"image": 2}
    assert document["tasks"]["image"]["accuracy"]["n"] == 4
    assert list(skipped(run / "test" / "skipped.jsonl")) == ["image0", "image2"]
    assert "skipped 2 that cannot be read" in capsys.readouterr().out
    rows = [json.loads(line) for line in (run / "test" / "predictions" / "image.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["image1-0", "image1-1", "image3-0", "image3-1"]


@pytest.mark.filterwarnings("ignore:A sample is skipped")
def test_two_processes_skip_the_same(config: Path, tmp_path: Path, cli: Callable[..., int]) -> None:
    options = ["--config", config, "--data.on_bad_sample", "skip", "--data.max_bad_share", 0.5]
    two = ["--trainer.devices", 2, "--trainer.strategy", "ddp_fork"]
    assert cli("fit", *options, *two) == 0
    run = tmp_path / "run"
    assert list(skipped(run / "skipped.jsonl")) == ["image0", "image2"]
    assert cli("test", *options) == 0
    names = ("metrics.json", "skipped.jsonl", "predictions/image.jsonl")
    one = [(run / "test" / name).read_bytes() for name in names]
    assert cli("test", *options, *two) == 0
    assert [(run / "test" / name).read_bytes() for name in names] == one


def test_share(config: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="A sample is skipped"):
        assert cli("fit", "--config", config, "--data.on_bad_sample", "skip") == 1
    error = capsys.readouterr().err
    assert "1 of 4 samples of the training mixture cannot be read, more than data.max_bad_share, 0.01" in error


class _Examples(list[Example]):
    """Examples named by their index."""


def _examples(count: int) -> _Examples:
    media: list[Media] = [Image(Path(f"{index}.png")) for index in range(count)]
    return _Examples(Example("t", Sample(str(i), one, (Turn(f"{i}-0", ("a",)),))) for i, one in enumerate(media))


def _decoded(count: int, bad: set[str]) -> DecodedDataset:
    def decode(sample: Sample) -> torch.Tensor:
        if sample.id in bad:
            raise DataError(f"{sample.id} is damaged")
        return torch.full((1, 3, 2, 2), int(sample.id), dtype=torch.uint8)

    return DecodedDataset(_examples(count), decode, check=lambda *_: None)  # type: ignore[arg-type]


def test_the_next_readable_example_replaces_a_bad_one_without_weight() -> None:
    dataset = _decoded(4, {"2", "3"})
    example, visual = dataset[Draw(2, 0)]
    assert (example.sample.id, example.filler, [one.id for one in example.skipped]) == ("0", True, ["2", "3"])
    assert isinstance(visual, VisualInput)
    assert visual.frames is not None
    assert int(visual.frames.max()) == 0
    # In an evaluation, answers count once per id.
    assert dataset[2][0].filler is False
    assert dataset[1][0].skipped == ()


def test_no_readable_example() -> None:
    with pytest.raises(DataError, match=r"None of 2 samples can be read\. The first error: 1 is damaged"):
        _decoded(2, {"0", "1"})[1]


@pytest.mark.filterwarnings("ignore:A sample is skipped")
def test_bench(
    damaged: Path, learnt_run: Path, tmp_path: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"name": str(damaged / "plugin.py"), "root": str(damaged), "label": "image"}
    suite = {"title": "s", "tasks": [{"title": "t", "task": task, "columns": {"accuracy": "A"}}]}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    out = tmp_path / "out"
    command = ["bench", "--trust-remote-code", "--suite", tmp_path / "suite.yaml", "--model", learnt_run]
    command += ["--out", out, "--device", "cpu", "--batch-size", 1]
    assert cli(*command) == 1
    assert "red.png" in capsys.readouterr().err
    skip = [*command, "--on-bad-sample", "skip"]
    assert cli(*skip) == 1
    assert "max_bad_share" in capsys.readouterr().err
    assert cli(*skip, "--max-bad-share", 0.5) == 0
    results = out / learnt_run.name / "bench"
    document = json.loads((results / "metrics.json").read_text())
    assert document["skipped"] == {"image": 2}
    assert document["tasks"]["image"]["accuracy"]["n"] == 4
    assert list(skipped(results / "skipped.jsonl")) == ["image0", "image2"]
    assert "skipped 2 that cannot be read" in (out / "table.md").read_text()
    # Only samples that cannot be read have no answer.
    shutil.rmtree(results)
    assert cli(*skip, "--max-bad-share", 0.5, "--resume") == 0
    assert json.loads((results / "metrics.json").read_text()) == document
