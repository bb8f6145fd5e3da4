import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unirs.errors import DataError
from unirs.utils.io import read_csv, read_json, read_json_lines, read_row, scan_json_lines

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(value=VALUES, bom=st.booleans(), ascii_only=st.booleans())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_written_file_is_read_back(tmp_path: Path, value: object, bom: bool, ascii_only: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value, ensure_ascii=ascii_only), encoding="utf-8-sig" if bom else "utf-8")
    assert read_json(path) == value


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_truncated_file(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.json"
    text = json.dumps({"images": [{"id": 1, "name": 'a "b"', "active": True}, {"id": -2.5, "name": None}]})
    path.write_text(text[: int(share * len(text))], encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json is .*ownload"):
        read_json(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty. Download"),
        (b" \n", "is empty. Download"),
        (b'{"a": [1,\n', r"is cut short \(line 2, column 1"),
        (b'{"a": "tex', r"is cut short \(line 1, column 7"),
        (b'{"a": 1,\n "b" 2}', r"is not JSON \(line 2, column 6: Expecting ':' delimiter\). Correct"),
        (b"<html></html>", r"is not JSON \(line 1, column 1"),
        (b'{"a": "\xff"}', r"is not UTF-8 text \(byte 7\)"),
        (b"[" * 200_000, "is nested too deeply"),
    ],
)
def test_invalid_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.json {message}"):
        read_json(tmp_path / "a.json")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.json does not exist. Download it"):
        read_json(tmp_path / "no.json")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path)


@given(rows=st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), max_size=5), bom=st.booleans())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reads_lines_that_were_written(tmp_path: Path, rows: list[dict[str, object]], bom: bool) -> None:
    path = tmp_path / "a.jsonl"
    text = "\n".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)  # with an empty line between any two
    path.write_text(text, encoding="utf-8-sig" if bom else "utf-8")
    assert list(read_json_lines(path)) == [(f"{path}, line {2 * n + 1}", row) for n, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": ', "line 2 is not JSON"),
        (b'{"a": 1}\n\n[1]\n', "line 3 is not a JSON object"),
        (b'{"a": "\xff"}', "is not UTF-8 text after line 0"),
        (b'{"a": 1}\n{"a": ' + b"9" * 5000 + b"}", "line 2 is not JSON"),
        (b'{"a": 1}\n{"a": [{"b": "\\uD800"}]}', "line 2: a text contains a lone surrogate"),
        (b'{"\\ude00\\ud83d": 1}', "line 1: a text contains a lone surrogate"),
    ],
)
def test_invalid_lines(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_json_lines(path))


def test_pairs_of_surrogates_and_bytes_of_file_names_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "\\ud83d\\ude00", "b": "\\udcff.png"}')
    assert [row for _, row in read_json_lines(path)] == [{"a": "\N{GRINNING FACE}", "b": os.fsdecode(b"\xff.png")}]


def test_missing_file_and_folder_of_lines(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl does not exist"):
        list(read_json_lines(tmp_path / "a.jsonl"))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_json_lines(tmp_path))


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_lines_are_read_again(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"a": "é"}, {"b": 1}, {"c": "last"}]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_bytes(("\ufeff" + ending.join([lines[0], "", *lines[1:]])).encode())
    found = list(scan_json_lines(path))
    assert [number for number, _ in found] == [1, 3, 4]
    assert [row.value for _, row in found] == rows
    assert [read_row(path, row.start, row.end) for _, row in found] == rows
    path.write_text("{}")
    with pytest.raises(DataError, match=r"a\.jsonl was changed while it was in use"):
        read_row(path, found[1][1].start, found[1][1].end)


def test_csv_by_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('name,"much, more"\na,1\n"b\nb",2\n\nc,3\n', encoding="utf-8-sig")
    assert list(read_csv(path, ("name",))) == [
        (f"{path}, line 2", {"name": "a", "much, more": "1"}),
        (f"{path}, line 4", {"name": "b\nb", "much, more": "2"}),
        (f"{path}, line 6", {"name": "c", "much, more": "3"}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,split\na\n", r"a\.csv, line 2 has no 'split'"),
        (b"name,splits\na,b\n", r"a\.csv has no column 'split'\. Did you mean 'splits'"),
        (b"", r"a\.csv has no column 'name'"),
        (b"name,split\n\xff,b\n", r"a\.csv cannot be read .* CSV file in UTF-8"),
    ],
)
def test_invalid_csv(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_csv(path, ("name", "split")))
    with pytest.raises(DataError, match="b\\.csv does not exist"):
        list(read_csv(tmp_path / "b.csv", ("name",)))
