import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unirs.errors import DataError
from unirs.files import read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(value=VALUES, bom=st.booleans(), ascii_only=st.booleans())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reads_what_was_written(tmp_path: Path, value: object, bom: bool, ascii_only: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value, ensure_ascii=ascii_only), encoding="utf-8-sig" if bom else "utf-8")
    assert read_json(path) == value


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cut_file_is_an_error_that_names_it(tmp_path: Path, share: float) -> None:
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
def test_broken_files_are_named_with_the_place(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.json {message}"):
        read_json(tmp_path / "a.json")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.json does not exist. Download it"):
        read_json(tmp_path / "no.json")


def test_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path)


def test_hook_replaces_objects_innermost_first(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"rows": [{"id": 1}, {"id": 2}]}')
    assert read_json(tmp_path / "a.json", object_hook=lambda node: tuple(node.values())) == ([(1,), (2,)],)
