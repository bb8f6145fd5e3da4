"""Scenes: GeoTIFF files that are read tile by tile, and answers about their tiles as GeoJSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unirs.errors import MediaError
from unirs.tasks.georeference import Grid, read_grid
from unirs.tasks.media import Image, Media, Pair
from unirs.tasks.raster import Raster, Window, with_scene_range

_MAX_TILES = 1_000_000


def tile_windows(width: int, height: int, size: int, overlap: int = 0) -> list[Window]:
    """Windows of `size` x `size` pixels that cover a scene, row by row; neighbours share `overlap` pixels.

    The last window of a row or column is moved inwards to end with the scene, so that all are of equal size; a scene
    that is smaller is one window.

    Raises:
        MediaError: `size` or `overlap` is out of range, or there are more than a million tiles.
    """
    if size < 1 or not 0 <= overlap < size:
        raise MediaError(
            f"Tiles of {size} pixels cannot overlap by {overlap}. Set a size of 1 or more, and an overlap below it."
        )
    step = size - overlap
    columns, rows = (1 + max(0, -(-(length - size) // step)) for length in (width, height))
    if columns * rows > _MAX_TILES:
        raise MediaError(f"The scene has {columns * rows:,} tiles, more than {_MAX_TILES:,}. Set a greater size.")
    lefts, tops = (
        [min(index * step, max(length - size, 0)) for index in range(count)]
        for length, count in ((width, columns), (height, rows))
    )
    return [(left, top, min(size, width), min(size, height)) for top in tops for left in lefts]


def split_scene(
    paths: Sequence[Path], raster: Raster | None, size: int, overlap: int = 0
) -> tuple[Grid, list[tuple[Window, Media]]]:
    """The tiles of a scene, or of a pair of scenes on one grid.

    Percentiles of `raster` are those of whole scenes, so that tiles do not differ in contrast.

    Args:
        paths: One GeoTIFF, or those before and after.
        raster: Options of the files; their `window` is replaced.
        size: Height and width of a tile in pixels.
        overlap: Pixels that neighbours share.

    Returns:
        The grid of the scene; and each tile's window and media, row by row.

    Raises:
        MediaError: There are more than two files, they are no GeoTIFF or differ in their grid, or an option is out of
            range.
    """
    if len(paths) > 2 or not all(path.is_file() for path in paths):
        raise MediaError(
            f"Tiles are those of one GeoTIFF, or of two (before, after), not of {', '.join(map(str, paths))}."
        )
    grids = [read_grid(path) for path in paths]
    for path, grid in zip(paths, grids, strict=True):
        if not _is_same(grids[0], grid):
            raise MediaError(
                f"{paths[0]} and {path} differ in their grid: {_describe(grids[0])}; {_describe(grid)}. Resample one "
                "to the grid of the other, for example with 'gdalwarp -t_srs CRS -te BOUNDS -ts WIDTH HEIGHT'."
            )
    windows = tile_windows(grids[0].width, grids[0].height, size, overlap)
    options = with_scene_range(paths, raster or Raster(), (grids[0].height, grids[0].width))
    whole = Image(paths[0]) if len(paths) == 1 else Pair(*paths)
    return grids[0], [(window, whole.with_raster(replace(options, window=window))) for window in windows]


def feature_collection(grid: Grid, rows: Sequence[tuple[Window, Mapping[str, Any]]]) -> dict[str, Any]:
    """GeoJSON (RFC 7946) with a polygon for each window, and its properties."""
    features = [
        {"type": "Feature", "geometry": grid.polygon(window), "properties": dict(properties)}
        for window, properties in rows
    ]
    return {"type": "FeatureCollection", "features": features}


def _is_same(grid: Grid, other: Grid) -> bool:
    if (grid.width, grid.height, grid.crs) != (other.width, other.height, other.crs):
        return False
    # Within a hundredth of a pixel.
    tolerance = 0.01 * math.hypot(grid.transform[0], grid.transform[3])
    return all(math.dist(*corners) <= tolerance for corners in zip(grid.corners(), other.corners(), strict=True))


def _describe(grid: Grid) -> str:
    return f"{grid.width}x{grid.height} pixels, {grid.crs or 'no reference system'}, bounds {grid.bounds()}"
