"""Any timm model as encoder: convolutional feature maps and vision transformer tokens alike."""

from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from timm.layers.padding import get_same_padding
from timm.models import load_state_dict
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unirs.errors import ModelError, did_you_mean
from unirs.models import TuningMode, resolve_source
from unirs.ranges import NonNegativeInt, PositiveInt
from unirs.tasks import ResizeMode
from unirs_encoders._shared import FrameEncoder, Pretrained, check_options

# Of fused batch norms' rounding, relative to the largest value.
_TOLERANCE = 1e-4


class FeatureMap(nn.Module):
    """One intermediate feature map of a timm model.

    On CPUs, frozen float32 convolutions are computed with the padding before and the batch norms after them as one: in
    EfficientNet-Lite0 twice as fast. The state dict is that of the model.

    Args:
        model: a timm model with `forward_intermediates`; its unused later layers are removed.
        layer: index of the feature map in timm's order; negative from the end.

    Raises:
        ModelError: there is no such layer.
    """

    def __init__(self, model: nn.Module, layer: int) -> None:
        super().__init__()
        count = len(model.feature_info)  # type: ignore[arg-type]
        if not -count <= layer < count:
            raise ModelError(
                f"Layer {layer} does not exist: the timm model has {count} feature maps, -{count}..{count - 1}."
            )
        self.layer = layer % count
        model.prune_intermediate_layers([self.layer], prune_norm=True, prune_head=True)  # type: ignore[operator]
        # Three times faster than the default layout for small convolutions on a CPU.
        self.backbone = model.to(memory_format=torch.channels_last)
        # In a tuple, so that it is no submodule; None until the first frames are encoded.
        self._fused: tuple[nn.Module] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalized frames `[F, 3, H, W]` to `[F, D, h, w]`."""
        x = x.contiguous(memory_format=torch.channels_last)
        if x.device.type != "cpu" or self.training or any(one.requires_grad for one in self.backbone.parameters()):
            return self._map(self.backbone, x)
        if self._fused is None:
            self._fused = (self._fuse(x.shape[1:]),)
        return self._map(*self._fused, x)

    def _map(self, backbone: nn.Module, x: torch.Tensor) -> torch.Tensor:
        maps: list[torch.Tensor] = backbone.forward_intermediates(  # type: ignore[operator]
            x, indices=[self.layer], norm=False, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )
        return maps[0]

    def _fuse(self, shape: torch.Size) -> nn.Module:
        """The backbone with fused convolutions; as it is without norms, or if the map of a random frame differs."""
        has_norms = any(isinstance(module, nn.BatchNorm2d) for module in self.backbone.modules())
        if not has_norms or any(one.dtype != torch.float32 for one in self.backbone.parameters()):
            return self.backbone
        fused = deepcopy(self.backbone)
        _fuse_batch_norms(fused)
        _fuse_padding(fused)
        fused.to(memory_format=torch.channels_last)
        # A model may apply its modules in another order than it registers them.
        frame = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
        with torch.autocast("cpu", enabled=False):
            wanted, found = (self._map(backbone, frame) for backbone in (self.backbone, fused))
        return fused if (found - wanted).abs().max() <= _TOLERANCE * wanted.abs().max() else self.backbone

    def _apply(self, fn: Any, recurse: bool = True) -> Any:  # noqa: ANN401 - torch's
        # Called for a change of device or dtype.
        self._fused = None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, *args: Any) -> None:  # noqa: ANN401 - torch's
        self._fused = None
        super()._load_from_state_dict(*args)


def _fuse_batch_norms(model: nn.Module) -> None:
    """Fuses convolutions with the batch norms that follow them, in place."""
    for module in list(model.modules()):
        for (name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
                continue
            if norm.running_mean is None or norm.num_features != conv.out_channels:
                continue
            # timm's norms may include an activation.
            after = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
            setattr(module, norm_name, after)


class _SameConv(nn.Module):
    """A convolution with TensorFlow's padding, which may pad one side more: then the kernel begins with a zero."""

    def __init__(self, conv: Conv2dSame) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        conv = self.conv
        (top, bottom), (left, right) = (
            (pad // 2, pad - pad // 2)
            for pad in map(get_same_padding, x.shape[2:], conv.kernel_size, conv.stride, conv.dilation)
        )
        weight = F.pad(conv.weight, (right - left, 0, bottom - top, 0))
        return F.conv2d(x, weight, conv.bias, conv.stride, (bottom, right), groups=conv.groups)


def _fuse_padding(model: nn.Module) -> None:
    """Fuses convolutions with the padding before them, in place."""
    for module in list(model.modules()):
        for name, conv in list(module.named_children()):
            if isinstance(conv, Conv2dSame) and conv.dilation == (1, 1):
                setattr(module, name, _SameConv(conv))


def build(
    model: str,
    pretrained: Pretrained = True,
    tune: TuningMode = "frozen",
    layer: int = -1,
    image_size: PositiveInt | None = None,
    resize_mode: ResizeMode = "stretch",
    max_tiles: NonNegativeInt = 0,
    lora: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    weights: str | None = None,
    by_order: bool = False,
) -> FrameEncoder:
    """The plugin `timm`.

    Args:
        model: a timm model name, e.g. `vit_base_patch16_siglip_384`, with or without a tag that names its weights.
        pretrained: whether to load timm's weights, or those of `weights`, rather than random ones; `given` for weights
            that a saved model provides.
        tune: `full`, `frozen` or `lora`.
        layer: index of the feature map; the paper uses the second last, -2.
        image_size: height and width in pixels of the frames; the model's own by default.
        resize_mode: for images that are not square: `stretch`, `pad` with the mean color, or `center_crop`.
        max_tiles: tiles, at most, of a single image that is larger than a frame: it is then an overview and its tiles,
            row by row, each with as many visual tokens as an image. Pairs, videos and series are not tiled.
        lora: options of `tune: lora`: `r`, `lora_alpha`, `lora_dropout`, `target_modules`.
        options: further options of the model, e.g. `{channels: [16, 32, 64, 128]}` for a narrower ResNet, or
            `{pretrained_cfg_overlay: {mean: […], std: […]}}` for weights that expect other colors.
        weights: a `.pth` or `.safetensors` file to read instead of the hub, of the model at its own size;
            `package:NAME/path` for a file of an installed Python package.
        by_order: whether the file has the same tensors in the same order under other names. Only shapes are checked.

    Raises:
        ModelError: an unknown model (with the nearest match), layer, size or option, random weights that would not be
            trained, or weights that do not load or fit (with the keys).
    """
    if model.split(".")[0] not in timm.list_models():
        raise ModelError(f"timm has no model '{model}'. {did_you_mean(model.split('.')[0], timm.list_models())}")
    adapters = check_options(model, pretrained, tune, lora)
    if by_order and weights is None:
        raise ModelError("Encoder option 'by_order' needs 'weights'. Name their file.")
    if weights is not None and pretrained is not True:
        raise ModelError(f"Encoder options 'weights' and 'pretrained: {pretrained}' exclude each other.")
    if "img_size" in (options or {}):
        raise ModelError("Encoder option 'options' may not hold 'img_size': 'image_size' sets it.")
    foreign = {"pretrained_cfg", "checkpoint_path", "cache_dir"} & {*(options or {})}
    foreign |= {*(options or {}).get("pretrained_cfg_overlay", {})} - {"mean", "std", "input_size"}
    if foreign:
        raise ModelError(
            f"Encoder option 'options' may not hold {', '.join(sorted(foreign))}, which name other weights than those "
            "of the model. Use 'weights'."
        )
    backbone = _create(model, pretrained is True and weights is None, image_size if weights is None else None, options)
    if weights is not None:
        _load(backbone, model, weights, by_order)
        backbone = _resized(backbone, model, image_size)
    config: dict[str, Any] = backbone.pretrained_cfg
    frames = tuple(config["input_size"][1:]) if image_size is None else (image_size, image_size)
    # With its tag, since another release of timm may have another default tag, with other means.
    tagged_name = ".".join(filter(None, (config["architecture"], config["tag"])))
    return FrameEncoder(
        FeatureMap(backbone, layer),
        model,
        image_size=frames,
        mean=config["mean"],
        std=config["std"],
        resize_mode=resize_mode,
        max_tiles=max_tiles,
        tune=tune,
        lora=adapters,
        init_config={
            "model": tagged_name,
            "pretrained": "given",
            "layer": layer,
            "image_size": image_size,
            "options": options,
        },
    )


def _create(model: str, pretrained: bool, size: int | None, options: dict[str, Any] | None) -> Any:  # noqa: ANN401
    try:
        config = timm.get_pretrained_cfg(model)
        # Models of a fixed size are built for it, and timm resamples the positions of their pretrained weights.
        sized: dict[str, Any] = {"img_size": size} if size is not None and config and config.fixed_input_size else {}
        return timm.create_model(model, pretrained=pretrained, **sized, **(options or {}))
    except TypeError as error:
        raise ModelError(f"timm model '{model}' does not take its options: {error}.") from error
    except (OSError, RuntimeError) as error:
        raise ModelError(f"The weights of timm model '{model}' do not load: {error}") from error


def _load(backbone: nn.Module, model: str, source: str, by_order: bool) -> None:
    path = resolve_source(source)
    if not Path(path).is_file():
        raise ModelError(f"The weights of encoder '{model}', {path}, are not a file. Name a .pth or .safetensors file.")
    try:
        state: dict[str, torch.Tensor] = load_state_dict(path, weights_only=True)
    # Raised by torch, safetensors and timm for damaged files, or for other content than tensors by name.
    except (OSError, RuntimeError, EOFError, UnpicklingError, SafetensorError, AttributeError) as error:
        raise ModelError(f"{path} does not load as weights of encoder '{model}': {error}") from error
    other = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if other:
        raise ModelError(f"{path} holds other content than tensors by name: {other[:5]}. Save only a 'state_dict'.")
    expected: dict[str, torch.Tensor] = backbone.state_dict()
    if by_order:
        state = _in_order(state, expected, path, model)
    wrong = {
        "missing": sorted(expected.keys() - state.keys()),
        "unexpected": sorted(state.keys() - expected.keys()),
        "mismatched": [
            f"{key} {list(state[key].shape)} for {list(value.shape)}"
            for key, value in expected.items()
            if key in state and state[key].shape != value.shape
        ],
    }
    if any(wrong.values()):
        raise ModelError(f"The weights in {path} do not fit timm model '{model}': {wrong}.")
    backbone.load_state_dict(state)


def _in_order(
    state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], path: str, model: str
) -> dict[str, torch.Tensor]:
    if len(state) != len(expected):
        raise ModelError(f"{path} holds {len(state)} tensors, timm model '{model}' has {len(expected)}.")
    for number, ((key, value), (name, wanted)) in enumerate(zip(state.items(), expected.items(), strict=True), start=1):
        if value.shape != wanted.shape:
            raise ModelError(
                f"{path} does not fit timm model '{model}' by order: tensor {number}, '{key}' {list(value.shape)}, "
                f"would be '{name}' {list(wanted.shape)}."
            )
    return dict(zip(expected, state.values(), strict=True))


def _resized(backbone: Any, model: str, size: int | None) -> Any:  # noqa: ANN401
    config: dict[str, Any] = backbone.pretrained_cfg
    own = tuple(config["input_size"][1:])
    if not config["fixed_input_size"] or size is None or own == (size, size):
        return backbone
    if not hasattr(backbone, "set_input_size"):
        raise ModelError(f"timm model '{model}' with 'weights' of your own takes frames of {own[0]}x{own[1]} only.")
    backbone.set_input_size(img_size=(size, size))
    return backbone
