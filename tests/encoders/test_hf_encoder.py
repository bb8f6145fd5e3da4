import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, CLIPConfig, CLIPModel, CLIPVisionModelWithProjection, SiglipConfig, SiglipModel
from unirs_encoders._shared import FrameEncoder
from unirs_encoders.hf_encoder import build

from unirs import UniRS
from unirs.errors import ModelError
from unirs.models.builder import check_components
from unirs.tasks.media import Image

VIT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 30,
}
CONVNEXT: dict[str, Any] = {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 2, 1], "image_size": 64}
COLOURS: dict[str, Any] = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7]}
# Model type to the model's options, its image processor, that one's options, and the tokens before those of patches.
FAMILIES: dict[str, tuple[dict[str, Any], str, dict[str, Any], int]] = {
    "siglip_vision_model": (VIT, "SiglipImageProcessor", {"size": {"height": 32, "width": 32}}, 0),
    "clip_vision_model": (
        VIT,
        "CLIPImageProcessor",
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
        1,
    ),
    # For larger frames than its processor returns, as in the published models.
    "dinov2": (
        {key: value for key, value in VIT.items() if key != "intermediate_size"} | {"image_size": 64},
        "BitImageProcessor",
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
        1,
    ),
    "dinov2_with_registers": (
        {key: value for key, value in VIT.items() if key != "intermediate_size"},
        "BitImageProcessor",
        {"size": {"shortest_edge": 32}, "do_center_crop": False},
        5,
    ),
    "dinov3_vit": (
        {**VIT, "num_register_tokens": 3},
        "DINOv3ViTImageProcessor",
        {"size": {"height": 32, "width": 32}},
        4,
    ),
    "dinov3_convnext": (CONVNEXT, "DINOv3ViTImageProcessor", {"size": {"height": 64, "width": 64}}, 0),
}


def stir(model: nn.Module) -> None:
    """Scales weights as training does, so that no layer is close to the identity."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


def processor(folder: Path, model_type: str, **options: object) -> Any:  # noqa: ANN401 - one class a family
    made = getattr(transformers, model_type)(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25], **options)
    made.save_pretrained(folder)
    return made


def two_towers(folder: Path, config: type[Any], model: type[Any]) -> Any:  # noqa: ANN401
    torch.manual_seed(0)
    whole = model(config(text_config=TEXT, vision_config=VIT)).eval()
    stir(whole)
    whole.save_pretrained(folder)
    processor(folder, "SiglipImageProcessor", size={"height": 32, "width": 32})
    return whole


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of the families by model type, built on first use; read-only."""
    made: dict[str, Path] = {}

    def make(model_type: str) -> Path:
        if model_type not in made:
            options, processes, processing, _ = FAMILIES[model_type]
            made[model_type] = tmp_path_factory.mktemp(model_type)
            torch.manual_seed(0)
            model = AutoModel.from_config(transformers.AutoConfig.for_model(model_type, **options))
            stir(model)
            model.save_pretrained(made[model_type])
            processor(made[model_type], processes, **processing)
        return made[model_type]

    return make


@pytest.fixture
def make_image(tmp_path: Path) -> Callable[[int], Path]:
    def draw(side: int) -> Path:
        noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        PIL.Image.fromarray(noise).save(tmp_path / f"{side}.png")
        return tmp_path / f"{side}.png"

    return draw


