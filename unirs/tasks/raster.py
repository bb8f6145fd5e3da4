"""Pixels of GeoTIFF files: bands, windows, and ranges of values that become 8-bit images. Needs `unirs[geo]`."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from unirs.errors import MediaError
from unirs.tasks.image_source import InMemory, Source, check_pixels, decoding
from unirs.utils.io import check_regular

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image

Window: TypeAlias = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

Range: TypeAlias = tuple[float, float]

_WINDOWS, _WINDOW_SIZE = 8, 128
"""Windows in a row and in a column, and their size, of the sample of a scene whose percentiles are computed."""

# No other file than the named one is read: no sidecar with overviews, masks or statistics, no world file.
_GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    # Megabytes of decoded blocks in each process; 5 % of the memory by default.
    "GDAL_CACHEMAX": 256,
}


class NoDataError(MediaError):
    """All pixels of an image are nodata."""


class RasterArgs(TypedDict, total=False):
    """Arguments of `Raster`, which media take as keywords."""

    bands: Sequence[int] | None
    stretch: Sequence[float] | None
    value_range: Sequence[float] | Sequence[Sequence[float]] | None
    window: Sequence[int] | None


@dataclass(frozen=True)
class Raster:
    """Which pixels of GeoTIFF files are read, and how they become 8-bit images. Pixels without data get the fill color.

    Attributes:
        bands: numbers of the bands, from 1: red, green and blue, or one that becomes gray; all by default, if a file
            has one or three.
        stretch: percentiles, such as `[2, 98]`, of each band that become black and white. The images of a pair, a
            series or a video share them.
        value_range: values that become black and white, such as `[0, 3000]`, or two for each band; instead of
            `stretch`.
        window: left, top, width and height of the pixels to read; all by default.
    """

    bands: tuple[int, ...] | None = None
    stretch: tuple[float, float] | None = None
    value_range: tuple[float, float] | tuple[tuple[float, float], ...] | None = None
    window: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("bands", "stretch", "value_range", "window"):
            object.__setattr__(self, name, _as_tuple(getattr(self, name)))
        bands, window = self.bands, self.window
        if bands is not None and not (_are(int, bands) and len(bands) in (1, 3) and min(bands) > 0):
            raise MediaError(f"bands is {_text(bands)}. Name one or three bands by number, from 1, such as [4, 3, 2].")
        if self.stretch is not None and self.value_range is not None:
            raise MediaError("stretch and value_range exclude each other. Set one.")
        if self.stretch is not None and not (_is_range(self.stretch) and 0 <= self.stretch[0] < self.stretch[1] <= 100):
            raise MediaError(f"stretch is {_text(self.stretch)}. Set two percentiles from 0 to 100, such as [2, 98].")
        if self.value_range is not None and not (
            _is_range(self.value_range) or (self.value_range and all(map(_is_range, self.value_range)))
        ):
            raise MediaError(
                f"value_range is {_text(self.value_range)}. Set the values of black and white, such as [0, 3000], or "
                "two for each band."
            )
        if window is not None and not (_are(int, window) and len(window) == 4 and min(window) >= 0 < min(window[2:])):
            raise MediaError(f"window is {_text(window)}. Set left, top, width and height in pixels.")

    @classmethod
    def from_args(cls, given: RasterArgs) -> Raster | None:
        """The options that are given as keywords of media; None if there are none.

        Raises:
            MediaError: An option is out of range.
        """
        return cls(**given) if given else None  # type: ignore[arg-type]

    def ranges(self, num_bands: int) -> list[Range] | None:
        """`value_range` of each band; None if it is not set."""
        if self.value_range is None:
            return None
        given: Any = self.value_range
        ranges: list[Range] = [given] * num_bands if _is_range(given) else list(given)
        if len(ranges) != num_bands:
            raise MediaError(
                f"value_range has {len(ranges)} ranges, the bands are {num_bands}. Set one for each, or for all."
            )
        return ranges


def _as_tuple(value: Any) -> Any:  # noqa: ANN401 - of any type, which is checked after
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return value
    return tuple(map(_as_tuple, value))


def _are(kind: type | tuple[type, ...], values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(one, kind) and not isinstance(one, bool) for one in values)


def _is_range(value: object) -> bool:
    """Whether a value is two finite numbers in ascending order."""
    if not isinstance(value, tuple) or len(value) != 2 or not _are((int, float), value):
        return False
    return all(map(math.isfinite, value)) and value[0] < value[1]


def _text(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else repr(value)


def open_rasters(sources: Sequence[Source], raster: Raster, fill: tuple[int, int, int]) -> list[PIL.Image.Image]:
    """Reads GeoTIFF files as RGB; percentiles are those of all together.

    Args:
        sources: Files, or files in memory.
        raster: Which pixels, and their range.
        fill: Color of pixels without data, or that are not finite, which do not count in percentiles.

    Raises:
        NoDataError: A file has no data in any pixel that is read.
        MediaError: A file is missing or no GeoTIFF, has no such bands or window, needs `stretch` or `value_range`, or
            more than `max_pixels` pixels are to be read; or `unirs[geo]` is not installed.
    """
    import numpy as np
    import PIL.Image

    read = [_read(source, raster) for source in sources]
    for (values, valid), source in zip(read, sources, strict=True):
        if not valid.any():
            raise NoDataError(f"Image {source}{_where(raster)} has no data. Remove it, or choose another window.")
        if len(values) != len(read[0][0]):
            raise MediaError(f"{sources[0]} has {len(read[0][0])} bands, {source} {len(values)}. Set 'bands'.")
    ranges = _ranges(read, raster, str(sources[0]))
    images = []
    for values, valid in read:
        pixels = np.empty((*values.shape[1:], 3), np.uint8)
        for channel, color in enumerate(fill):
            band = channel % len(values)
            scaled = values[band] if ranges is None else _scale(values[band], *ranges[band])
            pixels[..., channel] = np.where(valid[band], scaled, color)
        images.append(PIL.Image.fromarray(pixels))
    return images


def with_scene_range(sources: Sequence[Source], raster: Raster, size: tuple[int, int]) -> Raster:
    """The same options with a fixed range of values in place of percentiles: those of a sample of whole scenes.

    The sample of scenes that are larger than 1024x1024 is 8 x 8 windows of 128x128 pixels; `size` is height and width.
    """
    if raster.stretch is None:
        return raster
    height, width = size
    windows: list[Window] = [(0, 0, width, height)]
    if height * width > (_WINDOWS * _WINDOW_SIZE) ** 2:
        rows, columns = min(height, _WINDOW_SIZE), min(width, _WINDOW_SIZE)
        tops, lefts = (
            [index * (length - side) // (_WINDOWS - 1) for index in range(_WINDOWS)]
            for length, side in ((height, rows), (width, columns))
        )
        windows = [(left, top, columns, rows) for top in tops for left in lefts]
    read = [_read(source, replace(raster, window=window)) for source in sources for window in windows]
    if not any(valid.any() for _, valid in read):
        raise NoDataError(
            f"Image {sources[0]} has no data in a sample of its pixels. Set a 'value_range' (--value-range)."
        )
    ranges = _ranges(read, raster, str(sources[0])) or []
    # All values of a band may be equal.
    return Raster(raster.bands, value_range=tuple((low, high if high > low else low + 1) for low, high in ranges))


def _ranges(read: Sequence[tuple[np.ndarray, np.ndarray]], raster: Raster, name: str) -> list[Range] | None:
    """The values of each band that become 0 and 255; None for bytes that stay as they are."""
    import numpy as np

    num_bands = len(read[0][0])
    fixed = raster.ranges(num_bands)
    if fixed is not None:
        return fixed
    if raster.stretch is None:
        if any(values.dtype != np.uint8 for values, _ in read):
            raise MediaError(
                f"Image {name} has values of type {read[0][0].dtype}. Set 'stretch: [2, 98]' for percentiles, or a "
                "'value_range', the same for all images of a data set (--stretch, --value-range)."
            )
        return None
    ranges = []
    for band in range(num_bands):
        valid = np.concatenate([values[band][mask[band]] for values, mask in read])
        low, high = np.percentile(valid, raster.stretch) if len(valid) else (0, 0)
        ranges.append((float(low), float(high)))
    return ranges


def _scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    import numpy as np

    kind = np.float32 if values.dtype.itemsize <= 2 else np.float64
    # Values that are not finite are not shown.
    scaled = np.nan_to_num(values.astype(kind).clip(low, high), copy=False) - kind(low)
    # All values of a band may be equal.
    pixels: np.ndarray = np.rint(scaled * kind(255 / ((high - low) or 1))).astype(np.uint8)
    return pixels


def _read(source: Source, raster: Raster) -> tuple[np.ndarray, np.ndarray]:
    """Values `[C, H, W]`, and bool whether they are data."""
    import numpy as np

    name = f"Image {source}{_where(raster)}"
    with open_geotiff(source, name) as dataset:
        from rasterio.enums import Interleaving
        from rasterio.windows import Window as RasterioWindow

        bands = raster.bands or tuple(range(1, dataset.count + 1))
        if len(bands) not in (1, 3) or max(bands) > dataset.count:
            raise MediaError(f"{name} has {dataset.count} bands. Name one or three of them with 'bands' (--bands).")
        types = [dataset.dtypes[band - 1] for band in bands]
        if any("complex" in kind for kind in types):
            raise MediaError(f"{name} has complex values. Convert it, for example to amplitudes.")
        left, top, width, height = raster.window or (0, 0, dataset.width, dataset.height)
        if left + width > dataset.width or top + height > dataset.height:
            raise MediaError(
                f"{name}: the file has {dataset.width}x{dataset.height} pixels, which do not contain this window. "
                "Choose another one."
            )
        check_pixels(name, width, height)
        # A block is decompressed as a whole.
        rows, columns = dataset.block_shapes[bands[0] - 1]
        check_pixels(
            f"A block of {name}", rows * (dataset.count if dataset.interleaving == Interleaving.pixel else 1), columns
        )
        window = RasterioWindow(left, top, width, height)
        values = dataset.read(bands, window=window)
        valid = dataset.read_masks(bands, window=window) > 0
    return values, valid & np.isfinite(values)


def _where(raster: Raster) -> str:
    return "" if raster.window is None else f" {list(raster.window)}"


@contextmanager
def open_geotiff(source: Source, name: str) -> Iterator[Any]:
    """Opens a GeoTIFF, with no other driver of GDAL: others follow references to other files and to URLs.

    `name` is for messages.
    """
    with ExitStack() as stack:
        stack.enter_context(gdal_errors(name))
        import rasterio

        if isinstance(source, InMemory):
            if source.size is not None:
                raise MediaError(
                    f"Options of a raster do not apply to pixels in memory ({source}). Pass a GeoTIFF file."
                )
            file = stack.enter_context(rasterio.MemoryFile(source.data))
            yield stack.enter_context(file.open(driver="GTiff"))
            return
        check_regular(source)
        # Absolute, so that no name is taken for a URL or a name of a dataset in a file.
        path = os.path.abspath(source)  # noqa: PTH100 - links are not followed
        if path.startswith("/vsi"):
            raise MediaError(f"{name} is in a virtual file system of GDAL. Copy the file, and name the copy.")
        if not source.is_file():
            raise FileNotFoundError(path)
        yield stack.enter_context(rasterio.open(path, driver="GTiff"))


@contextmanager
def gdal_errors(name: str) -> Iterator[None]:
    """Turns what a block raises in GDAL into a `MediaError`."""
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning
    except ImportError as error:
        raise MediaError(f"{name} is read as a GeoTIFF, which needs rasterio: pip install 'unirs[geo]'.") from error
    with warnings.catch_warnings(), rasterio.Env(**_GDAL_OPTIONS), decoding(name):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
