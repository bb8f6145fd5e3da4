import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., int]
WriteConfig = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def vqa_run(
    tmp_path_factory: pytest.TempPathFactory, colour_tasks: list[dict[str, Any]], cli: Cli, write_config: WriteConfig
) -> Path:
    """A run with one task, for images."""
    folder = tmp_path_factory.mktemp("predict_vqa")
    assert cli("fit", "--config", write_config(folder, colour_tasks[:1])) == 0
    return folder / "run"


@pytest.fixture
def predict(
    learnt_run: Path, cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[dict[str, Any]]]:
    """Calls `unirs predict` and returns the rows of `--out`; checks that the same answers are printed."""

    def call(*arguments: object) -> list[dict[str, Any]]:
        out = tmp_path / "out" / "answers.jsonl"
        capsys.readouterr()
        assert cli("predict", learnt_run, *arguments, "--trust-remote-code", "--out", out) == 0
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        printed = [line for line in capsys.readouterr().out.splitlines() if ": " in line]
        assert printed == [f"{' -> '.join(row['media'])}: {row['text']}" for row in rows]
        return rows

    return call


@pytest.fixture
def predict_error(learnt_run: Path, cli: Cli, capfd: Capture) -> Callable[..., str]:
    """Calls `unirs predict` and returns its error message."""

    def call(*arguments: object, run_folder: Path = learnt_run) -> str:
        assert cli("predict", run_folder, *arguments, "--trust-remote-code") == 1
        (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("unirs: error: "))
        return line.removeprefix("unirs: error: ")

    return call


def test_an_image(predict: Callable[..., list[dict[str, Any]]], colours: Path) -> None:
    (row,) = predict(colours / "green.png", "--question", "Which colour?")
    assert set(row) == {"task", "media", "prompt", "clue", "text"}
    assert (row["task"], row["media"], row["text"]) == ("image", [str(colours / "green.png")], "green")
    assert "[vqa] Which colour?" in row["prompt"]
    (row,) = predict(colours / "red.png", "--question", "Is it red?")
    assert row["text"] == "yes"


def test_pair(predict: Callable[..., list[dict[str, Any]]], colours: Path) -> None:
    (row,) = predict(colours / "red.png", colours / "green.png")
    assert (row["task"], row["text"]) == ("pair", "from red to green")
    assert row["media"] == [str(colours / "red.png"), str(colours / "green.png")]
    # A given question replaces the task's instruction.
    (row,) = predict(colours / "red.png", colours / "green.png", "--question", "Anything new?")
    assert "[pair] Anything new?" in row["prompt"]


def test_video(predict: Callable[..., list[dict[str, Any]]], colours: Path) -> None:
    (row,) = predict(colours / "blue.mp4", "--num-frames", 2)
    assert (row["task"], row["text"]) == ("video", "a blue video")
    assert row["prompt"].count("<|visual|>") == 2


