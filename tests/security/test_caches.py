"""Damaged and poisoned caches: what is read from them is what was written, or nothing."""

from __future__ import annotations

import random
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unirs import Image
from unirs.data.clues import ClueCache
from unirs.data.feature_cache import FeatureCache
from unirs.errors import DataError

FLIPS = 300


def flip(content: bytes, generator: random.Random) -> bytes:
    """The content with one bit flipped."""
    changed = bytearray(content)
    changed[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    return bytes(changed)


@pytest.fixture
def image() -> Image:
    return Image(torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_flipped_bits_of_features(tmp_path: Path, image: Image) -> None:
    cache = FeatureCache(tmp_path, "0" * 16, (4, 8), 10**9)
    features = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0))
    cache.put(image, features)
    (path,) = tmp_path.rglob("*.safetensors")
    content, generator = path.read_bytes(), random.Random(0)  # noqa: S311
    rejected = 0
    for _ in range(FLIPS):
        path.write_bytes(flip(content, generator))
        found = cache.get(image)
        assert found is None or torch.equal(found, features)
        rejected += found is None
    # Flipped bits in the padding of the header change nothing.
    assert rejected > FLIPS / 2
    path.write_bytes(content)
    assert torch.equal(cache.get(image), features)  # type: ignore[arg-type]


def test_features_that_are_not_finite(tmp_path: Path, image: Image) -> None:
    cache = FeatureCache(tmp_path, "0" * 16, (4, 8), 10**9)
    for value in (torch.nan, torch.inf):
        with pytest.warns(UserWarning, match="not finite"):
            cache.put(image, torch.full((1, 4, 8), value))
    assert cache.get(image) is None
    cache.put(image, torch.ones(1, 4, 8))
    (path,) = tmp_path.rglob("*.safetensors")
    save_file({"features": torch.ones(1, 4, 8)}, path)
    assert cache.get(image) is None


def test_flipped_bits_of_clues(tmp_path: Path) -> None:
    path = tmp_path / "clues.sqlite"
    clues = {f"{number:064x}": f"A clue, number {number}." for number in range(40)}
    ClueCache(path).put_many(clues)
    content, generator = path.read_bytes(), random.Random(0)  # noqa: S311
    damaged = 0
    for _ in range(FLIPS):
        path.write_bytes(flip(content, generator))
        with suppress(DataError):
            found = ClueCache(path).get_many(clues)
            assert found.items() <= clues.items()
            damaged += len(found) < len(clues)
    assert damaged > FLIPS / 10


def test_clues_of_other_types(tmp_path: Path) -> None:
    path = tmp_path / "clues.sqlite"
    ClueCache(path).put_many({"a": "text", "b": "text"})
    with sqlite3.connect(path) as file:
        file.execute("UPDATE checked_clues SET clue = x'ff00' WHERE key = 'a'")
        file.execute("UPDATE checked_clues SET clue = 'poisoned' WHERE key = 'b'")
    file.close()
    assert ClueCache(path).get_many(["a", "b"]) == {}
