import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from unirs.errors import MediaError
from unirs.tasks.scene import tile_windows

Cli = Callable[..., int]
Capture = pytest.CaptureFixture[str]
Write = Callable[..., Path]

RED, GREEN, BLUE, NOTHING = (4000, 1, 1), (1, 4000, 1), (1, 1, 4000), (0, 0, 0)
OPTIONS = ("--trust-remote-code", "--bands", 4, 3, 2, "--stretch", 0, 100)


def scene(*rows: list[tuple[int, int, int]], size: int = 64) -> np.ndarray:
    """Tiles of one color: bands of uint16 [4, H, W], of which the 4th, 3rd and 2nd are red, green and blue."""
    colors = np.array(rows, "uint16").transpose(2, 0, 1).repeat(size, 1).repeat(size, 2)
    return np.concatenate([colors[:1] * 0 + 9, colors[::-1]])


@pytest.fixture
def colors(write_geotiff: Write) -> Path:
    return write_geotiff("scene.tif", scene([RED, GREEN], [BLUE, NOTHING]), nodata=0, tiled=True, compress="deflate")


@pytest.fixture
def predict(learnt_run: Path, cli: Cli, tmp_path: Path) -> Callable[..., Any]:
    """Calls `unirs predict` on a scene; returns the GeoJSON."""

    def call(*arguments: object) -> Any:  # noqa: ANN401 - JSON
        out = tmp_path / "out.geojson"
        assert cli("predict", learnt_run, *arguments, *OPTIONS, "--out", out) == 0
        return json.loads(out.read_bytes())

    return call


@pytest.fixture
def error(learnt_run: Path, cli: Cli, capfd: Capture) -> Callable[..., str]:
    def call(*arguments: object) -> str:
        assert cli("predict", learnt_run, *arguments) == 1
        (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("unirs: error: "))
        return line

    return call


def answers(geojson: Any) -> list[tuple[list[int], str]]:  # noqa: ANN401
    return [(one["properties"]["window"], one["properties"]["answer"]) for one in geojson["features"]]


def test_tiles_of_a_scene(predict: Callable[..., Any], colors: Path, capfd: Capture) -> None:
    found = predict(colors, "--tiles", 64, "--question", "Which colour?")
    assert answers(found) == [([0, 0, 64, 64], "red"), ([64, 0, 64, 64], "green"), ([0, 64, 64, 64], "blue")]
    printed = capfd.readouterr().err
    assert "4 tiles of 64x64, 4 visual tokens each" in printed
    assert "1 of 4 tiles have no data" in printed
    assert found["type"] == "FeatureCollection"
    for feature in found["features"]:
        assert set(feature) == {"type", "geometry", "properties"}
        assert {"answer", "task", "prompt", "window", "media"} <= set(feature["properties"])
        (ring,) = feature["geometry"]["coordinates"]
        assert (feature["type"], feature["geometry"]["type"], len(ring)) == ("Feature", "Polygon", 5)
        assert ring[0] == ring[-1]
        assert all(15 <= x <= 15.02 and 45.14 <= y <= 45.154 for x, y in ring)
        assert sum((u - x) * (v + y) for (x, y), (u, v) in pairwise(ring)) < 0  # against the clock
    # Neighbours share a side.
    first, second = (np.array(one["geometry"]["coordinates"][0]) for one in found["features"][:2])
    assert np.allclose(first[3], second[0], atol=1e-7)


def test_a_pair_of_scenes(predict: Callable[..., Any], colors: Path, write_geotiff: Write) -> None:
    after = write_geotiff("after.tif", scene([GREEN, GREEN], [RED, RED]), nodata=0)
    found = predict(colors, after, "--tiles", 64)
    assert answers(found)[0] == ([0, 0, 64, 64], "from red to green")
    assert len(found["features"]) == 3
    assert found["features"][0]["properties"]["task"] == "pair"


def test_choices(predict: Callable[..., Any], colors: Path) -> None:
    found = predict(colors, "--tiles", 64, "--question", "Which colour?", "--choices", "red", "blue")
    scores = [one["properties"]["choice_logprobs"] for one in found["features"]]
    assert [max(one, key=one.get) for one in scores] == [text for _, text in answers(found)]
    assert all(set(one) == {"red", "blue"} for one in scores)


