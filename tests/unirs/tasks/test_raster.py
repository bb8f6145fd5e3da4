import os
import pickle
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import rasterio
from affine import Affine

from unirs import Image, Pair, Series, Video, create_task
from unirs.errors import MediaError, PluginError
from unirs.tasks.config import TaskConfig
from unirs.tasks.georeference import georeference, read_grid
from unirs.tasks.media import ResizeSpec
from unirs.tasks.raster import NoDataError, Raster
from unirs.tasks.scene import split_scene

Write = Callable[..., Path]


@pytest.fixture
def write(write_geotiff: Write) -> Write:
    return write_geotiff


def bands(*rows: list[float], dtype: str = "uint16") -> np.ndarray:
    """Bands of one row each, [C, 1, W]."""
    return np.array(rows, dtype)[:, None]


def pixels(media: Image | Pair | Series | Video, fill: tuple[int, int, int] = (0, 0, 0)) -> list[Any]:
    """Red, green and blue of the first row of each frame."""
    return [frame[:, 0].T.tolist() for frame in media.load_frames(None, ResizeSpec(fill=fill))]


def test_bands_and_range_of_values(write: Write) -> None:
    path = write("scene.tif", bands([0, 10], [0, 1000], [0, 2000], [3000, 6000]))
    (row,) = pixels(Image(path, bands=[4, 3, 2], value_range=[0, 3000]))
    assert row == [[255, 0, 0], [255, 170, 85]]
    (row,) = pixels(Image(path, bands=[1], value_range=[0, 100]))
    assert row == [[0, 0, 0], [26, 26, 26]]
    (row,) = pixels(Image(path, bands=[4, 3, 2], value_range=[[3000, 6000], [0, 2000], [0, 4000]]))
    assert row == [[0, 0, 0], [255, 255, 64]]
    assert Image(path.read_bytes(), bands=[1], value_range=[0, 100]).load_frames().sum() == 78


def test_percentiles_of_each_band_without_nodata(write: Write) -> None:
    ramp = list(range(100, 201))
    path = write("scene.tif", bands([0, *ramp], [0, *(10 * one for one in ramp)], [0, *ramp]), nodata=0)
    (row,) = pixels(Image(path, stretch=[10, 90]), fill=(9, 8, 7))
    assert row[0] == [9, 8, 7]
    # The 10th percentile of 100..200 is 110, the 90th 190.
    assert [row[1 + index] for index in (10, 50, 90)] == [[0] * 3, [128] * 3, [255] * 3]
    assert row[1] == [0] * 3
    assert row[-1] == [255] * 3


def test_float_with_nan(write: Write) -> None:
    path = write("ndvi.tif", bands([np.nan, -1, 0, 1, np.inf], dtype="float32"), nodata=np.nan)
    (row,) = pixels(Image(path, value_range=[-1, 1]), fill=(1, 2, 3))
    assert row == [[1, 2, 3], [0] * 3, [128] * 3, [255] * 3, [1, 2, 3]]
    (row,) = pixels(Image(write("equal.tif", bands([5, 5], dtype="float64")), stretch=[2, 98]))
    assert row == [[0] * 3] * 2


def test_bytes_stay_as_they_are(write: Write) -> None:
    path = write("rgbn.tif", bands([1], [2], [3], [4], dtype="uint8"))
    assert pixels(Image(path, bands=[4, 1, 2])) == [[[4, 1, 2]]]
    assert pixels(Image(path, bands=[3])) == [[[3, 3, 3]]]


@pytest.mark.parametrize("make", [Pair, lambda *paths, **raster: Series(paths, **raster)], ids=["pair", "series"])
def test_times_share_the_stretch(write: Write, make: Callable[..., Any]) -> None:
    before, after = write("before.tif", bands([0, 100])), write("after.tif", bands([100, 200]))
    assert pixels(make(before, after, stretch=[0, 100])) == [[[0] * 3, [128] * 3], [[128] * 3, [255] * 3]]
    frames = Video([before, after], stretch=[0, 100])
    assert pixels(frames) == pixels(make(before, after, stretch=[0, 100]))


