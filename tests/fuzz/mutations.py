"""Seeded mutations: of bytes, of JSON, YAML and CSV documents, and of files and their names."""

import csv
import io
import json
import os
import random
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

DOCUMENTS = {".json", ".jsonl", ".csv", ".yaml"}

# Written in place of a string, since Python neither builds these values from text nor writes them.
RAW = {
    "@digits": "9" * 5000,
    "@negative": "-" + "1" * 4301,
    "@exponent": "1e999999",
    "@deep": "[" * 50_000 + "]" * 50_000,
    "@deep-object": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "@huge": '"' + "x" * 300_000 + '"',
    "@nan": "NaN",
    "@infinity": "-Infinity",
    "@literal": "nul",
}

_FIXED: list[Any] = [
    *RAW,
    None,
    True,
    "",
    " \t\n",
    "\0",
    "a\0b.png",
    "\ud800",
    "a\udcffb",
    "\ufeff",
    "e\u0301\u200d\u202e",
    "{question}",
    "{0.__class__}",
    "../../../outside.png",
    "/etc/passwd",
    "C:\\con",
    "x" * 300,
    "a/" * 2000,
    "prepared:x",
    "package:os/x",
    -1,
    0,
    2**31,
    2**63,
    -(2**63) - 1,
    2**64,
    10**25,
    1e308,
    -0.0,
    0.5,
    [],
    {},
    [[]],
    {"": None},
]

_TEXTS = st.text(st.characters(exclude_categories=()), max_size=20)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)

_NAMES = [
    b"\xff\xfe.png",
    b"new\nline.png",
    "z\u0308\u202e.png".encode(),
    b" .png",
    b"x" * 250 + b".png",
    b"-o.tif",
    b"[b]",
]


@cache
def values(seed: int) -> list[Any]:
    """Hostile JSON values: fixed ones, and those of a hypothesis strategy for a seed."""
    found = list(_FIXED)

    @hypothesis_seed(seed)
    @settings(
        max_examples=150, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(_VALUES)
    def collect(value: Any) -> None:  # noqa: ANN401
        found.append(value)

    collect()
    return found


def mutate(folder: Path, rng: random.Random, seed: int) -> None:
    """Changes one to three things in a folder of valid files, mostly the content of one file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    documents = [path for path in files if path.suffix in DOCUMENTS | {".txt"}] or files
    chosen = rng.choice(documents if rng.random() < 0.8 else files)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not chosen.is_file():
            return
        if rng.random() < 0.08:
            _change_files(chosen, rng)
        elif chosen.suffix in DOCUMENTS and rng.random() < 0.65:
            _change_document(chosen, rng, values(seed))
        else:
            chosen.write_bytes(mutate_bytes(chosen.read_bytes(), rng))


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Changes bits, numbers, ranges and the length of content."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        start = rng.randrange(len(changed) + 1)
        # Headers are at the beginning, indices of videos and images at the end.
        start = rng.choice((start, start, start % 64, max(0, len(changed) - 1 - start % 64)))
        end = min(len(changed), start + rng.choice((1, 2, 4, 16, 256)))
        match rng.randrange(9):
            case 0 | 1 if end > start:
                changed[start] ^= 1 << rng.randrange(8)
            case 2 if end > start:
                changed[start:end] = rng.randbytes(end - start)
            case 3:
                changed[start:end] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80"))
            case 4:
                del changed[start:end]
            case 5:
                changed[start:start] = changed[start:end] * rng.choice((1, 2, 50))
            case 6:
                changed[start:start] = rng.randbytes(rng.choice((1, 4, 64)))
            case 7:
                del changed[start:]
            case 8:
                marks = (b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\r", b'"', b"\xed\xa0\x80")
                changed[start:start] = rng.choice(marks)
    return bytes(changed)


def _change_files(path: Path, rng: random.Random) -> None:
    match rng.randrange(7):
        case 0:
            path.unlink()
        case 1:
            path.write_bytes(b"")
        case 2:
            path.unlink()
            path.mkdir()
        case 3:
            path.unlink()
            path.symlink_to(path.name)
        case 4:
            path.unlink()
            os.mkfifo(path)
        case 5:
            os.rename(path, os.path.join(os.fsencode(path.parent), rng.choice(_NAMES)))  # noqa: PTH104, PTH118 (bytes)
        case 6:
            content = path.read_bytes()
            Path(os.fsdecode(os.path.join(os.fsencode(path.parent), rng.choice(_NAMES)))).write_bytes(content)  # noqa: PTH118


def _change_document(path: Path, rng: random.Random, pool: list[Any]) -> None:
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    try:
        if path.suffix == ".csv":
            rows: Any = list(csv.reader(io.StringIO(text)))
            changed = io.StringIO()
            csv.writer(changed).writerows(map(_as_list, _as_list(_changed(rows, rng, pool))))
            text = changed.getvalue()
        elif path.suffix == ".jsonl":
            lines = _as_list(_changed([json.loads(line) for line in text.splitlines()], rng, pool))
            text = "\n".join(_dump(line, rng) for line in lines)
        else:
            text = _dump(_changed(json.loads(text), rng, pool), rng)
    except (ValueError, RecursionError, csv.Error):
        # Changed before, and no document any more.
        text = text[: rng.randrange(len(text) + 1)]
    path.write_bytes((b"\xef\xbb\xbf" if rng.random() < 0.05 else b"") + text.encode("utf-8", "surrogatepass"))


def _as_list(value: Any) -> list[Any]:  # noqa: ANN401
    return value if isinstance(value, list) else [value]


def _dump(value: Any, rng: random.Random) -> str:  # noqa: ANN401
    text = json.dumps(value, ensure_ascii=rng.random() < 0.7)
    for mark, raw in RAW.items():
        text = text.replace(f'"{mark}"', raw)
    return text


def _changed(document: Any, rng: random.Random, pool: list[Any]) -> Any:  # noqa: ANN401
    """Replaces, deletes, repeats or renames one entry of a document."""
    # The next changes must not reach into the pool.
    hostile = deepcopy(rng.choice(pool))
    entries = list(_entries(document))
    if not entries or rng.random() < 0.02:
        return hostile
    # Long lists would leave little for the rest.
    container, key = rng.choice(entries[: rng.choice((1, 4, 16, len(entries)))])
    match rng.randrange(10):
        case 0:
            del container[key]
        case 1 if isinstance(container, list):
            container.insert(key, container[key])
        case 1 | 2 if isinstance(container, dict):
            name = rng.choice([*(one for one in pool if isinstance(one, str)), f"{key}s"])
            container[name] = container.pop(key) if rng.random() < 0.5 else container[key]
        case 3:
            other, other_key = rng.choice(entries)
            container[key] = deepcopy(other[other_key])
        case 4 if isinstance(container[key], str):
            value = container[key]
            position = rng.randrange(len(value) + 1)
            container[key] = value[:position] + (hostile if isinstance(hostile, str) else "\0") + value[position:]
        case 5 if isinstance(container[key], int | float):
            container[key] = container[key] * rng.choice((-1, 0, 2, 2**32, 2**65, 0.5))
        case _:
            container[key] = hostile
    return document


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401
    """Containers and keys of all values inside a document, outermost first."""
    level = [value] if isinstance(value, dict | list) else []
    while level:
        found = [
            (container, key)
            for container in level
            for key in (list(container) if isinstance(container, dict) else range(len(container)))
        ]
        yield from found
        level = [container[key] for container, key in found if isinstance(container[key], dict | list)]