def test_an_interrupted_call_is_resumed(predict: Callable[..., Any], colors: Path, tmp_path: Path) -> None:
    call = (colors, "--tiles", 64, "--question", "Which colour?")
    first = predict(*call)
    rows = tmp_path / ".out.geojson.jsonl"
    kept = rows.read_bytes().splitlines(keepends=True)
    # An answer that this model does not give shows that it is kept; the last line was cut.
    rows.write_bytes(kept[0].replace(b'"text": "red"', b'"text": "kept"') + kept[1][:-5])
    (tmp_path / "out.geojson").unlink()
    assert answers(predict(*call)) == [([0, 0, 64, 64], "kept"), *answers(first)[1:]]
    # Other tiles replace them.
    assert len(predict(*call[:2], 32, *call[3:])["features"]) == 12


def test_a_damaged_tile_does_not_cost_the_others(
    learnt_run: Path, cli: Cli, colors: Path, tmp_path: Path, capfd: Capture
) -> None:
    path = tmp_path / "blocks.tif"
    with (
        rasterio.open(colors) as source,
        rasterio.open(
            path, "w", **(source.profile | {"blockxsize": 64, "blockysize": 64, "interleave": "pixel"})
        ) as target,
    ):
        target.write(source.read())
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_1_0", "TIFF", bidx=1))
        size = int(file.get_tag_item("BLOCK_SIZE_1_0", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = bytes(size)
    path.write_bytes(content)
    out = tmp_path / "out.geojson"
    options = ("--trust-remote-code", "--bands", 4, 3, 2, "--value-range", 0, 4000, "--question", "Which colour?")
    assert cli("predict", learnt_run, path, "--tiles", 64, *options, "--out", out) == 1
    printed = capfd.readouterr().err
    assert "blocks.tif [64, 0, 64, 64] does not decode" in printed
    assert "1 of 4 media have no answer" in printed
    assert [text for _, text in answers(json.loads(out.read_bytes()))] == ["red", "blue"]


def test_json_lines(learnt_run: Path, cli: Cli, write_geotiff: Write, tmp_path: Path) -> None:
    path = write_geotiff("plain.tif", scene([RED, GREEN]), crs=None, transform=None)
    call = ("predict", learnt_run, path, *OPTIONS, "--question", "Which colour?", "--out", tmp_path / "out.jsonl")
    assert cli(*call, "--tiles", 64) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["window"], row["text"]) for row in rows] == [([0, 0, 64, 64], "red"), ([64, 0, 64, 64], "green")]
    assert "crs" not in rows[0]
    path = write_geotiff("located.tif", scene([BLUE]))
    assert cli(*call[:2], path, "--trust-remote-code", "--bands", 4, 3, 2, "--value-range", 0, 4000, *call[-4:]) == 0
    (row,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert (row["text"], row["crs"], row["bounds"]) == ("blue", "EPSG:32633", [500_000, 4_999_360, 500_640, 5_000_000])


def test_errors(error: Callable[..., str], write_geotiff: Write, tmp_path: Path) -> None:
    path = write_geotiff("scene.tif", scene([RED]))
    tiles, out = ("--tiles", 64, *OPTIONS), ("--out", tmp_path / "out.geojson")
    assert "GeoJSON holds the answers of --tiles" in error(path, *OPTIONS, *out)
    assert "one GeoTIFF, or of two" in error(path, path, path, *tiles, *out)
    assert "one GeoTIFF, or of two" in error(tmp_path, *tiles, *out)
    assert "cannot overlap by 64" in error(path, *tiles, "--overlap", 64, *out)
    assert "Set 'stretch: [2, 98]'" in error(path, "--tiles", 64, "--bands", 4, 3, 2, "--question", "?", OPTIONS[0])
    other = write_geotiff("other.tif", scene([RED]), transform=Affine(10, 0, 500_005, 0, -10, 5_000_000))
    message = error(path, other, *tiles, *out)
    assert "differ in their grid" in message
    assert "gdalwarp" in message
    plain = write_geotiff("plain.tif", scene([RED]), crs=None, transform=None)
    assert "has no georeference" in error(plain, *tiles, *out)
    assert not (tmp_path / "out.geojson").exists()


def test_windows() -> None:
    assert tile_windows(100, 60, 60) == [(0, 0, 60, 60), (40, 0, 60, 60)]
    assert [window[0] for window in tile_windows(100, 40, 40, 10)] == [0, 30, 60]
    assert tile_windows(30, 20, 64) == [(0, 0, 30, 20)]
    assert [window[:2] for window in tile_windows(4, 4, 2)] == [(0, 0), (2, 0), (0, 2), (2, 2)]
    with pytest.raises(MediaError, match="more than 1,000,000"):
        tile_windows(10_000, 10_000, 1)
