"""Video readers of configs and commands, in the workers of loaders; one of them is another distribution's."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unirs.data.datamodule import UniRSDataModule
from unirs.data.processor import Processor
from unirs.errors import MediaError, PluginError
from unirs.models.llm import train_tokenizer
from unirs.tasks.media import ResizeSpec, Video
from unirs.tasks.perturbation import PerturbedMedia
from unirs.tasks.video_reader import create_reader, describe_reader, read_frames

Cli = Callable[..., int]
Capture = pytest.CaptureFixture[str]
WriteConfig = Callable[..., Path]

STRANGER = """
import numpy as np


class Constant:
    version = "7"

    def read(self, source, select):
        if not hasattr(source, "suffix"):
            raise TypeError("reads files only")
        return [np.full((48, 64, 3), index, np.uint8) for index in select(40)]
"""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A reader of another distribution, which is installed; its frame i has the level i."""
    site = tmp_path / "site"
    info = site / "stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "stranger_reader.py").write_text(STRANGER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[unirs.video_readers]\nconstant = stranger_reader:Constant\n")
    monkeypatch.syspath_prepend(site)
    return "constant"


@pytest.fixture
def decord() -> str:
    try:
        create_reader("decord")
    except PluginError as error:
        pytest.skip(str(error))
    return "decord"


@pytest.fixture
def era(synthetic: Path) -> dict[str, Any]:
    return {"name": "era", "root": str(synthetic / "era"), "num_frames": 3}


def test_the_reader_in_the_docs(synthetic: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    page = (Path(__file__).parents[2] / "docs" / "video_readers.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python.*?\n(.*?)```", page, flags=re.DOTALL) if "cv2" in block)
    assert len([line for line in code.splitlines() if line.strip() and not line.startswith('"""')]) == 10
    (tmp_path / "opencv_reader.py").write_text(code)
    path = next((synthetic / "era" / "Test").rglob("*.mp4"))
    frames = read_frames(path, 8, reader=f"{tmp_path / 'opencv_reader.py'}:OpenCVReader")
    for one, other in zip(read_frames(path, 8), frames, strict=True):
        assert abs(one.astype(int) - other).mean() < 2  # another conversion of colours


def test_a_strangers_reader(stranger: str, tmp_path: Path) -> None:
    assert len([line for line in STRANGER.splitlines() if line.strip()]) <= 10
    path = tmp_path / "a.mp4"
    path.touch()
    frames = Video(path, 3, reader=stranger).load_frames()
    assert frames.shape == (3, 3, 48, 64)
    assert frames[:, 0, 0, 0].tolist() == [0, 20, 39]
    assert describe_reader(stranger) == "constant 7"
    with pytest.raises(MediaError, match=r"a\.mp4 has 40 frames, 41 are needed"):
        Video(path, 41, reader=stranger).load_frames()
    with pytest.raises(MediaError, match=r"<in memory, .*> does not open \(reads files only\)"):
        Video(b"content", 3, reader=stranger).load_frames()
    with pytest.raises(MediaError, match="does not exist"):
        Video(tmp_path / "no.mp4", 3, reader=stranger).load_frames()


@pytest.mark.parametrize(
    "frames",
    [
        "[np.zeros((8, 8, 3), np.uint8) for _ in indices[1:]]",
        "[]",
        "np.zeros((3, 8, 8, 4), np.uint8)",
        "np.zeros((3, 8, 8, 3))",
        "np.zeros((3, 8, 3), np.uint8)",
    ],
)
def test_a_reader_that_returns_something_else(tmp_path: Path, frames: str) -> None:
    path, code = tmp_path / "a.mp4", tmp_path / "wrong.py"
    path.touch()
    lines = ("import numpy as np", "class Wrong:", "    version = ''", "    def read(self, source, select):")
    body = ("        indices = select(40)", f"        return {frames}")
    code.write_text("\n".join([*lines, *body]))
    with pytest.raises(MediaError, match=r"returned \d frames of .*a\.mp4, 3 frames of uint8 \[H, W, 3\] are needed"):
        read_frames(path, 3, reader=f"{code}:Wrong")


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_reader_of_a_run_decodes_in_workers(era: dict[str, Any], stranger: str, workers: int) -> None:
    processor = Processor(train_tokenizer([], 300), (16, 16), ResizeSpec(), (1, 1), 1, fuse_pairs=True)
    data = UniRSDataModule([era], num_workers=workers, video_reader=stranger, processor=processor)
    batch = next(iter(data.test_dataloader()[0]))
    assert batch.frames is not None
    assert batch.frames[:3].float().mean((1, 2, 3)).tolist() == [0, 20, 39]


