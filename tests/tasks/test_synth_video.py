from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from unirs_tasks.era import build
from unirs_tasks.synth import era
from unirs_tasks.synth.events import EVENTS, TWINS
from unirs_tasks.synth.video import FRAMES, SIZE, WORLD, Camera, Scene, encode, render

from unirs.errors import DataError
from unirs.tasks.video_reader import read_frames

Pixels = npt.NDArray[np.float32]

SIZE_OF_SET = 4


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synth") / "era"
    era.write(root, SIZE_OF_SET, seed=3)
    return root


def videos(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.mp4"))}


def scene(name: str, number: int) -> Scene:
    return EVENTS[name](np.random.default_rng([number, sorted(EVENTS).index(name)]))


def shot(of: Scene, frame: int) -> Pixels:
    """One frame of a scene from a static camera."""
    world = of.ground.copy()
    for layer in of.layers:
        layer.draw(world, frame)
    return np.asarray(Camera.still().crop(world, frame), np.float32)


def test_folders_and_counts(written: Path) -> None:
    def counts(split: str) -> list[int]:
        return [len(list(folder.iterdir())) for folder in (written / split).iterdir()]

    assert {path.name for path in written.iterdir()} == {"Train", "Test"}
    # At least two per class, of which the task uses one for validation.
    assert counts("Train") == [2] * len(EVENTS)
    assert {path.name for path in (written / "Test").iterdir()} == set(EVENTS)
    assert set(counts("Test")) == {2}


def test_the_task_reads_the_written_data(written: Path) -> None:
    task = build(written)
    train, test = (task.load_split(split) for split in ("train", "test"))
    assert len(train) == len(task.load_split("val")) == len(EVENTS)
    assert len({sample.turns[0].category for sample in test}) == len(EVENTS)
    assert test[0].media.load_frames((96, 96)).shape == (8, 3, 96, 96)


def test_every_video_has_four_seconds_of_h264(written: Path) -> None:
    for path in written.glob("Test/*/00000.mp4"):
        assert np.stack(read_frames(path, FRAMES)).shape == (FRAMES, SIZE, SIZE, 3)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.frames == FRAMES
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
            assert stream.average_rate == FRAMES / 4


def test_equal_seeds_give_equal_bytes_with_and_without_a_pool(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    era.write(tmp_path / "again", SIZE_OF_SET, seed=3)
    assert videos(tmp_path / "again") == videos(written)


def test_no_two_videos_show_the_same_scene(written: Path) -> None:
    found = videos(written)
    assert len(set(found.values())) == len(found)


@pytest.fixture
def two_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(era, "EVENTS", {name: EVENTS[name] for name in ("Soccer", "Swimming")})


@pytest.mark.usefixtures("two_classes")
def test_other_seeds_show_other_scenes(tmp_path: Path) -> None:
    for seed in (3, 4):
        era.write(tmp_path / str(seed), 1, seed=seed)
    assert not set(videos(tmp_path / "3").values()) & set(videos(tmp_path / "4").values())


@pytest.mark.usefixtures("two_classes")
def test_classes_share_the_videos_evenly(tmp_path: Path) -> None:
    era.write(tmp_path / "even", 5, seed=0)
    assert len(list((tmp_path / "even" / "Train" / "Soccer").iterdir())) == 3
    assert len(list((tmp_path / "even" / "Train" / "Swimming").iterdir())) == 2


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder"):
        era.write(tmp_path, 1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be 1 or more"):
        era.write(tmp_path / "none", 0, seed=0)


def test_encoding_preserves_the_frames(tmp_path: Path) -> None:
    frames = render(scene("Soccer", 0), Camera.still())
    encode(frames, tmp_path / "a.mp4")
    decoded = np.stack(read_frames(tmp_path / "a.mp4", FRAMES))
    assert np.abs(decoded.astype(int) - frames).mean() < 6


def cameras() -> Iterator[Camera]:
    for seed in range(15):
        yield Camera.sample(np.random.default_rng(seed))


def test_the_camera_moves_and_at_most_a_tenth_of_the_frame() -> None:
    for camera in cameras():
        drift = np.ptp(camera.center, axis=0)
        assert 3 < np.hypot(*drift) < 0.13 * SIZE
        assert drift.max() < 0.1 * SIZE
        assert np.ptp(camera.angle) + np.ptp(camera.zoom) > 0


def test_the_camera_never_leaves_the_world() -> None:
    white = np.full((WORLD, WORLD, 3), 255, np.uint8)
    for camera in cameras():
        assert render(Scene(_picture(white), ()), camera).min() == 255


def _picture(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels)


def test_a_drifting_camera_moves_the_ground() -> None:
    still = Scene(scene("Flood", 1).ground, ())
    frames = render(still, Camera.sample(np.random.default_rng(1))).astype(np.float32)
    assert np.abs(frames[-1] - frames[0]).mean() > 5
    assert min(np.abs(after - before).mean() for before, after in pairwise(frames)) > 0
    assert np.ptp(render(still, Camera.still()), axis=0).max() == 0


def ends(name: str, count: int) -> Pixels:
    """First and last frame of scenes of a class, `[count, 2, H, W, 3]`, in blocks of 8 x 8 px."""
    scenes = (scene(name, number) for number in range(count))
    pixels = np.stack([np.stack([shot(each, 0), shot(each, FRAMES - 1)]) for each in scenes])
    return np.asarray(pixels.reshape(count, 2, SIZE // 8, 8, SIZE // 8, 8, 3).mean(axis=(3, 5)))


# At least this share of the picture differs between the first and the last frame.
SMALL, LARGE = 0.02, 0.15
MOVING = {name: SMALL if name in {"Boating", "Soccer", "Swimming"} else LARGE for name in EVENTS}


@pytest.mark.parametrize("name", sorted(set(EVENTS) - {still for _, still in TWINS} - {"Post Earthquake"}))
def test_events_change_the_frames(name: str) -> None:
    pixels = ends(name, 3)
    changed = (np.abs(pixels[:, 1] - pixels[:, 0]).max(axis=3) > 10).mean(axis=(1, 2))
    assert changed.min() > MOVING[name]


@pytest.mark.parametrize("name", ["Non Event", "Post Earthquake"])
def test_without_an_event_nothing_changes(name: str) -> None:
    pixels = ends(name, 3)
    assert (pixels[:, 0] == pixels[:, 1]).all()


def accuracy(moving: Pixels, still: Pixels) -> float:
    """Accuracy of a nearest-mean classifier, fitted on one half of each class and scored on the other, both ways."""
    half = len(moving) // 2
    scores = []
    for fit, score in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        spread = np.concatenate([moving[fit], still[fit]]).std(axis=0) + 1e-6
        for own, other in ((moving, still), (still, moving)):
            near, far = (((own[score] - each[fit].mean(axis=0)) / spread) ** 2 for each in (own, other))
            scores.append((near.sum(axis=1) < far.sum(axis=1)).mean())
    return float(np.mean(scores))


@pytest.mark.parametrize(("moving", "still"), TWINS)
def test_twin_classes_differ_over_time_but_not_in_a_frame(moving: str, still: str) -> None:
    pixels = [ends(name, 40) for name in (moving, still)]
    stats = [np.concatenate([each[:, 0].mean(axis=(1, 2)), each[:, 0].std(axis=(1, 2))], axis=1) for each in pixels]
    changes = [np.abs(each[:, 1] - each[:, 0]).mean(axis=(1, 2, 3))[:, None] for each in pixels]
    assert accuracy(stats[0], stats[1]) <= 0.7
    assert accuracy(changes[0], changes[1]) >= 0.9
