import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unirs.errors import DataError, PluginError
from unirs.tasks.fields import parse_row, pick, texts
from unirs.tasks.folders import class_folders, files_of
from unirs.tasks.splits import FileSplits, check_split, held_out

NAMES = st.sets(st.text(min_size=1, max_size=8), max_size=40)


class Row(TypedDict):
    a: str
    b: list[int]


@dataclass
class RowClass:
    a: str
    b: list[int]


def test_parse_row_checks_types() -> None:
    row = {"a": "x", "b": [3], "other": None}
    assert parse_row(row, Row, "here")["b"] == [3]
    assert parse_row(row, RowClass, "here") == RowClass("x", [3])
    with pytest.raises(DataError, match="here: Object missing required field `b`"):
        parse_row({"a": "x"}, Row, "here")
    with pytest.raises(DataError, match=r"here: Expected `int`, got `str` - at `\$\.b\[1\]`"):
        parse_row({"a": "x", "b": [1, "2"]}, RowClass, "here")
    with pytest.raises(DataError, match=r"Expected `int`, got `bool` - at `\$\.b\[0\]`"):
        parse_row({"a": "x", "b": [True]}, Row, "here")
    with pytest.raises(DataError, match="here: Expected `object`, got `int`"):
        parse_row(3, Row, "here")
    with pytest.raises(DataError, match="here: A text contains a lone surrogate"):
        parse_row({"\udc80": 3}, RowClass, "here")


def test_texts() -> None:
    row = {"a": "x", "b": 3}
    assert texts(row, "here", "a", "a") == ("x", "x")
    with pytest.raises(DataError, match="here: 'b' must be a text, it is 3"):
        texts(row, "here", "a", "b")
    with pytest.raises(DataError, match="here: 'c' must be a text, it is 'missing'"):
        texts(row, "here", "c")


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
    splits = FileSplits(None, test, val, seed)
    found = [file for split in ("train", "val", "test") for file in splits.select(split, named)]
    assert sorted(found) == sorted(name for group in named for name in group)


def split_all(splits: FileSplits, names: list[str]) -> list[list[str]]:
    return [splits.select(split, [names]) for split in ("train", "val", "test")]


def test_split_file_overrides_the_hash(tmp_path: Path) -> None:
    path, names = tmp_path / "splits.csv", ["a", "b", "c", "d"]
    path.write_text("file,split\na,train\nb,val\nc,test\n")
    assert split_all(FileSplits(path, 0.5, 0.5, 0), names) == [["a"], ["b"], ["c"]]
    path.write_text("file,split\na,train\nb,train\nc,test\n")
    train, val, test = split_all(FileSplits(path, 0.5, 0.5, 0), names)
    assert (sorted(train + val), len(val), test) == (["a", "b"], 1, ["c"])


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_shares_are_from_0_to_1(share: float) -> None:
    with pytest.raises(PluginError, match=f"val_share is {share}"):
        FileSplits(None, 0.5, share, 0)


def test_errors_of_split_files(tmp_path: Path) -> None:
    path, names = tmp_path / "a.csv", ["a, b.png", "c.png", "d.png"]
    splits = FileSplits(path, 0, 0, 0)
    path.write_text('file,split\n"a, b.png",train\nc.png,test\n', encoding="utf-8-sig")
    assert split_all(splits, names) == [["a, b.png"], [], ["c.png"]]
    for content, message in {
        b"file,split\n\xff,train\n": r"a\.csv cannot be read .* CSV file in UTF-8",
        b"file,split\ne.png,train\n": r"a\.csv, line 2: there is no 'e\.png' in the data",
        b"file,split\nc.png,vall\n": r"line 2: Unknown split 'vall'\. Did you mean 'val'",
        b"file,split\nc.png,val\nc.png,val\n": r"line 3: 'c\.png' is listed twice",
    }.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            splits.select("train", [names])


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


def test_names_that_are_not_utf8_are_held_out_like_others() -> None:
    names = {os.fsdecode(b"\xff%d.png" % number) for number in range(8)}
    assert len(held_out(names, 0.25)) == 2