def test_window_is_read_alone(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(64 * 64, dtype="uint16").reshape(1, 64, 64)
    path = write("tiled.tif", values, tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    image = Image(path, value_range=[0, 255], window=[2, 1, 5, 3])
    assert image.load_frames()[0, 0].tolist() == values[0, 1:4, 2:7].clip(0, 255).tolist()
    assert image.sources == (f"{path} [2, 1, 5, 3]",)
    # The pixel limit is that of the window.
    monkeypatch.setenv("UNIRS_MAX_PIXELS", "1024")
    assert image.load_frames().shape == (1, 3, 3, 5)
    with pytest.raises(MediaError, match=r"more than 1,024 pixels \(64x64\)"):
        Image(path, value_range=[0, 255]).load_frames()
    with pytest.raises(MediaError, match="do not contain this window"):
        Image(path, value_range=[0, 255], window=[60, 0, 5, 5]).load_frames()


def test_block_larger_than_the_limit(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        "deep.tif", np.zeros((20, 64, 64), "uint8"), interleave="pixel", tiled=True, blockxsize=64, blockysize=64
    )
    monkeypatch.setenv("UNIRS_MAX_PIXELS", "8000")
    with pytest.raises(MediaError, match=r"A block of Image .* more than 8,000 pixels"):
        Image(path, bands=[1], window=[0, 0, 8, 8]).load_frames()


def test_no_data_at_all(write: Write) -> None:
    path = write("empty.tif", bands([7, 7]), nodata=7)
    with pytest.raises(NoDataError, match="has no data"):
        Image(path, stretch=[2, 98]).load_frames()


def test_media_with_options_pickle_and_have_their_own_key(write: Write) -> None:
    path = write("scene.tif", bands([1], [2], [3]))
    options: list[dict[str, Any]] = [{"stretch": [2, 98]}, {"stretch": [1, 99]}, {"value_range": [0, 9]}]
    options += [{"bands": [3, 2, 1], "value_range": [0, 9]}, {"value_range": [0, 9], "window": [0, 0, 1, 1]}]
    media = [Image(path, **one) for one in options]
    assert len({one.content_key() for one in [*media, Image(path)]}) == 6
    assert len(set(media)) == 5
    assert pickle.loads(pickle.dumps(media)) == media  # noqa: S301
    assert Image(path, bands=(3, 2, 1), value_range=(0, 9)) == media[3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": [1, 2]}, "bands is .* one or three bands"),
        ({"bands": [0]}, "bands is"),
        ({"bands": "432"}, "bands is"),
        ({"bands": [True]}, "bands is"),
        ({"stretch": [98, 2]}, "two percentiles"),
        ({"stretch": [2, 101]}, "two percentiles"),
        ({"stretch": [2, float("nan")]}, "two percentiles"),
        ({"stretch": [2, 98], "value_range": [0, 1]}, "exclude each other"),
        ({"value_range": [5, 5]}, "value_range is"),
        ({"value_range": []}, "value_range is"),
        ({"value_range": [0, float("inf")]}, "value_range is"),
        ({"window": [0, 0, 0, 5]}, "window is"),
        ({"window": [-1, 0, 5, 5]}, "window is"),
        ({"bands": [5], "stretch": [2, 98]}, "has 4 bands. Name one or three"),
        ({"stretch": [2, 98]}, "has 4 bands. Name one or three"),
        ({"bands": [1]}, "values of type uint16. Set 'stretch"),
        ({"bands": [1], "value_range": [[0, 1], [0, 2]]}, "2 ranges, the bands are 1"),
    ],
)
def test_options_out_of_range(write: Write, options: dict[str, Any], message: str) -> None:
    path = write("scene.tif", bands([1], [2], [3], [4]))
    with pytest.raises(MediaError, match=message):
        Image(path, **options).load_frames()


def test_other_inputs_are_refused(write: Write, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", tmp_path, tmp_path / "missing.tif", b"", b"II*\0"):
        with pytest.raises(MediaError, match=r"does not decode|does not exist"):
            Image(source, bands=[1]).load_frames()
    with pytest.raises(MediaError, match="do not apply to pixels in memory"):
        Image(np.zeros((4, 4, 3), "uint8"), bands=[1]).load_frames()
    with pytest.raises(MediaError, match="do not apply to the video file"):
        Video(tmp_path / "a.mp4", bands=[1]).load_frames()
    path = write("complex.tif", bands([1], dtype="complex64"))
    with pytest.raises(MediaError, match="has complex values"):
        Image(path, stretch=[2, 98]).load_frames()
    path = write("scene.tif", np.ones((1, 40, 40), "uint16"))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(MediaError, match="does not decode"):
        Image(path, stretch=[2, 98]).load_frames()


def test_only_geotiff_is_opened(write: Write, tmp_path: Path) -> None:
    scene = write("scene.tif", bands([1], dtype="uint8"))
    vrt = f"""<VRTDataset rasterXSize="1" rasterYSize="1">
        <SRS>EPSG:32633</SRS><GeoTransform>5e5,10,0,5e6,0,-10</GeoTransform><VRTRasterBand dataType="Byte" band="1">
        <SimpleSource><SourceFilename>{scene}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""
    (tmp_path / "vrt.tif").write_text(vrt)
    with rasterio.open(tmp_path / "vrt.tif") as file:
        assert file.driver == "VRT"  # what GDAL makes of it without the limit
    for source in (tmp_path / "vrt.tif", vrt.encode()):
        with pytest.raises(MediaError, match="not recognized"):
            Image(source, bands=[1]).load_frames()
    assert georeference(str(tmp_path / "vrt.tif")) is None


def test_without_rasterio(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("scene.tif", bands([1], dtype="uint8"))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(MediaError, match=r"pip install 'unirs\[geo\]'"):
        Image(path, bands=[1]).load_frames()
    assert georeference(str(path)) is None


@pytest.mark.parametrize(
    "name", ["/vsicurl/http://127.0.0.1:9/a.tif", "http://127.0.0.1:9/a.tif", "zip://a.zip!a.tif", "GTIFF_DIR:1:a.tif"]
)
def test_no_urls_and_archives(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError, match=r"virtual file system|does not exist"):
        Image(name, bands=[1]).load_frames()


def test_files_beside_an_image_have_no_effect(write: Write, tmp_path: Path) -> None:
    plain = {"crs": None, "transform": None}
    path = write("scene.tif", np.full((1, 8, 8), 7, "uint8"), **plain)
    write("scene.tif.msk", np.zeros((1, 8, 8), "uint8"), **plain)
    write("scene.tif.ovr", np.zeros((1, 4, 4), "uint8"), **plain)
    (tmp_path / "scene.tfw").write_text("10\n0\n0\n-10\n500000\n5000000\n")
    (tmp_path / "scene.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32633</SRS><PAMRasterBand band='1'><NoDataValue>7</NoDataValue></PAMRasterBand>"
        "</PAMDataset>"
    )
    assert (Image(path, bands=[1]).load_frames() == 7).all()
    assert read_grid(path).crs is None
    assert {entry.name for entry in os.scandir(tmp_path)} == {
        "scene.tif", "scene.tfw", "scene.tif.aux.xml", "scene.tif.msk", "scene.tif.ovr"
    }  # fmt: skip


def test_georeference(write: Write) -> None:
    path = write("scene.tif", np.ones((1, 20, 30), "uint8"))
    assert georeference(str(path)) == ([500_000, 4_999_800, 500_300, 5_000_000], "EPSG:32633")
    polygon = read_grid(path).polygon((0, 0, 10, 20))
    (ring,) = polygon["coordinates"]
    assert ring[0] == ring[-1]
    assert np.allclose(ring[:3], [[15, 45.1534772], [15, 45.1516763], [15.0012721, 45.1516763]], atol=1e-6)
    turned = write(
        "turned.tif", np.ones((1, 20, 30), "uint8"), transform=Affine(10, 0, 5e5, 0, -10, 5e6) @ Affine.rotation(30)
    )
    low_x, low_y, high_x, high_y = read_grid(turned).bounds()
    assert (round(high_x - low_x), round(high_y - low_y)) == (360, 323)
    flipped = write("south_up.tif", np.ones((1, 20, 30), "uint8"), transform=Affine(10, 0, 5e5, 0, 10, 5e6))
    for grid in (read_grid(turned), read_grid(flipped)):
        (ring,) = grid.polygon((0, 0, 10, 20))["coordinates"]
        assert sum((u - x) * (v + y) for (x, y), (u, v) in pairwise(ring)) < 0  # against the clock
    plain = write("plain.tif", np.ones((1, 2, 2), "uint8"), crs=None, transform=None)
    assert georeference(str(plain)) is None


def test_tiles_of_a_large_scene_share_percentiles_of_a_sample(write: Write) -> None:
    ramp = np.broadcast_to(np.arange(1200, dtype="uint16")[:, None], (1, 1200, 1200))
    path = write("large.tif", ramp, tiled=True)
    _, tiles = split_scene([path], Raster(stretch=(10, 90)), 600)
    assert [window for window, _ in tiles] == [(0, 0, 600, 600), (600, 0, 600, 600), (0, 600, 600, 600), (600,) * 4]
    ranges = {one.raster.value_range for _, one in tiles}  # type: ignore[attr-defined]
    (((low, high),),) = ranges
    assert (low, high) == (pytest.approx(120, abs=30), pytest.approx(1080, abs=30))


def test_antimeridian(write: Write) -> None:
    globe = {"crs": "EPSG:3832", "transform": Affine(100_000, 0, 3_200_000, 0, -100_000, 0)}
    path = write("pacific.tif", np.ones((1, 4, 4), "uint8"), **globe)
    shape = read_grid(path).polygon((0, 0, 4, 4))
    assert shape["type"] == "MultiPolygon"
    assert all(-180 <= x <= 180 for (ring,) in shape["coordinates"] for x, _ in ring)


def test_every_task_takes_the_options(write: Write, tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        for label in ("field", "water"):
            folder = tmp_path / "scenes" / name / label
            folder.mkdir(parents=True)
            write(f"scenes/{name}/{label}/1.tif", bands([0, 50], [0, 100], [0, 200], dtype="uint16"))
    spec = {"name": "scene_folder", "root": tmp_path / "scenes"}
    with pytest.raises(MediaError, match="options of an image, of a task's 'raster'"):
        TaskConfig.from_config(spec).task.load_split("train")[0].media.load_frames()
    raster = {"bands": [3, 2, 1], "value_range": [0, 200]}
    sample = TaskConfig.from_config(spec | {"raster": raster}).task.load_split("train")[0]
    assert sample.media == Image(sample.media.sources[0], bands=[3, 2, 1], value_range=[0, 200])
    assert pixels(sample.media) == [[[0, 0, 0], [255, 128, 64]]]
    for wrong, message in (({"band": [1]}, "band"), ({"bands": ["x"]}, "bands"), ({"stretch": [9, 1]}, "stretch is")):
        with pytest.raises(PluginError, match=message):
            TaskConfig.from_config(spec | {"raster": wrong})
    assert create_task("scene_folder", root=tmp_path / "scenes").load_split("test")[0].media.raster is None  # type: ignore[attr-defined]
