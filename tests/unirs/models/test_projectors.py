import pytest
import torch
from torch import nn

from unirs.errors import ModelError
from unirs.models.projectors import DownsampleProjector, MlpProjector, PixelShuffleProjector, PoolProjector


@pytest.mark.parametrize(("grid", "tokens"), [((4, 4), 4), ((5, 4), 6), ((3, 5), 6), ((1, 1), 1)])
def test_four_tokens_become_one(grid: tuple[int, int], tokens: int) -> None:
    projector = DownsampleProjector(grid, dim=6, out=10)
    assert projector.num_tokens == tokens
    assert projector(torch.randn(3, grid[0] * grid[1], 6)).shape == (3, tokens, 10)


def test_blocks_and_padding() -> None:
    projector = DownsampleProjector((3, 3), dim=1, out=4)
    # The contents of the blocks, passed through identity layers.
    projector.norm, projector.expand, projector.out = nn.Identity(), nn.Identity(), nn.Identity()  # type: ignore[assignment]
    tokens = torch.arange(1.0, 10).view(1, 9, 1)
    blocks = torch.tensor([[1, 2, 4, 5], [7, 8, 0, 0], [3, 0, 6, 0], [9, 0, 0, 0]])
    assert projector(tokens)[0].tolist() == nn.functional.gelu(blocks.float()).tolist()


def test_images_are_independent() -> None:
    projector = DownsampleProjector((4, 4), dim=6, out=10)
    tokens = torch.randn(3, 16, 6)
    torch.testing.assert_close(projector(tokens)[1:2], projector(tokens[1:2]))


@pytest.mark.parametrize("mlp", [True, False])
@pytest.mark.parametrize(("grid", "scale", "tokens"), [((4, 4), 2, 4), ((6, 3), 3, 2), ((5, 4), 2, 6)])
def test_pixel_shuffle(grid: tuple[int, int], scale: int, tokens: int, mlp: bool) -> None:
    projector = PixelShuffleProjector(grid, dim=6, out=10, scale=scale, mlp=mlp)
    assert projector.num_tokens == tokens
    assert projector(torch.randn(3, grid[0] * grid[1], 6)).shape == (3, tokens, 10)


def test_pixel_shuffle_is_row_by_row() -> None:
    projector = PixelShuffleProjector((4, 4), dim=1, out=4, mlp=False)
    projector.expand.weight.data = torch.eye(4)
    blocks = projector(torch.arange(16.0).view(1, 16, 1))[0]
    assert blocks.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_pool() -> None:
    projector = PoolProjector((4, 4), dim=2, out=2, side=2)
    projector.expand.weight.data = torch.eye(2)
    tokens = torch.arange(32.0).view(1, 16, 2)
    means = torch.stack([tokens[0, [0, 1, 4, 5]].mean(0), tokens[0, [2, 3, 6, 7]].mean(0)])
    torch.testing.assert_close(projector(tokens)[0, :2], means / means.pow(2).mean(1, keepdim=True).sqrt())
    with pytest.raises(ModelError, match="does not pool a grid of 5x4 to 2x2"):
        PoolProjector((5, 4), dim=2, out=2, side=2)


def test_newline_follows_each_image() -> None:
    projector = MlpProjector((2, 3), dim=4, out=5, newline=True)
    projected = projector(torch.randn(2, 6, 4))
    assert projector.newline is not None
    assert projected.shape == (2, projector.num_tokens, 5)
    assert torch.equal(projected[:, -1], projector.newline.expand(2, -1))
