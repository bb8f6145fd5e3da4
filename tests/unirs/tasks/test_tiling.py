from typing import Literal

import pytest
import torch

from unirs import Image, Pair
from unirs.data.batch import num_image_slots
from unirs.tasks.media import ResizeSpec
from unirs.tasks.perturbation import PerturbedMedia
from unirs.tasks.tiling import tile_grid


@pytest.mark.parametrize(
    ("size", "max_tiles", "grid"),
    [
        ((64, 64), 9, (0, 0)),  # not larger than a frame
        ((30, 64), 9, (0, 0)),
        ((128, 128), 0, (0, 0)),
        ((128, 128), 1, (0, 0)),
        ((128, 128), 9, (2, 2)),  # no more than cover the image
        ((640, 640), 9, (3, 3)),
        ((640, 640), 8, (2, 2)),
        ((100, 1000), 4, (1, 4)),
        ((1000, 100), 4, (4, 1)),
        ((65, 64), 4, (2, 1)),
        ((200, 300), 6, (2, 3)),
    ],
)
def test_grid(size: tuple[int, int], max_tiles: int, grid: tuple[int, int]) -> None:
    assert tile_grid(size, (64, 64), max_tiles) == grid


def test_tiles_follow_the_overview_row_by_row() -> None:
    pixels = torch.randint(0, 256, (3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frames = Image(pixels).load_frames((16, 16), ResizeSpec(max_tiles=6))
    assert frames.shape == (7, 3, 16, 16)
    assert torch.equal(frames[:1], Image(pixels).load_frames((16, 16)))
    tiles = [pixels[:, top : top + 16, left : left + 16] for top in (0, 16) for left in (0, 16, 32)]
    assert torch.equal(frames[1:], torch.stack(tiles))


@pytest.mark.parametrize("mode", ["pad", "center_crop"])
def test_tiles_keep_the_aspect_ratio(mode: Literal["pad", "center_crop"]) -> None:
    frames = Image(torch.full((3, 24, 32), 200, dtype=torch.uint8)).load_frames((16, 16), ResizeSpec(mode, max_tiles=4))
    assert frames.shape[0] == 5
    padding = (frames[1:3, :, :4] == 0).all()
    assert bool(padding) == (mode == "pad")


def test_pairs_and_baselines() -> None:
    pixels = torch.full((3, 32, 32), 200, dtype=torch.uint8)
    resize = ResizeSpec(max_tiles=4)
    pair = Pair(pixels, pixels)
    assert len(pair.load_frames((16, 16), resize)) == 2
    image = Image(pixels)
    assert len(image.load_frames(None, resize)) == 1
    # Its features are cached once for all images, so they cannot have tiles.
    blank = PerturbedMedia(image, "blank").load_frames((16, 16), resize)
    assert (len(blank), int(blank.max())) == (1, 0)
    assert num_image_slots(image, fused=True, num_frames=5) == 5
    assert num_image_slots(pair, fused=True, num_frames=2) == 1
