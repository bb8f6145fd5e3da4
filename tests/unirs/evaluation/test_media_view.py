"""Media in pages: boxes over images, GeoTIFF options, labels."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml

from unirs.evaluation.box_outlines import box_outlines
from unirs.evaluation.report.content import Card, add_views, saved_media
from unirs.evaluation.report.media_view import media_html, media_of, view_media
from unirs.metrics.base import Prediction
from unirs.metrics.box_text import BoxRule
from unirs.tasks.raster import Raster
from unirs.tasks.series import Series


def card(media: list[Path], text: str, reference: str, other: str | None = None) -> Card:
    row = Prediction("1", "boxes", tuple(map(str, media)), "", "Where?", text, (reference,))
    return Card(row, 0.0, "", ["best"], other=other)


def image(path: Path, width: int = 200, height: int = 100) -> Path:
    PIL.Image.new("RGB", (width, height), (20, 40, 200)).save(path)
    return path


def pixels(uri: str) -> np.ndarray:
    content = base64.b64decode(uri.partition(",")[2])
    return np.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("vrsbench", "{<10><20><40><60>}"),
        ("dior_rsvg", "[20, 20, 80, 60]"),
        ("rotated", "[[10, 20, 40, 60, 0]]"),
    ],
)
def test_outlines_are_shares_of_the_image(rule: BoxRule, text: str) -> None:
    (corners,) = box_outlines(text, rule, (200, 100))
    assert np.allclose(sorted(corners), [(0.1, 0.2), (0.1, 0.6), (0.4, 0.2), (0.4, 0.6)])


@pytest.mark.parametrize("text", ["", "no box", f"{{<0><0><{'9' * 9}><{'9' * 9}>}}", "{<90><90><10><10>}"])
def test_outlines_of_any_answer_are_near_the_image(text: str) -> None:
    assert all(-1 <= number <= 2 for one in box_outlines(text, "vrsbench", (9, 9)) for pair in one for number in pair)


def test_boxes_of_answer_and_reference_differ_and_have_a_legend(tmp_path: Path) -> None:
    one = card([image(tmp_path / "a.png")], "{<50><20><90><60>}", "{<10><20><40><60>}")
    add_views([one], lambda row: media_of(row.media), None)
    page = media_html(one.view, "one")
    polygons = dict(re.findall(r'<polygon class="(.*?)" points="(.*?)"', page))
    assert polygons["box-0"].split()[0] == "10.00,20.00"
    assert polygons["box-1"].split()[0] == "50.00,20.00"
    assert re.findall(r'class="key-(\d)"></span> (\w+)', page) == [("0", "reference"), ("1", "answer")]
    other = card([tmp_path / "a.png"], "{<50><20><90><60>}", "{<10><20><40><60>}", other="nothing")
    add_views([other], lambda row: media_of(row.media), None)
    assert other.view.box_labels == ["reference", "A"]
    plain = card([tmp_path / "a.png"], "{<50><20><90><60>}", "a house")
    add_views([plain], lambda row: media_of(row.media), None)
    assert "polygon" not in media_html(plain.view, "one")


def test_labels_of_a_series_are_shown(tmp_path: Path) -> None:
    files = [image(tmp_path / "a.png"), image(tmp_path / "b.png", 40, 40)]
    page = media_html(view_media(Series(files, ["2016", "<2017>"]), 100_000), "one")
    assert "Image 1, 2016: Image 2, &lt;2017&gt;:" in page


def geotiff(path: Path) -> Path:
    rasterio = pytest.importorskip("rasterio")
    bands = np.zeros((4, 32, 64), np.uint16)
    bands[3, :, 32:] = 3000
    options: dict[str, Any] = {"driver": "GTiff", "width": 64, "height": 32, "count": 4, "dtype": "uint16"}
    with rasterio.open(path, "w", **options) as dataset:
        dataset.write(bands)
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_raster_options_are_those_of_the_task(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif")
    spec = {"name": "jsonl", "label": "boxes", "raster": {"bands": [4, 1, 2], "value_range": [0, 3000]}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": {"tasks": [spec]}}))
    one, plain = card([path], "yes", "yes"), card([path], "yes", "yes")
    add_views([one], saved_media(tmp_path), None)
    shown = pixels(one.view.images[0])
    assert shown[16, 8].max() < 30
    assert shown[16, 56, 0] > 200
    assert shown[16, 56, 1:].max() < 60
    add_views([plain], saved_media(tmp_path / "none"), None)
    assert "does not decode" in plain.view.missing


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_window_of_a_scene_is_read_from_its_source(tmp_path: Path) -> None:
    raster = Raster(bands=(4,), value_range=(0, 3000))
    media = media_of([f"{geotiff(tmp_path / 'a [1].tif')} [32, 0, 32, 32]"], raster)
    assert pixels(view_media(media, 100_000).images[0]).min() > 240