def test_folder(predict: Callable[..., list[dict[str, Any]]], colours: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("white", "blue"):
        shutil.copy(colours / f"{name}.png", folder)
    (folder / "notes.txt").write_text("no image")
    rows = predict(folder, "--question", "Which colour?", "--task", "image")
    assert [(Path(row["media"][0]).name, row["text"]) for row in rows] == [
        ("blue.png", "blue"),
        ("white.png", "white"),
    ]


def test_folder_of_pairs(predict: Callable[..., list[dict[str, Any]]], colours: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    for time, names in {"A": ("red", "blue"), "B": ("green", "white")}.items():
        (folder / time).mkdir(parents=True)
        for number, name in enumerate(names):
            shutil.copy(colours / f"{name}.png", folder / time / f"{number}.png")
    rows = predict(folder)
    assert [row["text"] for row in rows] == ["from red to green", "from blue to white"]
    assert rows[1]["media"] == [str(folder / "A" / "1.png"), str(folder / "B" / "1.png")]


def test_unsuitable_paths(predict_error: Callable[..., str], colours: Path, tmp_path: Path) -> None:
    red, green, video = colours / "red.png", colours / "green.png", colours / "red.mp4"
    assert predict_error(tmp_path / "absent.png").startswith(
        f"{tmp_path / 'absent.png'} does not exist. Correct the path"
    )
    assert "no task for series media" in predict_error(red, green, red)
    assert "got 3 paths" in predict_error(red, green, video)
    assert "got 2 paths" in predict_error(red, video)
    assert "holds images and videos" in predict_error(colours)
    assert "has no suffix of an image or a video" in predict_error(colours / "image.json")
    assert "holds no image or video" in predict_error(tmp_path)


def test_unsuitable_folders_of_pairs(predict_error: Callable[..., str], colours: Path, tmp_path: Path) -> None:
    for time in "AB":
        (tmp_path / time).mkdir()
    assert "A holds no image" in predict_error(tmp_path)
    shutil.copy(colours / "red.png", tmp_path / "B" / "new.png")
    assert "new.png is only in B/" in predict_error(tmp_path)


def test_media_that_cannot_be_decoded(predict_error: Callable[..., str], colours: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes((colours / "red.png").read_bytes()[:50])
    out = tmp_path / "answers.jsonl"
    assert f"{broken} does not decode" in predict_error(broken, "--question", "Which colour?", "--out", out)
    assert not out.exists()
    assert "has 4 frames, 8 are needed" in predict_error(colours / "red.mp4")
    assert "cannot have 0 frames" in predict_error(colours / "red.mp4", "--num-frames", "0")


@pytest.fixture
def folder(colours: Path, tmp_path: Path) -> Path:
    """A folder with two images, and a broken one between them."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("blue", "red", "white"):
        shutil.copy(colours / f"{name}.png", folder)
    (folder / "red.png").write_bytes(b"no image")
    return folder


def read_texts(out: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {Path(row["media"][0]).name: row["text"] for row in rows}


def test_a_broken_file_costs_no_other_answer(
    learnt_run: Path, cli: Cli, capfd: Capture, folder: Path, colours: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    call = ("predict", learnt_run, folder, "--trust-remote-code", "--question", "Which colour?", "--out", out)
    assert cli(*call) == 1
    captured = capfd.readouterr()
    assert f"unirs: no answer: Image {folder / 'red.png'} does not decode" in captured.err
    assert "unirs: error: 1 of 3 media have no answer. Their errors are listed above." in captured.err
    assert captured.out.splitlines() == [f"{folder / 'blue.png'}: blue", f"{folder / 'white.png'}: white"]
    assert read_texts(out) == {"blue.png": "blue", "white.png": "white"}
    # The second call answers what has no answer yet.
    written = out.read_bytes()
    shutil.copy(colours / "red.png", folder)
    assert cli(*call) == 0
    assert out.read_bytes().startswith(written)
    assert read_texts(out) == {"blue.png": "blue", "white.png": "white", "red.png": "red"}


def test_an_interrupted_call_is_resumed(learnt_run: Path, cli: Cli, folder: Path, tmp_path: Path) -> None:
    (folder / "red.png").unlink()
    out = tmp_path / "answers.jsonl"
    call = ("predict", learnt_run, folder, "--trust-remote-code", "--question", "Which colour?", "--out", out)
    assert cli(*call) == 0
    first, second = out.read_bytes().splitlines(keepends=True)
    # An answer that this model does not give shows that it is kept; the last line was cut.
    kept = first.replace(b'"text": "blue"', b'"text": "kept"')
    out.write_bytes(kept + second[:-5])
    assert cli(*call) == 0
    assert out.read_bytes() == kept + second
    # Another question replaces them, once it has an answer.
    assert cli(*call, "--task", "video") == 1
    assert out.read_bytes() == kept + second
    assert cli(*("Is it red?" if one == "Which colour?" else one for one in call)) == 0
    assert set(read_texts(out).values()) == {"no"}


@pytest.mark.slow
def test_file_names_that_are_not_utf8(learnt_run: Path, colours: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "answers.jsonl"
    folder.mkdir()
    path = folder / os.fsdecode(b"r\xe9d.png")
    shutil.copy(colours / "red.png", path)
    unirs = Path(sys.executable).with_name("unirs")
    command: list[str | Path] = [unirs, "predict", learnt_run, folder, "--trust-remote-code"]
    done = subprocess.run([*command, "--question", "Which colour?", "--out", out], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{folder}/r\\udce9d.png: red\n".encode())
    (row,) = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    assert (row["media"], row["text"]) == ([str(path)], "red")


def test_a_question_that_is_not_unicode(predict_error: Callable[..., str], colours: Path) -> None:
    message = predict_error(colours / "red.png", "--question", os.fsdecode(b"Which \xff?"))
    assert "A prompt or an answer is not Unicode text" in message
    assert r"Which \udcff?" in message


def test_a_folder_without_a_question(
    learnt_run: Path, colours: Path, tmp_path: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("red", "blue"):
        shutil.copy(colours / f"{name}.png", tmp_path)
    assert cli("predict", learnt_run, tmp_path, "--trust-remote-code", "--out", tmp_path / "out.jsonl") == 0
    assert "no --question is given: 'Describe the image.'" in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 2
    assert all("Describe the image." in row["prompt"] for row in rows)


def test_a_file_that_cannot_be_written(predict_error: Callable[..., str], colours: Path, tmp_path: Path) -> None:
    message = predict_error(colours / "red.png", "--question", "Which colour?", "--out", tmp_path)
    assert f"{tmp_path} cannot be written (Is a directory)" in message


def test_unsuitable_questions_and_tasks(predict_error: Callable[..., str], vqa_run: Path, colours: Path) -> None:
    red, green, video = colours / "red.png", colours / "green.png", colours / "red.mp4"
    assert "no task 'imag' for image media. Did you mean 'image'?" in predict_error(red, "--task", "imag")
    assert "no task 'video' for image media" in predict_error(red, "--task", "video")
    assert "no task for pair media: it was trained on image" in predict_error(red, green, run_folder=vqa_run)
    assert "no task for video media" in predict_error(video, "--num-frames", "2", run_folder=vqa_run)


def test_folders_without_a_run(
    predict_error: Callable[..., str], learnt_run: Path, colours: Path, tmp_path: Path
) -> None:
    red = colours / "red.png"
    assert f"{tmp_path} is not a saved UniRS model" in predict_error(red, run_folder=tmp_path)
    shutil.copy(learnt_run / "config.yaml", tmp_path)
    assert "train first with 'unirs fit'" in predict_error(red, run_folder=tmp_path)
