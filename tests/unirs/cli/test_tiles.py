import json
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest

Cli = Callable[..., int]
WriteConfig = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small image, and a large one whose third tile of four is red."""
    root = tmp_path_factory.mktemp("tiles")
    small, large = PIL.Image.new("RGB", (64, 64), "blue"), PIL.Image.new("RGB", (128, 128), "blue")
    large.paste((255, 0, 0), (0, 64, 64, 128))
    small.save(root / "small.png")
    large.save(root / "large.png")
    rows = [{"image": f"{name}.png", "question": "Where?", "answer": name} for name in ("small", "large")]
    for split in ("train", "val", "test"):
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


ENCODER = '''\
import torch
from torch import nn

from unirs.tasks.media import ResizeSpec


class Patches(nn.Module):
    """Means of 16x16 pixels."""

    image_size, resize, grid, embed_dim, init_config = (64, 64), ResizeSpec(max_tiles=4), (4, 4), 3, {}

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(frames / 255.0, 16).flatten(2).transpose(1, 2)

    def train(self, mode: bool = True) -> "Patches":
        return super().train(False)
'''


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, data: Path, write_config: WriteConfig) -> Callable[..., Path]:
    """Writes the config of a run with a frozen encoder, whose features are cached."""

    def call(**task: object) -> Path:
        folder = tmp_path_factory.mktemp("tiled_run")
        (folder / "patches.py").write_text(ENCODER)
        tasks = [{"name": "jsonl", "root": str(data), "label": "where", **task}]
        model = {"encoder": {"name": f"{folder / 'patches.py'}:Patches"}, "change": None}
        return write_config(folder, tasks, epochs=2, model=model, data={"feature_cache": str(folder / "features")})

    return call


@pytest.fixture(scope="module")
def run(config: Callable[..., Path], cli: Cli) -> Path:
    path = config()
    assert cli("fit", "--config", path) == 0
    return path.parent / "run"


def test_a_tiled_image_has_the_visual_tokens_of_its_overview_and_tiles(
    run: Path, data: Path, cli: Cli, tmp_path: Path, capfd: Capture
) -> None:
    out = tmp_path / "answers.jsonl"
    assert cli("predict", run, data, "--question", "Where?", "--out", out, "--trust-remote-code") == 0
    large, small = (json.loads(line)["prompt"] for line in out.read_text().splitlines())
    assert (large.count("<|visual|>"), small.count("<|visual|>")) == (5, 1)
    # A frame of 64x64 has a grid of 4x4, and 2x2 tokens after the projector.
    assert "larger images are tiled: at most 20 visual tokens each" in capfd.readouterr().err
    # A test, from cached features, has the same prompts.
    assert cli("test", "--config", run / "config.yaml") == 0
    rows = map(json.loads, (run / "test" / "predictions" / "where.jsonl").read_text().splitlines())
    assert sorted(row["prompt"].count("<|visual|>") for row in rows) == [1, 5]
    assert len(list((run.parent / "features").glob("*/*/*.safetensors"))) == 3  # with that of a black image


def test_the_check_tells_the_cost(run: Path, data: Path, cli: Cli, tmp_path: Path, capfd: Capture) -> None:
    model = ("--model", run, "--trust-remote-code")
    assert cli("tasks", "check", "jsonl", "--root", data, *model, "--sheet", tmp_path / "sheet.png") == 1
    # Its splits are equal, so the check ends with their problem.
    assert "visual tokens of an input: mean 12.0, max 20" in capfd.readouterr().out


def test_augmented_tiles_are_refused(config: Callable[..., Path], cli: Cli, capfd: Capture) -> None:
    assert cli("fit", "--config", config(augment=True)) == 1
    assert "'augment' would rotate the tiles of an image" in capfd.readouterr().err
