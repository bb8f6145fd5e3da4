"""Tiles of images that are larger than an encoder's frames."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from unirs.tasks.image_source import resize_image

if TYPE_CHECKING:
    import PIL.Image


def tile_grid(size: tuple[int, int], frame: tuple[int, int], max_tiles: int) -> tuple[int, int]:
    """Rows and columns of the tiles of an image; `(0, 0)` for none.

    Of all grids of 2 to `max_tiles` tiles, it is the one whose aspect ratio is most similar to that of the image, and
    of several the largest. There are no more rows or columns than it takes to cover the image with frames.

    Args:
        size: Height and width of the image in pixels.
        frame: Height and width of a frame.
        max_tiles: Maximum number of tiles.
    """
    most_rows, most_columns = (math.ceil(length / side) for length, side in zip(size, frame, strict=True))
    aspect = math.log(size[1] / size[0])

    def distortion(grid: tuple[int, int]) -> tuple[float, int]:
        rows, columns = grid
        return round(abs(math.log(columns * frame[1] / (rows * frame[0])) - aspect), 6), -rows * columns

    rows = range(1, min(most_rows, max_tiles) + 1)
    grids = [(row, column) for row in rows for column in range(1, min(most_columns, max_tiles // row) + 1)]
    return min((grid for grid in grids if grid != (1, 1)), key=distortion, default=(0, 0))


def cut_tiles(
    image: PIL.Image.Image, frame: tuple[int, int], max_tiles: int, mode: str, fill: tuple[int, int, int]
) -> list[PIL.Image.Image]:
    """Resizes an image to the frames of `tile_grid`, and cuts it into these, row by row."""
    rows, columns = tile_grid((image.height, image.width), frame, max_tiles)
    height, width = frame
    if not rows:
        return []
    whole = resize_image(image, (rows * height, columns * width), mode, fill)
    return [
        whole.crop((column * width, row * height, (column + 1) * width, (row + 1) * height))
        for row in range(rows)
        for column in range(columns)
    ]
