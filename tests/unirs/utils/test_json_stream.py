import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unirs.errors import DataError
from unirs.utils import json_stream
from unirs.utils.io import read_json, read_row
from unirs.utils.json_stream import read_json_list, read_json_lists

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(params=[1, 5, 1 << 20])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Number of bytes that are read at once."""
    monkeypatch.setattr(json_stream, "_CHUNK", request.param)
    return int(request.param)


@given(rows=st.lists(JSON, max_size=5), bom=st.booleans(), indent=st.none() | st.integers(0, 2), plain=st.booleans())
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_reads_what_was_written_with_any_chunk(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], bom: bool, indent: int | None, plain: bool, size: int
) -> None:
    path = tmp_path_factory.mktemp("list") / "a.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", size)
        for key, content in ((None, rows), ("b", {"a": [rows], "b": rows, "c": {"b": [1]}})):
            text = json.dumps(content, indent=indent, ensure_ascii=plain)
            path.write_text(text, encoding="utf-8-sig" if bom else "utf-8", errors="surrogatepass")
            found = list(read_json_list(path, key))
            assert [row.value for row in found] == rows
            assert [read_row(path, row.start, row.end) for row in found] == rows


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n ", "is empty"),
        ("[", r"is cut short \(line 1, column 2"),
        ('[{"a": 1},\n {"a": "b', r"is cut short \(line 2, column 8: Unterminated string"),
        ("[1, 2", r"is cut short \(line 1, column 6"),
        ("[1 2]", r"is not JSON \(line 1, column 4: Expecting ',' or ']'"),
        ("[1,]", r"is not JSON \(line 1, column 4: Expecting value"),
        ('[\n{"a": 1},\n{"a" 1}\n]', r"is not JSON \(line 3, column 6: Expecting ':' delimiter"),
        ("[1] [2]", r"is not JSON \(line 1, column 5: Extra data"),
        ('{"a": [1]}', "holds no JSON list"),
        ("[" * 100_000, "is nested too deeply"),
        ("[1,\n" + "9" * 5000 + "]", r"is not JSON \(line 2, column 1: An integer that is too long"),
    ],
)
def test_invalid_lists(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"a\.json {message}"):
        list(read_json_list(path))


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"b": [1]}', "has no list 'a'"),
        ('{"a": {"a": []}}', "has no list 'a'"),
        ("{}", "has no list 'a'"),
        ("[1]", "has no list 'a'"),
        ("3", "has no list 'a'"),
        ("", "is empty"),
        ('{"a": [1]', "is cut short"),
        ('{"a": [1], "b": ', "is cut short"),
        ('{"a": [1]; "b": 2}', r"is not JSON \(line 1, column 10: Expecting ',' or '}'"),
    ],
)
def test_files_without_the_named_list(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"a\.json {message}"):
        list(read_json_list(path, "a"))


@pytest.mark.usefixtures("chunk")
def test_lone_surrogates(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('["\\ud83d\\ude00", "\\udcff",\n {"a": "\\ud800"}]')
    rows = read_json_list(path)
    assert [next(rows).value, next(rows).value] == ["\N{GRINNING FACE}", "\udcff"]
    with pytest.raises(DataError, match=r"a\.json, value in line 2: a text contains a lone surrogate"):
        next(rows)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("content", [b'[1, "\xff"]', b'["' + b"a" * 30 + b'\xc3"]', "[1, 'é".encode()[:-1]])
def test_bytes_that_are_not_utf8(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    messages = []
    for read in (lambda: list(read_json_list(path)), lambda: read_json(path)):
        with pytest.raises(DataError, match="is not UTF-8 text") as error:
            read()
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json does not exist"):
        list(read_json_list(tmp_path / "a.json"))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_json_list(tmp_path))


def test_rows_before_an_error_are_yielded(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1, 2, x]")
    rows = read_json_list(path)
    assert [next(rows).value, next(rows).value] == [1, 2]
    with pytest.raises(DataError, match="column 8"):
        next(rows)


@given(lists=st.dictionaries(st.text(max_size=3), JSON, max_size=4), indent=st.none() | st.integers(0, 2))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_reads_the_lists_of_an_object(
    tmp_path_factory: pytest.TempPathFactory, lists: dict[str, Any], indent: int | None, size: int
) -> None:
    path = tmp_path_factory.mktemp("lists") / "a.json"
    path.write_text(json.dumps(lists, indent=indent), encoding="utf-8")
    expected = [(key, value) for key, values in lists.items() if isinstance(values, list) for value in values]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", size)
        found = list(read_json_lists(path))
    assert [(key, row.value) for key, row in found] == expected
    assert [read_row(path, row.start, row.end) for _, row in found] == [value for _, value in expected]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "holds no JSON object"),
        ("", "is empty"),
        ('{"a": [1]', "is cut short"),
        ('{"a": [1]} 2', r"is not JSON \(line 1, column 12: Extra data"),
    ],
)
def test_invalid_objects_of_lists(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"a\.json {message}"):
        list(read_json_lists(path))
