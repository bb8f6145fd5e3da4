import pytest
import torch
from torch import nn

from unirs.models.projectors import DownsampleProjector


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
