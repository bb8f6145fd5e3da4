from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unirs.errors import DataError, PluginError
from unirs.tasks.fields import field, pick, texts
from unirs.tasks.folders import class_folders, files_of
from unirs.tasks.splits import Shares, check_split, choose_split, held_out, read_split_file

NAMES = st.sets(st.text(min_size=1, max_size=8), max_size=40)


def test_fields() -> None:
    row = {"a": "x", "b": 3, "c": True}
    assert field(row, "b", int, "here") == 3
    assert list(texts(row, "here", "a", "a")) == ["x", "x"]
    with pytest.raises(DataError, match="here lacks 'd'"):
        field(row, "d", str, "here")
    with pytest.raises(DataError, match="here: 'b' must be of type str, it is 3"):
        list(texts(row, "here", "a", "b"))
    with pytest.raises(DataError, match="'c' must be of type int, it is True"):
        field(row, "c", int, "here")


def test_options_and_splits() -> None:
    assert pick("size", "small", {"small": 1}) == 1
    with pytest.raises(PluginError, match=r"Unknown size 'smal'\. Did you mean 'small'"):
        pick("size", "smal", {"small": 1})
    check_split("val")
    with pytest.raises(DataError, match=r"^there: Unknown split 'vall'\. Did you mean 'val'"):
        check_split("vall", where="there")


@given(names=NAMES, share=st.floats(0, 1), salt=st.text(max_size=3))
@settings(deadline=None)
def test_held_out_is_a_share_that_does_not_depend_on_order(names: set[str], share: float, salt: str) -> None:
    chosen = held_out(sorted(names), share, salt)
    assert chosen <= names
    assert chosen == held_out(sorted(names, reverse=True), share, salt)
    if len(names) < 2 or share == 0:
        assert not chosen
    else:
        assert 1 <= len(chosen) < len(names)
        assert abs(len(chosen) - share * len(names)) <= 1


@given(groups=st.lists(NAMES, max_size=4), test=st.floats(0, 1), val=st.floats(0, 1), seed=st.integers(0, 3))
@settings(deadline=None)
def test_every_file_is_in_one_split(groups: list[set[str]], test: float, val: float, seed: int) -> None:
    named = [{f"{index}/{name}" for name in group} for index, group in enumerate(groups)]
    shares = Shares(test, val, seed)
    found: list[str] = []
    for split in ("train", "val", "test"):
        found += choose_split(split, named, None, shares)
    assert sorted(found) == sorted(name for group in named for name in group)


def test_a_split_file_has_precedence_over_the_hash() -> None:
    group = ["a", "b", "c", "d"]
    shares = Shares(0.5, 0.5, 0)
    given_val = {"a": "train", "b": "val", "c": "test"}
    assert [choose_split(split, [group], given_val, shares) for split in ("train", "val", "test")] == [
        ["a"],
        ["b"],
        ["c"],
    ]
    without_val = {"a": "train", "b": "train", "c": "test"}
    parts = [choose_split(split, [group], without_val, shares) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [1, 1, 1]
    assert parts[2] == ["c"]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_shares_are_from_0_to_1(share: float) -> None:
    with pytest.raises(PluginError, match=f"'val_share' is {share}"):
        Shares(0.5, share, 0)


def test_split_files(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('file,split\n"a, b.png",train\nc.png,test\n', encoding="utf-8-sig")
    known = {"a, b.png", "c.png", "d.png"}
    assert read_split_file(path, known) == {"a, b.png": "train", "c.png": "test"}
    path.write_bytes(b"file,split\n\xff,train\n")
    with pytest.raises(DataError, match=r"a\.csv cannot be read .* CSV file in UTF-8"):
        read_split_file(path, known)


def test_folders(tmp_path: Path) -> None:
    assert class_folders(tmp_path / "absent") == []
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "file.txt").touch()
    assert [folder.name for folder in class_folders(tmp_path)] == ["a", "b"]
    for name in ("2.PNG", "1.png", ".DS_Store"):
        (tmp_path / "a" / name).touch()
    assert [path.name for path in files_of(tmp_path / "a", {".png"}, "a .png file")] == ["1.png", "2.PNG"]
    (tmp_path / "a" / "3.txt").touch()
    with pytest.raises(DataError, match=r"3\.txt is not a \.png file"):
        files_of(tmp_path / "a", {".png"}, "a .png file")


def test_types_in_error_messages() -> None:
    row: dict[str, Any] = {"a": [1]}
    with pytest.raises(DataError, match="must be of type dict"):
        field(row, "a", dict, "here")
