"""Muon compared with its definition, and with PyTorch's, computed in float32."""

import pytest
import torch
from torch import nn

from unirs.errors import ModelError
from unirs.training.muon import Muon, orthogonalize


def muon(model: nn.Sequential) -> Muon:
    matrices = {"params": [layer.weight for layer in model], "muon": True}
    others = {"params": [layer.bias for layer in model], "muon": False, "weight_decay": 0.0}
    return Muon([matrices, others], lr=0.01, weight_decay=0.1, betas=(0.9, 0.95))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 24), nn.Linear(24, 40), nn.Linear(40, 24), nn.Linear(24, 24))


def train(model: nn.Sequential, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(64, 24, generator=generator)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 16, 16)])
def test_singular_values_become_one_and_singular_vectors_stay(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    in_basis = u.mT @ orthogonalize(matrices) @ v.mT
    diagonal = in_basis.diagonal(dim1=1, dim2=2)
    assert diagonal.min() > 0.6
    assert diagonal.max() < 1.3
    assert (in_basis - torch.diag_embed(diagonal)).abs().max() < 1e-4


def test_matrices_move_as_with_pytorchs_muon_and_the_rest_as_with_adamw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "bfloat16", torch.float32)
    ours, theirs = network(), network()
    train(ours, muon(ours), 3)
    weights, biases = ([getattr(layer, name) for layer in theirs] for name in ("weight", "bias"))
    pytorchs = torch.optim.Muon(weights, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(biases, lr=0.01, weight_decay=0.0, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        theirs.zero_grad()
        theirs(torch.randn(64, 24, generator=generator)).square().mean().backward()
        pytorchs.step()
        adamw.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_saved_state_continues_to_the_last_bit() -> None:
    whole, parts = network(), network()
    train(whole, muon(whole), 4)
    first = muon(parts)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(64, 24, generator=generator) for _ in range(4)]
    second = muon(parts)
    for index, batch in enumerate(batches):
        if index == 2:
            second.load_state_dict(first.state_dict())
        optimizer = first if index < 2 else second
        optimizer.zero_grad()
        parts(batch).square().mean().backward()
        optimizer.step()
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)


def test_parameters_without_gradient_stay() -> None:
    model = network()
    before = next(model.parameters()).detach().clone()
    muon(model).step()
    (after, *_) = model.parameters()
    assert torch.equal(after, before)


def test_flattened_matrices_are_refused() -> None:
    weight = nn.Parameter(torch.ones(12))
    weight.grad = torch.ones(12)
    with pytest.raises(ModelError, match=r"optim\.muon needs whole matrices, .* the shape \[12\]\. Use the strategy"):
        Muon([{"params": [weight], "muon": True}], lr=0.01, weight_decay=0.0, betas=(0.9, 0.95)).step()
