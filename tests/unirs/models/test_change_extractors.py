from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from unirs.errors import ModelError
from unirs.models.change_extractors import ChangeExtraction, Concat, Difference
from unirs.models.convert_weights import UNIRS_PROJECTOR, rename
from unirs.models.projectors import DownsampleProjector

GOLDEN = Path(__file__).parents[2] / "golden" / "unirs_reference_projector.safetensors"


@pytest.mark.parametrize(("parity", "side"), [("even", 6), ("odd", 7)])
@torch.no_grad()
def test_published_module(parity: str, side: int) -> None:
    golden = {
        key.removeprefix(f"{parity}/"): value for key, value in load_file(GOLDEN).items() if key.startswith(parity)
    }
    published = {key.replace("weights/", "layers."): value for key, value in golden.items() if "weights/" in key}
    weights = rename(published, UNIRS_PROJECTOR)
    module = nn.ModuleDict(
        {
            "change": ChangeExtraction((side, side), dim=32),
            "projector": DownsampleProjector((side, side), dim=32, out=48),
        }
    )
    module.eval().load_state_dict(weights)
    change, projector = module["change"], module["projector"]

    fused = change(golden["pair/before"], golden["pair/after"])
    torch.testing.assert_close(fused, golden["pair/change"], atol=1e-5, rtol=0)
    torch.testing.assert_close(projector(fused), golden["pair/projected"], atol=1e-5, rtol=0)
    for modality in ("image", "video"):
        torch.testing.assert_close(
            projector(golden[f"{modality}/features"]), golden[f"{modality}/projected"], atol=1e-5, rtol=0
        )


def pairs(count: int = 2, grid: tuple[int, int] = (3, 4), dim: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    before, after = torch.randn(2, count, grid[0] * grid[1], dim, generator=generator)
    return before, after


def differ(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a - b).abs().max().item() > 1e-3


@pytest.mark.parametrize("n_layers", [0, 2])
def test_fuses_to_one_image_and_depends_on_the_order(n_layers: int) -> None:
    torch.manual_seed(0)
    change = ChangeExtraction((3, 4), 16, n_layers=n_layers, heads=4).eval()
    before, after = pairs()
    fused = change(before, after)
    assert fused.shape == before.shape
    assert differ(fused, change(after, before))


@pytest.mark.parametrize("n_layers", [0, 1])
def test_layers_attend_across_positions(n_layers: int) -> None:
    torch.manual_seed(0)
    change = ChangeExtraction((3, 4), 16, n_layers=n_layers, heads=4).eval()
    before, after = pairs()
    elsewhere = after.clone()
    elsewhere[:, 1:] = 0
    first, second = (change.similarity(before, other)[:, 0, 0] for other in (after, elsewhere))
    assert differ(first, second) == (n_layers > 0)
    change(before, after).sum().backward()
    assert [name for name, parameter in change.named_parameters() if parameter.grad is None] == []


def test_position_matters() -> None:
    torch.manual_seed(0)
    change = ChangeExtraction((1, 4), 16).eval()
    same = torch.ones(1, 4, 16)
    assert differ(change(same, same)[:, 1], change(same, same)[:, 2])


def test_similarity() -> None:
    torch.manual_seed(0)
    change = ChangeExtraction((3, 4), 16).eval()
    before, after = pairs()
    after[:, 5:] = before[:, 5:]
    similarity = change.similarity(before, after)
    assert similarity.shape == (2, 3, 4)
    torch.testing.assert_close(similarity.flatten(1)[:, 5:], torch.ones(2, 7))
    assert similarity.flatten(1)[:, :5].max() < 0.99
    assert similarity.abs().max() <= 1 + 1e-6


def test_few_pairs_are_normalised_as_in_evaluation() -> None:
    torch.manual_seed(0)
    change = ChangeExtraction((3, 4), 16, min_pairs=4)
    change(*pairs(8))
    before, after = pairs(1)
    statistics = {key: value.clone() for key, value in change.state_dict().items() if "running" in key}
    training = change(before, after)
    training.sum().backward()
    assert all(torch.equal(change.state_dict()[key], value) for key, value in statistics.items())
    assert change.residual[1].weight.grad is not None
    torch.testing.assert_close(training, change.eval()(before, after))


def test_many_pairs_are_normalised_by_their_own_statistics() -> None:
    torch.manual_seed(0)
    change = ChangeExtraction((3, 4), 16, min_pairs=4)
    before, after = pairs(4)
    training = change(before, after)
    assert change.state_dict()["residual.1.running_mean"].abs().max() > 0
    assert differ(training, change.eval()(before, after))


def test_odd_width() -> None:
    with pytest.raises(ModelError, match=r"even width.*dim=15"):
        ChangeExtraction((3, 4), 15)


def test_difference() -> None:
    before, after = pairs()
    assert torch.equal(Difference((3, 4), 16)(before, after), after - before)


def test_concat() -> None:
    before, after = pairs()
    concat = Concat((3, 4), 16)
    fused = concat(before, after)
    assert fused.shape == before.shape
    assert differ(fused, concat(after, before))
    torch.testing.assert_close(fused[:, :2], concat(before[:, :2], after[:, :2]))
