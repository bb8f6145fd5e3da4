"""Georeferences of GeoTIFF files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from unirs.errors import MediaError
from unirs.tasks.image_source import Source
from unirs.tasks.raster import Window, gdal_errors, open_geotiff


@dataclass(frozen=True)
class Grid:
    """Pixel grid and georeference of a file.

    Attributes:
        width: Number of columns.
        height: Number of rows.
        crs: Coordinate reference system, as `EPSG:<code>` or WKT; None without a georeference.
        transform: a, b, c, d, e, f: x = a column + b row + c, y = d column + e row + f.
    """

    width: int
    height: int
    crs: str | None
    transform: tuple[float, ...]

    def corners(self, window: Window | None = None) -> list[tuple[float, float]]:
        """Coordinates of the corners of a window, by default of all pixels: the first pixel's, then around."""
        a, b, c, d, e, f = self.transform
        left, top, width, height = window or (0, 0, self.width, self.height)
        pixels = ((left, top), (left, top + height), (left + width, top + height), (left + width, top))
        return [(a * column + b * row + c, d * column + e * row + f) for column, row in pixels]

    def bounds(self, window: Window | None = None) -> list[float]:
        """Smallest x and y, then greatest x and y, of a window in the reference system; by default of all pixels."""
        xs, ys = zip(*self.corners(window), strict=True)
        return [min(xs), min(ys), max(xs), max(ys)]

    def polygon(self, window: Window) -> dict[str, Any]:
        """A window as GeoJSON (RFC 7946): longitude and latitude in WGS84, cut at the antimeridian."""
        ring = self.corners(window)
        shape: dict[str, Any] = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
        with gdal_errors("The georeference of a scene"):
            from rasterio.warp import transform_geom

            shape = dict(transform_geom(self.crs, "OGC:CRS84", shape, precision=8))
        found: Any = shape["coordinates"]
        for polygon in found if shape["type"] == "MultiPolygon" else [found]:
            polygon[:] = [one if _signed_area(one) > 0 else one[::-1] for one in polygon]
        return shape


def _signed_area(ring: Sequence[tuple[float, float]]) -> float:
    """Twice the area, positive for a ring against the clock."""
    return sum(x * v - u * y for (x, y), (u, v) in pairwise([*ring, ring[0]]))


def read_grid(source: Source) -> Grid:
    """Pixel grid and georeference of a GeoTIFF; errors are those of `open_rasters`."""
    with open_geotiff(source, f"Image {source}") as dataset:
        # A file without a georeference has the identity as transform, maybe with a reference system.
        crs = dataset.crs.to_string() if dataset.crs and not dataset.transform.is_identity else None
        return Grid(dataset.width, dataset.height, crs, tuple(dataset.transform)[:6])


def georeference(source: str, window: Window | None = None) -> tuple[list[float], str] | None:
    """Bounds and reference system of a GeoTIFF or a window of it; None for other files and without `unirs[geo]`."""
    if Path(source).suffix.lower() not in (".tif", ".tiff"):
        return None
    try:
        grid = read_grid(Path(source))
    except MediaError:
        # No GeoTIFF, such as a TIFF that only Pillow decodes.
        return None
    return None if grid.crs is None else (grid.bounds(window), grid.crs)
