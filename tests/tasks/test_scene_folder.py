import os
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unirs_tasks.scene_folder import build

from unirs.errors import DataError, MediaError, PluginError
from unirs.evaluation.task_check import check_task
from unirs.tasks.media import Image

RSSCN7 = Path(__file__).parents[3] / "shared" / "data" / "rsscn7"


def touch(root: Path, *names: str) -> Path:
    """Writes empty files: a split is read without opening its images."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def ids(root: Path, split: str, **options: object) -> list[str]:
    return [sample.id for sample in build(root, **options).load_split(split)]  # type: ignore[arg-type]


def test_splits_in_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/Forest/a.png", "val/Forest/b.tif", "test/River_Lake/d.png", "test/Forest/c.JPG")
    task = build(tmp_path)
    assert [ids(tmp_path, split) for split in task.splits] == [
        ["Forest/a.png"],
        ["Forest/b.tif"],
        ["Forest/c.JPG", "River_Lake/d.png"],
    ]
    sample = task.load_split("test")[1]
    assert sample.media == Image(tmp_path / "test" / "River_Lake" / "d.png")
    (turn,) = sample.turns
    assert (turn.references, turn.targets, turn.category) == (("river lake",), ("river lake",), "river lake")
    assert task.choices == ("forest", "river lake")


def test_validation_is_a_share_of_each_class_without_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/forest/{i}.png" for i in range(30)), *(f"train/pond/{i}.png" for i in range(2)))
    touch(tmp_path, "test/pond/a.png")
    train, val = ids(tmp_path, "train"), ids(tmp_path, "val")
    assert not set(train) & set(val)
    assert len(train) + len(val) == 32
    assert [sum(name.startswith(prefix) for name in val) for prefix in ("forest", "pond")] == [3, 1]
    assert len(ids(tmp_path, "val", val_share=0.5)) == 16
    assert ids(tmp_path, "val", seed=1) != val


def test_one_folder_is_split_by_hash(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{i}.png" for name in ("forest", "pond") for i in range(50)))
    splits = {split: ids(tmp_path, split) for split in ("train", "val", "test")}
    assert {split: len(names) for split, names in splits.items()} == {"train": 72, "val": 8, "test": 20}
    assert len({name for names in splits.values() for name in names}) == 100
    assert ids(tmp_path, "test", seed=1) != splits["test"]
    assert len(ids(tmp_path, "test", test_share=0.5)) == 50


@given(size=st.integers(2, 40), others=st.integers(1, 20))
@settings(max_examples=10, deadline=None)
def test_a_larger_class_does_not_change_the_split_of_others(
    tmp_path_factory: pytest.TempPathFactory, size: int, others: int
) -> None:
    root = tmp_path_factory.mktemp("scenes")
    touch(root, *(f"pond/{i}.png" for i in range(size)))
    before = ids(root, "test")
    touch(root, *(f"forest/{i}.png" for i in range(others)))
    assert [name for name in ids(root, "test") if name.startswith("pond")] == before
    assert 1 <= len(before) < size


def test_split_file(tmp_path: Path) -> None:
    touch(tmp_path, *(f"pond/{i}.png" for i in range(6)))
    file = tmp_path / "splits.csv"
    file.write_text("file,split,more\npond/0.png,test,x\npond/1.png,val,\npond/2.png,train,\n")
    task = build(tmp_path, split_file=file)
    assert [[sample.id for sample in task.load_split(split)] for split in task.splits] == [
        ["pond/2.png"],
        ["pond/1.png"],
        ["pond/0.png"],
    ]
    assert task.required_paths == (tmp_path, file)
    # Without rows of validation, a share of the training rows.
    file.write_text("file,split\npond/0.png,test\n" + "".join(f"pond/{i}.png,train\n" for i in range(1, 5)))
    assert [len(ids(tmp_path, split, split_file=file)) for split in task.splits] == [3, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,split\npond/0.png,test\npond/9.png,train\n", r"splits\.csv, line 3: there is no 'pond/9\.png'"),
        ("file,split\npond/0.png,tset\n", r"splits\.csv, line 2: Unknown split 'tset'\. Did you mean 'test'"),
        ("file,split\npond/0.png,test\npond/0.png,test\n", r"line 3: 'pond/0\.png' is listed twice"),
        ("file,split\npond/0.png\n", r"splits\.csv, line 2 has no 'split'"),
        ("file,splits\npond/0.png,test\n", r"splits\.csv has no column 'split'\. Did you mean 'splits'"),
        ("", r"splits\.csv has no column 'file'"),
        ("file,split\npond/0.png,test\n", "has no image for the split 'train'"),
    ],
)
def test_wrong_split_files(tmp_path: Path, text: str, message: str) -> None:
    touch(tmp_path, "pond/0.png", "pond/1.png")
    (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        ids(tmp_path, "train", split_file=tmp_path / "splits.csv")


def test_split_file_that_does_not_exist(tmp_path: Path) -> None:
    touch(tmp_path, "pond/0.png")
    with pytest.raises(DataError, match=r"absent\.csv does not exist"):
        ids(tmp_path, "test", split_file=tmp_path / "absent.csv")


def test_a_class_may_be_named_as_a_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/0.png", "train/1.png", "bus/0.png", "bus/1.png")
    assert build(tmp_path).choices == ("bus", "train")
    assert len(ids(tmp_path, "test")) == 2


@pytest.mark.parametrize(
    ("preset", "text"),
    [
        ("short", "[scene] Classify the image from the following classes. Answer in one word or a short phrase."),
        (
            "classes",
            (
                "[scene] Classify the given image in one of the following classes. Classes: forest, pond. "
                "Answer in one word or a short phrase."
            ),
        ),
        ("plain", "[scene] What kind of scene does the image show?"),
    ],
)
def test_presets(tmp_path: Path, preset: str, text: str) -> None:
    touch(tmp_path, "pond/0.png", "forest/0.png")
    assert build(tmp_path, preset).prompt({}) == text  # type: ignore[arg-type]


def test_wrong_options(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"Unknown preset 'clases'\. Did you mean 'classes'"):
        build(tmp_path, "clases")  # type: ignore[arg-type]
    with pytest.raises(PluginError, match=r"test_share is 1\.5, it must be"):
        build(tmp_path, test_share=1.5)
    with pytest.raises(DataError, match=r"Unknown split 'tset'\. Did you mean 'test'"):
        ids(touch(tmp_path, "pond/0.png"), "tset")
    with pytest.raises(DataError, match=r"Unknown split 'tset'"):
        ids(touch(tmp_path / "b", "train/pond/0.png"), "tset")


def test_a_task_without_data_builds(tmp_path: Path) -> None:
    task = build(tmp_path / "absent")
    assert (task.choices, task.required_paths) == ((), (tmp_path / "absent",))
    with pytest.raises(DataError, match="absent holds no class folders"):
        task.load_split("test")


def test_empty_classes_and_files_that_are_no_images(tmp_path: Path) -> None:
    touch(tmp_path, "train/pond/0.png", "test/pond/0.png", "test/pond/.hidden", "test/.cache/x")
    assert ids(tmp_path, "test") == ["pond/0.png"]
    (tmp_path / "test" / "forest").mkdir()
    with pytest.raises(DataError, match=r"The class folder .*forest is empty"):
        ids(tmp_path, "test")
    touch(tmp_path, "test/forest/notes.txt")
    with pytest.raises(DataError, match=r"notes\.txt is not an image \(\.bmp, \.jpeg, \.jpg, \.png, "):
        ids(tmp_path, "test")
    touch(tmp_path, "train/__/0.png")
    with pytest.raises(DataError, match=r"0\.png has no letter or digit in its name"):
        ids(tmp_path, "train")
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="val holds no class folders"):
        ids(tmp_path, "val")


def test_a_text_file_with_an_image_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "test/pond/0.png")
    with pytest.raises(MediaError, match=r"0\.png does not decode"):
        build(tmp_path).load_split("test")[0].media.load_frames()


def test_check_finds_images_in_two_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for index in range(4):
            path = tmp_path / split / "pond" / f"{split}{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.new("RGB", (16, 16), (60 * index, 0, 100 * (split == "test" and index > 0))).save(path)
    (problem,) = check_task(build(tmp_path)).problems["in two splits"]
    assert "test0.png (test) has the pixels of" in problem
    assert "train0.png (" in problem


@pytest.mark.skipif(not RSSCN7.is_dir(), reason="RSSCN7 is not beside the checkout")
def test_real_images() -> None:
    task = build(RSSCN7)
    assert [len(task.load_split(split)) for split in task.splits] == [1260, 140, 560]
    assert task.choices == ("field", "forest", "grass", "industry", "parking", "resident", "river lake")
    report = check_task(task, limit=10)
    assert report.problems == {}
    assert report.samples == {"train": 1260, "val": 140, "test": 560}


def test_names_that_are_not_utf8(tmp_path: Path, cli: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "scenes"
    for level, name in enumerate((b"river", b"for\xeat")):
        folder = root / os.fsdecode(name)
        folder.mkdir(parents=True)
        for number in range(12):
            image = PIL.Image.new("RGB", (8, 8), (level, number, 0))
            image.save(folder / os.fsdecode(b"\xff%d.png" % number))
    assert cli("tasks", "check", "scene_folder", "--root", root, "--sheet", tmp_path / "sheet.png") == 0
    out = capfd.readouterr().out
    assert "categories: for t 9, river 9" in out
    assert "no problems found" in out