@pytest.mark.slow
def test_decord_decodes_in_workers_after_its_use_in_this_process(era: dict[str, Any]) -> None:
    pytest.importorskip("decord")
    processor = Processor(train_tokenizer([], 300), (16, 16), ResizeSpec(), (1, 1), 1, fuse_pairs=True)
    for _ in range(3):
        data = UniRSDataModule([era], num_workers=2, video_reader="decord", processor=processor)
        expected = torch.cat([sample.media.load_frames((16, 16)) for sample in data.split("era", "test")])
        frames = [batch.frames for batch in data.test_dataloader()[0]]
        assert torch.equal(torch.cat(frames), expected)


def test_samples_keep_a_reader_of_their_own(era: dict[str, Any], stranger: str) -> None:
    split = UniRSDataModule([era], video_reader=stranger).split("era", "test")
    media = split[0].media
    assert isinstance(media, Video)
    assert media.reader == split[:1][0].media.reader == stranger  # type: ignore[attr-defined]
    assert media.num_frames == 3
    perturbed = PerturbedMedia(Video("a.mp4"), "blank").with_reader(stranger)
    assert perturbed.media == Video("a.mp4", reader=stranger)
    assert Video("a.mp4", reader="pyav").with_reader(stranger).reader == "pyav"


def test_unknown_readers_are_found_before_the_work(
    era: dict[str, Any], cli: Cli, capfd: Capture, tmp_path: Path, write_config: WriteConfig
) -> None:
    config = write_config(tmp_path, [era])
    suite = Path(__file__).parents[2] / "benchmarks" / "suites" / "quick.yaml"
    for command in (
        ("fit", "--config", config, "--data.video_reader", "decrod"),
        ("tasks", "check", "era", "--root", era["root"], "--video-reader", "decrod"),
        ("bench", "--suite", suite, "--model", tmp_path, "--out", tmp_path / "bench", "--video-reader", "decrod"),
        ("predict", tmp_path, tmp_path / "a.mp4", "--video-reader", "decrod"),
    ):
        assert cli(*command) == 1
        assert (
            "Unknown plugin 'decrod' in group 'unirs.video_readers'. Did you mean 'decord'?" in capfd.readouterr().err
        )


def test_check_compares_frames_with_pyav(
    era: dict[str, Any], stranger: str, decord: str, cli: Cli, capfd: Capture, tmp_path: Path
) -> None:
    command = ("tasks", "check", "era", "--root", era["root"], "--sheet", tmp_path / "a.png", "--limit", 2)
    assert cli(*command) == 0
    assert "videos of the reader" not in capfd.readouterr().out
    assert cli(*command, "--video-reader", decord) == 0
    assert "videos of the reader decord: 6 compared, 0 differ, 0 refused" in capfd.readouterr().out
    assert cli(*command, "--video-reader", stranger) == 1
    out = capfd.readouterr().out
    assert "videos of the reader constant: 6 compared, 6 differ, 0 refused" in out
    assert "differs from pyav: 6\n" in out
    assert "8 of 8 frames of " in out


def test_check_counts_refused_videos(era: dict[str, Any], cli: Cli, capfd: Capture, tmp_path: Path) -> None:
    code = tmp_path / "refuses.py"
    lines = ("from unirs.tasks import RefusedVideoError", "class Refuses:", "    version = ''")
    body = ("    def read(self, source, select):", "        raise RefusedVideoError('it is too long')")
    code.write_text("\n".join([*lines, *body]))
    command = ("tasks", "check", "era", "--root", era["root"], "--sheet", tmp_path / "a.png", "--limit", 1)
    assert cli(*command, "--video-reader", f"{code}:Refuses") == 1
    out = capfd.readouterr().out
    assert "refuses.py:Refuses: 0 compared, 0 differ, 3 refused" in out
    assert "refused: 3\n" in out
    assert "refuses.py:Refuses: it is too long. Set 'video_reader: pyav'" in out


def test_a_run_and_its_predictions(
    colour_tasks: list[dict[str, Any]], colours: Path, decord: str, cli: Cli, tmp_path: Path, write_config: WriteConfig
) -> None:
    (task,) = (task for task in colour_tasks if task["modality"] == "video")
    config = write_config(tmp_path, [task], data={"video_reader": decord})
    assert cli("fit", "--config", config) == 0
    run = tmp_path / "run"
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["video_reader"] == describe_reader(decord)
    out, video = tmp_path / "answers.jsonl", colours / "red.mp4"
    command = ("predict", run, video, "--num-frames", 2, "--trust-remote-code", "--out", out)
    keys = set()
    for options in (("--video-reader", decord), ("--frame-sampling", "vila"), ()):
        assert cli(*command, *options) == 0
        keys.add((tmp_path / ".answers.jsonl.key").read_bytes())
    assert len(keys) == 3
