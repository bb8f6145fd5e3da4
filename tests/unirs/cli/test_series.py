"""Series of dated images through the command line: trained, tested, predicted and checked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from unirs import Series, UniRS
from unirs.errors import MediaError, UniRSError

Cli = Callable[..., int]
DATES = ["2016-05", "2017-05", "2019-06"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cli: Cli, write_config: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("series")
    for name, size in (("a", 64), ("b", 64), ("c", 40)):
        pixels = np.random.default_rng(size).integers(0, 256, (size, 64, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{name}.png")
    files = ["a.png", "b.png", "c.png"]
    rows = [
        {"images": files, "dates": DATES, "question": "What changed?", "answer": "a road"},
        {"images": files[:2], "question": "What changed?", "answer": "nothing"},
    ]
    for split in ("train", "val", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = [{"name": "jsonl", "root": str(folder), "modality": "series", "label": "dated", "clue": "test"}]
    data = {"batch_size": 2, "blank_media": True}
    config = write_config(folder, tasks, data=data, model={"clue": {"cache": str(folder / "clues.sqlite")}})
    assert cli("fit", "--config", config) == 0
    assert cli("test", "--config", config, "--report", "true") == 0
    return folder


def test_prompts_of_a_test_have_the_dates(run: Path) -> None:
    lines = (run / "run" / "test" / "predictions" / "dated.jsonl").read_text().splitlines()
    first, second = (json.loads(line) for line in lines)
    assert "".join(f"Image {n}, {date}:<|visual|>" for n, date in enumerate(DATES, 1)) + "\n" in first["prompt"]
    assert "Image 1:<|visual|>Image 2:<|visual|>\n" in second["prompt"]
    assert first["clue"]
    assert f"<clue>{first['clue']}</clue>" in first["prompt"]
    assert first["media"] == [str(run / f"{name}.png") for name in "abc"]
    page = (run / "run" / "test" / "report.html").read_text()
    assert all(f"Image {n}, {date}:" in page for n, date in enumerate(DATES, 1))


def test_predict(run: Path, cli: Cli, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = [run / f"{name}.png" for name in "abc"]
    command = ("predict", run / "run", *files, "--question", "Why?", "--out", tmp_path / "answers.jsonl")
    prompts = []
    for dates in ([], ["--dates", *DATES]):
        assert cli(*command, *dates) == 0
        (line,) = (tmp_path / "answers.jsonl").read_text().splitlines()
        prompts.append(json.loads(line)["prompt"])
    assert "Image 2:<|visual|>" in prompts[0]
    assert "Image 2, 2017-05:<|visual|>" in prompts[1]
    capfd.readouterr()
    assert cli("predict", run / "run", *files[:2], "--dates", "2016", "2017", "--question", "Why?") == 0
    for paths, dates in ((files, DATES[:2]), (files[:1], DATES[:1])):
        assert cli("predict", run / "run", *paths, "--dates", *dates) == 1
    first, second = (line for line in capfd.readouterr().err.splitlines() if line.startswith("unirs: error"))
    assert "The 3 images of a series have the dates ['2016-05', '2017-05']" in first
    assert "Dates are of the images of a series" in second


def test_answer(run: Path) -> None:
    model, files = UniRS.from_pretrained(run / "run", device="cpu"), tuple(run / f"{name}.png" for name in "abc")
    assert model.answer(files, "Why?") == model.answer(Series(files), "Why?")
    (dated,) = model.predict([Series(files, DATES)], "Why?", clue=False)
    tokens = model.processor.tokens_per_image
    assert dated.prompt.count("<|visual|>") == 3
    assert tokens > 0
    with pytest.raises(UniRSError, match="no task for pair media"):
        model.answer(files[:2], "Why?")
    with pytest.raises(MediaError, match="two or more"):
        Series(files[:1])


def test_check_and_bad_rows(run: Path, cli: Cli, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    check = ("tasks", "check", "jsonl", "--root", run, "--option", "modality=series", "--sheet", tmp_path / "sheet.png")
    assert cli(*check) == 1
    assert "has 4 problems" in capfd.readouterr().err  # the splits are equal
    row: dict[str, Any] = {"images": ["a.png", "b.png"], "dates": ["2016"], "question": "?", "answer": "a"}
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    assert cli("tasks", "check", "jsonl", "--root", tmp_path, "--option", "modality=series") == 1
    output = capfd.readouterr()
    assert "train.jsonl, line 1: The 2 images of a series have the dates" in output.out + output.err
