"""Behaviour that all encoder plugins share."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from unirs_encoders import hf_encoder, timm_encoder
from unirs_encoders._shared import FrameEncoder

from unirs.errors import ModelError, PluginError
from unirs.factory import create_encoder
from unirs.interfaces import Encoder
from unirs.models.builder import check_components
from unirs.models.tuning import has_adapters
from unirs.tasks.media import ResizeSpec

Make = Callable[..., FrameEncoder]


def convolutions(**more: object) -> FrameEncoder:
    given: dict[str, Any] = {
        "layer": 3,
        "image_size": 64,
        "options": {"channels": [16, 16, 32, 64]},
        "pretrained": "given",
    }
    return timm_encoder.build("resnet18", **given | more)


def transformer(**more: object) -> FrameEncoder:
    config = {
        "model_type": "dinov3_vit",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_register_tokens": 2,
        "image_size": 64,
    }
    given: dict[str, Any] = {"config": config, "mean": [0.5, 0.25, 0.0], "std": [0.5] * 3, "pretrained": "given"}
    return hf_encoder.build(**given | more)


@pytest.fixture(params=[convolutions, transformer])
def make(request: pytest.FixtureRequest) -> Make:
    torch.manual_seed(0)
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def state(encoder: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in encoder.state_dict().items()}


def test_fits_the_protocol(make: Make, frames: torch.Tensor) -> None:
    encoder = make()
    assert isinstance(encoder, Encoder)
    assert encoder.image_size == (64, 64)
    assert encoder.grid == (4, 4)
    assert encoder(frames).shape == (2, 16, 32)
    check_components(encoder, None)


def test_frozen_does_not_change(make: Make, frames: torch.Tensor) -> None:
    encoder = make()
    # Nothing has called `train` or `eval` yet.
    before = state(encoder)
    first = encoder(frames)
    assert not first.requires_grad
    second = encoder.train()(frames)
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_full_trains_all_weights(make: Make, frames: torch.Tensor) -> None:
    encoder = make(tune="full", pretrained=False)
    assert encoder.training
    encoder(frames).square().sum().backward()
    # Data parallel training waits for a gradient of every weight.
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    # What cannot learn is kept with what does.
    assert make is convolutions or "tower.model.embeddings.mask_token" in dict(encoder.named_buffers())
    make().load_state_dict(encoder.state_dict())
    assert not encoder.eval().training


def test_lora_trains_adapters_only(make: Make, frames: torch.Tensor) -> None:
    torch.manual_seed(1)
    plain = make()
    torch.manual_seed(1)
    encoder = make(tune="lora", lora={"r": 4, "lora_dropout": 0.5})
    assert has_adapters(encoder)
    assert encoder.training
    # It begins as no change but rounding, in training mode too: what is pretrained rests there.
    torch.testing.assert_close(encoder(frames), plain(frames), rtol=1e-5, atol=1e-5)
    before = state(encoder)
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=1.0)
    encoder(frames).square().mean().backward()
    optimizer.step()
    moved = {key for key, value in encoder.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert all(".lora_B." in key for key in moved)
    # The adapters' dropout is active in training mode only.
    assert not torch.equal(encoder(frames), encoder(frames))
    encoder.eval()
    assert torch.equal(encoder(frames), encoder(frames))


def test_no_gradient_unless_required(make: Make, frames: torch.Tensor) -> None:
    with torch.no_grad():
        encoder = make(tune="full", pretrained=False)
        assert not encoder(frames).requires_grad
    assert encoder(frames).requires_grad


@pytest.mark.parametrize("mode", ["stretch", "pad", "center_crop"])
def test_resize_modes(make: Make, mode: str) -> None:
    # Its mean colour, as bytes.
    fill = (123, 116, 103) if make is convolutions else (127, 63, 0)
    assert make(resize_mode=mode).resize == ResizeSpec(mode, fill)  # type: ignore[arg-type]


def test_follows_the_precision_of_the_model(make: Make, frames: torch.Tensor) -> None:
    encoder = make().to(torch.bfloat16)
    assert encoder(frames).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora": {"r": 4}}, "'lora' and 'tune: frozen' exclude each other"),
        ({"tune": "lora", "lora": {"rr": 4}}, "lora has no option 'rr'. Did you mean 'r'?"),
        ({"tune": "lora", "lora": {"target_modules": ["absent"]}}, "has no layer 'absent'"),
        ({"tune": "frozen", "pretrained": False}, "has random weights and 'tune: frozen'"),
        ({"image_size": 1}, "does not take frames of 1x1 pixels"),
    ],
)
def test_wrong_options(make: Make, options: dict[str, Any], message: str) -> None:
    if make is convolutions and "image_size" in options:
        options = {"image_size": 0}
        message = "does not take frames of 0x0 pixels"
    with pytest.raises(ModelError) as caught:
        make(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize_mode": "padd"}, r"'resize_mode' is 'padd', .*Did you mean 'pad'\?"),
        ({"tune": "ful"}, r"'tune' is 'ful', .*Did you mean 'full'\?"),
        ({"pretrained": None}, "'pretrained' is None"),
        ({"pretrained": "yess"}, "'pretrained' is 'yess'"),
    ],
)
def test_unknown_values(options: dict[str, Any], message: str) -> None:
    for name, source in {"timm": {"model": "resnet18"}, "hf": {"source": "absent"}}.items():
        with pytest.raises(PluginError, match=message):
            create_encoder(name, **source, **options)
