from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unirs_tasks.era import CLASSES, build

from unirs import create_task
from unirs.errors import DataError, MediaError, PluginError
from unirs.metrics.base import Prediction
from unirs.tasks.media import Video


def touch(root: Path, *videos: str) -> Path:
    """Files of no content: a split is read without opening its videos."""
    for video in videos:
        path = root / video
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def ids(root: Path, split: str) -> list[str]:
    return [sample.id for sample in build(root).load_split(split)]  # type: ignore[arg-type]


def test_one_turn_per_video(tmp_path: Path) -> None:
    touch(tmp_path, "Test/PoliceChase/b.mp4", "Test/PoliceChase/a.MP4", "Test/Fire/c.mp4")
    split = build(tmp_path, num_frames=4).load_split("test")
    assert [sample.id for sample in split] == ["Fire/c.mp4", "PoliceChase/a.MP4", "PoliceChase/b.mp4"]
    assert split[2].media == Video(tmp_path / "Test" / "PoliceChase" / "b.mp4", 4)
    (turn,) = split[2].turns
    assert turn.train_answers == ("This is a video about police chase.",)
    assert (turn.references, turn.category) == (("police chase",), "police chase")


def test_frames_come_from_the_video(tmp_path: Path) -> None:
    path = tmp_path / "Test" / "Fire" / "a.mp4"
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 64, "yuv420p", 1
        for level in range(0, 200, 20):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = build(tmp_path, num_frames=4).load_split("test")[0].media.load_frames((16, 16))
    assert (frames.float().mean((1, 2, 3)) / 20).round().int().tolist() == [0, 3, 6, 9]
    with pytest.raises(MediaError, match=r"a\.mp4 has 10 frames, 11 are needed"):
        build(tmp_path, num_frames=11).load_split("test")[0].media.load_frames((16, 16))


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("PostEarthquake", "post-earthquake"),
        ("Post-earthquake", "post-earthquake"),
        ("Police Chase", "police chase"),
        ("TRAFFIC_CONGESTION", "traffic congestion"),
        ("ParadeProtest", "parade/protest"),
        ("parade-protest", "parade/protest"),
        ("NonEvent", "non-event"),
        ("baseball", "baseball"),
    ],
)
def test_folder_names_match_in_any_spelling(tmp_path: Path, folder: str, name: str) -> None:
    touch(tmp_path, f"Test/{folder}/a.mp4")
    assert build(tmp_path).load_split("test")[0].turns[0].references == (name,)


def test_choices_are_the_training_answers(tmp_path: Path) -> None:
    task = build(touch(tmp_path, "Test/PoliceChase/a.mp4"))
    (turn,) = task.load_split("test")[0].turns
    assert len(task.choices) == 25
    assert turn.train_answers[0] in task.choices_for(turn.category)
    rows = [
        Prediction(name, "era", (), name, "", choice, (name,))
        for name, choice in zip(CLASSES, task.choices, strict=True)
    ]
    assert set(task.scorer.evaluate(rows).scores) == {1.0}


def test_two_spellings_of_a_class_are_one_class(tmp_path: Path) -> None:
    touch(tmp_path, "Test/CarRacing/a.mp4", "Test/car racing/a.mp4")
    assert ids(tmp_path, "test") == ["CarRacing/a.mp4", "car racing/a.mp4"]


def test_samples_are_in_the_order_of_the_classes(tmp_path: Path) -> None:
    touch(tmp_path, *(f"Test/{name.replace('/', '')}/a.mp4" for name in reversed(CLASSES)))
    assert [sample.turns[0].category for sample in build(tmp_path).load_split("test")] == list(CLASSES)
    assert len(set(CLASSES)) == 25


def test_validation_is_a_tenth_of_each_class_and_not_in_train(tmp_path: Path) -> None:
    sizes = {"Fire": 60, "Flood": 20, "Party": 7, "Concert": 2, "Boating": 1}
    touch(tmp_path, *(f"Train/{name}/{i:03}.mp4" for name, size in sizes.items() for i in range(size)))
    train, val = ids(tmp_path, "train"), ids(tmp_path, "val")
    assert not set(train) & set(val)
    assert len(train) + len(val) == sum(sizes.values())
    held_out = {name: sum(entry.startswith(name) for entry in val) for name in sizes}
    assert held_out == {"Fire": 6, "Flood": 2, "Party": 1, "Concert": 1, "Boating": 0}


@given(size=st.integers(2, 60), others=st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_validation_does_not_depend_on_other_classes(
    tmp_path_factory: pytest.TempPathFactory, size: int, others: int
) -> None:
    root = tmp_path_factory.mktemp("era")
    touch(root, *(f"Train/Fire/{i}.mp4" for i in range(size)))
    before = ids(root, "val")
    touch(root, *(f"Train/Flood/{i}.mp4" for i in range(others)), *(f"Test/Fire/{i}.mp4" for i in range(others)))
    assert [entry for entry in ids(root, "val") if entry.startswith("Fire")] == before
    assert 1 <= len(before) < size


def test_validation_does_not_depend_on_the_location_of_the_data(tmp_path: Path) -> None:
    names = [f"Train/Fire/{i}.mp4" for i in range(30)]
    assert ids(touch(tmp_path / "a", *names), "val") == ids(touch(tmp_path / "b", *reversed(names)), "val")


def test_unknown_class_folder_suggests_the_nearest(tmp_path: Path) -> None:
    touch(tmp_path, "Train/Fire/a.mp4", "Train/PoliceChas/a.mp4")
    with pytest.raises(DataError, match=r"PoliceChas is not one of ERA's classes\. Did you mean 'police chase'"):
        build(tmp_path).load_split("train")


def test_files_other_than_mp4_are_errors_and_hidden_files_are_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "Test/Fire/a.mp4", "Test/Fire/.DS_Store", "Test/.cache/x", "Test/readme.txt")
    assert ids(tmp_path, "test") == ["Fire/a.mp4"]
    touch(tmp_path, "Test/Fire/b.avi")
    with pytest.raises(DataError, match=r"b\.avi is not an \.mp4 file"):
        build(tmp_path).load_split("test")


@pytest.mark.parametrize(("split", "folder"), [("train", "Train"), ("val", "Train"), ("test", "Test")])
def test_missing_and_empty_folders_are_named(tmp_path: Path, split: str, folder: str) -> None:
    with pytest.raises(DataError, match=f"{folder} is not a folder"):
        ids(tmp_path, split)
    (tmp_path / folder / "Fire").mkdir(parents=True)
    with pytest.raises(DataError, match=f"{folder} has no video for the split '{split}'"):
        ids(tmp_path, split)


def test_unknown_split_and_too_few_frames(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Unknown split 'vall'\. Did you mean 'val'"):
        ids(tmp_path, "vall")
    with pytest.raises(PluginError, match="num_frames is 0"):
        create_task("era", root=tmp_path, num_frames=0)


def test_required_paths_and_download_hint(tmp_path: Path) -> None:
    task = build(tmp_path)
    assert (task.modality, task.required_paths) == ("video", (tmp_path / "Train", tmp_path / "Test"))
    assert "lcmou.github.io/ERA_Dataset" in task.download_hint
    assert (task.prompt.task_tag, task.prompt.instruction) == ("video", "What is the event in the video?")
