from typing import Any

import pytest
import timm
import torch
from unirs_encoders.timm_encoder import TimmEncoder, build

from unirs.errors import ModelError
from unirs.interfaces import Encoder

NARROW: dict[str, Any] = {"channels": [16, 16, 32, 64]}


def resnet(layer: int = 3, size: int = 64) -> TimmEncoder:
    return build("resnet18", pretrained=False, frozen=False, layer=layer, size=size, options=NARROW)


def vit(layer: int = -1) -> TimmEncoder:
    options = {"depth": 3, "embed_dim": 24, "num_heads": 2}
    return build("vit_tiny_patch16_224", pretrained=False, frozen=False, layer=layer, size=32, options=options)


def frozen() -> TimmEncoder:
    # As with `pretrained: true`, which would download weights.
    return TimmEncoder(timm.create_model("resnet18", **NARROW), layer=2, size=64, frozen=True)


def noise(count: int = 2, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("layer", "grid", "dim"), [(0, 32, 64), (1, 16, 16), (3, 4, 32), (-1, 2, 64), (-2, 4, 32)])
def test_convolutional_feature_maps(layer: int, grid: int, dim: int) -> None:
    encoder = resnet(layer)
    assert isinstance(encoder, Encoder)
    assert (encoder.size, encoder.grid, encoder.dim) == ((64, 64), (grid, grid), dim)
    assert encoder(noise()).shape == (2, grid * grid, dim)


def test_transformer_tokens() -> None:
    encoder = vit()
    assert (encoder.size, encoder.grid, encoder.dim) == ((32, 32), (2, 2), 24)
    assert encoder(noise(size=32)).shape == (2, 4, 24)


def test_later_layers_are_dropped_and_negative_layers_count_from_the_end() -> None:
    first, last = vit(layer=-3), vit(layer=2)
    assert first.layer == 0
    assert sum(p.numel() for p in first.parameters()) < sum(p.numel() for p in last.parameters())


def test_tokens_go_row_by_row() -> None:
    encoder = resnet(layer=0).eval()
    frames = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    frames[:, :, :8] = 255
    changed = (encoder(frames) - encoder(torch.zeros_like(frames))).abs().sum(-1)[0]
    assert changed[: 4 * 32].min() > 0
    assert changed[8 * 32 :].max() == 0


def test_bytes_are_normalised_as_the_model_expects() -> None:
    model: Any = timm.create_model("resnet18", **NARROW).eval()
    frames = noise()
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = model.forward_intermediates((frames / 255 - mean) / std, indices=[2], intermediates_only=True)[0]
    encoder = TimmEncoder(model, layer=2, size=64, frozen=False).eval()
    torch.testing.assert_close(encoder(frames), expected.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)


def test_trainable_learns() -> None:
    encoder = resnet()
    assert encoder.training
    encoder(noise()).sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_frozen_stays_as_it_is() -> None:
    encoder = frozen()
    # Nothing has called `train` or `eval` yet.
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    first = encoder(noise())
    assert not first.requires_grad
    second = encoder.train()(noise())
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert torch.equal(first, second)
    assert all(torch.equal(encoder.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("layer", [5, -6])
def test_layer_out_of_range(layer: int) -> None:
    with pytest.raises(ModelError, match=rf"Layer {layer} does not exist.* 5 feature maps, -5\.\.4"):
        resnet(layer)


def test_unknown_model() -> None:
    with pytest.raises(ModelError, match=r"no model 'resnet81'.*Did you mean 'resnet18'"):
        build("resnet81", pretrained=False, frozen=False)


def test_unknown_weights() -> None:
    with pytest.raises(ModelError, match=r"'resnet18\.best' do not load.*best"):
        build("resnet18.best")


def test_frozen_and_random() -> None:
    with pytest.raises(ModelError, match=r"'resnet18' is frozen with random weights.*'frozen: false'"):
        build("resnet18", pretrained=False)


def test_unknown_option() -> None:
    with pytest.raises(ModelError, match=r"'resnet18' does not take its options.*chanels"):
        build("resnet18", pretrained=False, frozen=False, options={"chanels": [8]})