def noise(side: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def expected(model: Any, encoder: FrameEncoder, layer: int, side: int) -> torch.Tensor:  # noqa: ANN401
    """The hidden state of the complete model, without tokens that are not patches."""
    values = (noise(side) - encoder.mean) / encoder.std
    more = {"interpolate_pos_encoding": True} if side != model.config.image_size else {}
    more = more if model.config.model_type in ("siglip_vision_model", "clip_vision_model") else {}
    with torch.no_grad():
        hidden = model(pixel_values=values, output_hidden_states=True, **more).hidden_states[layer]
    if hidden.ndim == 4:
        return hidden.flatten(2).transpose(1, 2)  # type: ignore[no-any-return]
    return hidden[:, FAMILIES[model.config.model_type][3] :]  # type: ignore[no-any-return]


@pytest.mark.parametrize("layer", [-2, -1, 1])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_tokens_are_the_whole_models_hidden_state(model_type: str, layer: int, folder: Callable[[str], Path]) -> None:
    whole = AutoModel.from_pretrained(folder(model_type)).eval()
    encoder = build(str(folder(model_type)), layer=layer)
    side = encoder.image_size[0]
    assert side == (64 if model_type == "dinov3_convnext" else 32)
    tokens = encoder(noise(side))
    assert tokens.shape == (2, encoder.grid[0] * encoder.grid[1], encoder.embed_dim)
    torch.testing.assert_close(tokens, expected(whole, encoder, layer, side), atol=1e-5, rtol=1e-5)
    check_components(encoder, None)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_another_size(model_type: str, folder: Callable[[str], Path]) -> None:
    whole = AutoModel.from_pretrained(folder(model_type)).eval()
    encoder = build(str(folder(model_type)), image_size=96)
    assert encoder.image_size == (96, 96)
    assert encoder.grid == ((6, 6) if model_type == "dinov3_convnext" else (12, 12))
    torch.testing.assert_close(encoder(noise(96)), expected(whole, encoder, -2, 96), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_pixels_are_those_of_the_image_processor(
    model_type: str, folder: Callable[[str], Path], make_image: Callable[[int], Path]
) -> None:
    encoder = build(str(folder(model_type)))
    path = make_image(encoder.image_size[0])
    pixels_in: list[torch.Tensor] = []
    encoder.tower.register_forward_pre_hook(lambda _, inputs: pixels_in.append(inputs[0]))
    encoder(Image(path).load_frames(encoder.image_size, encoder.resize))
    theirs = transformers.AutoImageProcessor.from_pretrained(folder(model_type))
    # It may enlarge before it crops.
    pixels = theirs(PIL.Image.open(path), do_resize=False, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels_in[0], pixels, atol=1e-5, rtol=1e-5)


def test_pixels_of_other_ranges(
    folder: Callable[[str], Path], tmp_path: Path, make_image: Callable[[int], Path]
) -> None:
    source = str(folder("siglip_vision_model"))
    ranges: list[dict[str, object]] = [{"rescale_factor": 1 / 127.5}, {"do_normalize": False}, {"do_rescale": False}]
    for number, options in enumerate(ranges):
        other = tmp_path / str(number)
        other.mkdir()
        for name in ("config.json", "model.safetensors"):
            (other / name).symlink_to(Path(source) / name)
        theirs = processor(other, "SiglipImageProcessor", size={"height": 32, "width": 32}, **options)
        encoder = build(str(other))
        pixels = theirs(PIL.Image.open(make_image(32)), return_tensors="pt")["pixel_values"]
        ours = (Image(make_image(32)).load_frames() - encoder.mean) / encoder.std
        torch.testing.assert_close(ours, pixels.float(), atol=1e-4, rtol=1e-5)


def test_later_layers_and_heads_are_removed(folder: Callable[[str], Path]) -> None:
    encoder = build(str(folder("siglip_vision_model")), layer=2)
    kept = {".".join(name.split(".")[2:5]) for name, _ in encoder.named_parameters()}
    assert {name for name in kept if not name.startswith("embeddings")} == {"encoder.layers.0", "encoder.layers.1"}


def test_attention_is_fused(folder: Callable[[str], Path]) -> None:
    encoder = build(str(folder("clip_vision_model")))
    assert encoder.tower.get_submodule("model").config._attn_implementation == "sdpa"  # type: ignore[union-attr]


@pytest.mark.parametrize(("config", "model"), [(CLIPConfig, CLIPModel), (SiglipConfig, SiglipModel)])
def test_vision_tower_of_a_model_with_text(config: type[Any], model: type[Any], tmp_path: Path) -> None:
    whole = two_towers(tmp_path, config, model)
    encoder = build(str(tmp_path))
    torch.testing.assert_close(encoder(noise(32)), expected(whole.vision_model, encoder, -2, 32), atol=1e-5, rtol=1e-5)
    assert encoder.init_config["config"]["model_type"] == whole.config.vision_config.model_type


def test_vision_tower_of_a_model_with_a_head(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**VIT)).eval()
    whole.save_pretrained(tmp_path)
    encoder = build(str(tmp_path), image_size=32, **COLOURS)
    torch.testing.assert_close(encoder(noise(32)), expected(whole.vision_model, encoder, -2, 32), atol=1e-5, rtol=1e-5)


def test_keys_of_older_releases(folder: Callable[[str], Path], tmp_path: Path) -> None:
    source = folder("siglip_vision_model")
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).symlink_to(source / name)
    weights = {f"vision_model.{key}": value for key, value in load_file(source / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    torch.testing.assert_close(build(str(tmp_path))(noise(32)), build(str(source))(noise(32)), rtol=0, atol=0)


@pytest.mark.parametrize("tune", ["frozen", "lora", "full"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_init_config_builds_the_same_architecture(model_type: str, tune: str, folder: Callable[[str], Path]) -> None:
    lora = {"r": 4} if tune == "lora" else None
    encoder = build(str(folder(model_type)), tune=tune, lora=lora, resize_mode="pad")  # type: ignore[arg-type]
    spec = json.loads(json.dumps(encoder.init_config))
    assert spec == encoder.init_config
    assert "source" not in spec
    assert str(folder(model_type)) not in json.dumps(spec)
    again = build(**spec)
    assert again.init_config == spec
    assert (again.image_size, again.resize, again.grid, again.embed_dim) == (
        encoder.image_size,
        encoder.resize,
        encoder.grid,
        encoder.embed_dim,
    )
    again.load_state_dict(encoder.state_dict())
    frames = noise(encoder.image_size[0])
    torch.testing.assert_close(again.eval()(frames), encoder.eval()(frames), rtol=0, atol=0)


def test_half_precision(folder: Callable[[str], Path]) -> None:
    source = str(folder("dinov3_vit"))
    encoder = build(source, dtype="bfloat16", tune="lora")
    weights = {p.dtype for p in encoder.parameters() if not p.requires_grad}
    assert weights == {torch.bfloat16}
    tokens = encoder(noise(32))
    assert tokens.dtype == torch.float32
    torch.testing.assert_close(tokens, build(source)(noise(32)), atol=0.2, rtol=0.1)
    assert build(**encoder.init_config).state_dict().keys() == encoder.state_dict().keys()


def test_from_scratch() -> None:
    config = {"model_type": "siglip_vision_model", **VIT}
    encoder = build(config=config, pretrained=False, tune="full", **COLOURS)
    assert (encoder.image_size, encoder.grid, encoder.embed_dim) == ((32, 32), (4, 4), 32)
    assert encoder.resize.fill == (127, 102, 76)
    assert encoder(noise(32)).requires_grad


# Sources that are wrong.


def test_weights_of_another_model(tmp_path: Path) -> None:
    two_towers(tmp_path, CLIPConfig, CLIPModel)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["vision_model.pre_layrnorm.bias"]
    weights["vision_model.post_layernorm.bias"] = torch.zeros(3)
    weights["vision_model.extra"] = torch.zeros(1)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError) as caught:
        build(str(tmp_path))
    message = str(caught.value)
    assert "'missing_keys': ['vision_model.pre_layrnorm.bias']" in message
    assert "'unexpected_keys': ['vision_model.extra']" in message
    assert "vision_model.post_layernorm.bias" in message.split("mismatched_keys")[1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "does not load.*Name a hub id, or a folder"),
        ({"config.json": "{}"}, "does not load"),
        ({"config.json": "{broken"}, "does not load"),
        ({"config.json": '{"model_type": "siglip_vision_model"}'}, "does not load"),
        (
            {"config.json": '{"model_type": "siglip_vision_model"}', "model.safetensors": "cut"},
            "does not load",
        ),
        ({"config.json": '{"model_type": "bert"}'}, "is a BertModel, which takes no images"),
        (
            {"config.json": '{"model_type": "siglip_vision_model", "architectures": ["MyOwnModel"]}'},
            "was saved as 'MyOwnModel', which is no model of transformers",
        ),
        ({"config.json": '{"model_type": "siglip2"}'}, "Siglip2VisionModel, which needs more than frames.*of fixed"),
        (
            {"config.json": '{"model_type": "siglip2_vision_model"}'},
            "Siglip2VisionModel, which needs more than frames.*pixel_attention_mask, spatial_shapes.*of fixed",
        ),
        (
            {"config.json": '{"model_type": "mine", "auto_map": {"AutoConfig": "mine.MyConfig"}}', "mine.py": "1 / 0"},
            "does not load.*trust_remote_code",
        ),
    ],
)
def test_folders_without_a_vision_model(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=f"(?s){message}"):
        build(str(tmp_path))


def test_no_image_processor(folder: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(folder("dinov2") / name)
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json that loads.*'mean', 'std' and 'image_size'"):
        build(str(tmp_path), image_size=32, mean=[0.5] * 3)
    assert build(str(tmp_path), image_size=32, **COLOURS).grid == (4, 4)


def test_an_image_processor_for_oblong_frames(folder: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(folder("siglip_vision_model") / name)
    processor(tmp_path, "SiglipImageProcessor", size={"height": 32, "width": 48})
    with pytest.raises(ModelError, match=r"names no square size of frames, but \[32, 48\]\. Set 'image_size'"):
        build(str(tmp_path))
    assert build(str(tmp_path), image_size=32).image_size == (32, 32)


def test_package_that_is_not_installed() -> None:
    with pytest.raises(ModelError, match="needs the Python package 'absent'"):
        build("package:absent/tower")


# Options that are wrong.


@pytest.mark.parametrize("model_type", [name for name in FAMILIES if name != "dinov3_convnext"])
def test_final_norm(model_type: str, folder: Callable[[str], Path]) -> None:
    encoder = build(str(folder(model_type)), layer=-1, final_norm=True)
    again = build(**encoder.init_config)
    again.load_state_dict(encoder.state_dict())
    whole = AutoModel.from_pretrained(folder(model_type)).eval()
    frames = torch.randint(0, 256, (2, 3, *encoder.image_size), dtype=torch.uint8)
    options: Any = encoder.tower.options
    with torch.no_grad():
        state = whole(pixel_values=(frames - encoder.mean) / encoder.std, **options).last_hidden_state
    for one in (encoder, again):
        torch.testing.assert_close(one(frames), state[:, -one(frames).shape[1] :], atol=1e-5, rtol=1e-5)


def test_final_norm_follows_the_last_layer(folder: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="'final_norm' needs 'layer: -1'"):
        build(str(folder("siglip_vision_model")), final_norm=True)


@pytest.mark.parametrize("layer", [0, 5, -5])
def test_layer_out_of_range(layer: int, folder: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match=rf"Layer {layer} does not exist: .* has 4 layers, 1\.\.4 or -4\.\.-1"):
        build(str(folder("siglip_vision_model")), layer=layer)


SWIN: dict[str, Any] = {
    "model_type": "swin",
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 4,
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of 'source'"),
        ({"source": "a", "config": {}}, "exactly one of 'source'"),
        ({"config": {"model_type": "clip_vision_model"}}, "'config' goes with 'pretrained: false'"),
        ({"source": "a", "pretrained": False}, "'config' goes with 'pretrained: false'"),
        ({"config": {}, "pretrained": "given"}, "no known 'model_type': 'None'"),
        ({"config": {"model_type": "dinov4"}, "pretrained": "given"}, "'dinov4'. Did you mean 'dinov2'?"),
        ({"config": {"model_type": "bert"}, "pretrained": "given"}, "is a BertModel, which takes no images"),
        ({"config": {"model_type": "clap"}, "pretrained": "given"}, "'clap' is a ClapModel, which takes no images"),
        (
            {"config": {"model_type": "dinov2", "hidden_sice": 3}, "pretrained": False, "tune": "full"},
            "'dinov2' has no option 'hidden_sice'. Did you mean 'hidden_size'?",
        ),
        (
            {"config": {"model_type": "dinov2", "hidden_size": "wide"}, "pretrained": "given"},
            "does not describe a vision model",
        ),
        (
            {"config": {"model_type": "siglip_vision_model", "num_attention_heads": 7}, "pretrained": "given"},
            "does not describe a vision model",
        ),
        (
            {"config": {"model_type": "dinov3_vit", **VIT}, "pretrained": "given", "mean": None},
            "needs 'mean' and 'std'",
        ),
        ({"config": SWIN, "pretrained": "given"}, "has 64 tokens after layer -2, but its patches are 16x16"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        build(**COLOURS | options)
    assert message in str(caught.value)


# In a run.


def test_a_saved_model_needs_no_source(
    folder: Callable[[str], Path],
    colours: Path,
    colour_tasks: list[dict[str, Any]],
    tmp_path: Path,
    cli: Callable[..., int],
    write_config: Callable[..., Path],
) -> None:
    source = shutil.copytree(folder("dinov2"), tmp_path / "dinov2")
    encoder = {"name": "hf", "source": str(source), "tune": "lora", "lora": {"r": 2}, "resize_mode": "pad"}
    assert cli("fit", "--config", write_config(tmp_path, colour_tasks, model={"encoder": encoder})) == 0
    learnt = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {"lora_" in key for key in learnt if key.startswith("model.encoder.")} == {True}
    model = UniRS.from_pretrained(tmp_path / "run", device="cpu", trust_remote_code=True)
    model.save_pretrained(tmp_path / "saved")
    shutil.rmtree(source)
    arguments = ([Image(colours / "red.png"), Image(colours / "blue.png")], "Which colour?")
    again = UniRS.from_pretrained(tmp_path / "saved", device="cpu")
    assert [a.logprobs for a in again.predict(*arguments)] == [a.logprobs for a in model.predict(*arguments)]
