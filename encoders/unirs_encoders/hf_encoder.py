"""Any Hugging Face vision model as encoder, such as SigLIP, SigLIP 2, CLIP, DINOv2 or DINOv3."""

import inspect
import json
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    CLIPVisionConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_MAPPING_NAMES

from unirs.errors import ModelError, did_you_mean
from unirs.models import Dtype, TuningMode, check_loaded, resolve_dtype, resolve_source
from unirs.ranges import NonNegativeInt, PositiveInt
from unirs.tasks import ResizeMode
from unirs_encoders._shared import FrameEncoder, Pretrained, check_options, takes

_INVALID = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError, StrictDataclassError)
"""Raised by the classes of transformers for options of a wrong type or value."""


class HiddenState(nn.Module):
    """One hidden state of a vision model as a feature map; later layers and the head are removed.

    Args:
        model: takes pixel values.
        name: of the model, for messages.
        layer: index in transformers' `hidden_states`, 1 for the first layer's; negative from the end.
        size: height and width in pixels of the frames.
        final_norm: whether the model's final norm follows the last layer; otherwise it is removed too.

    Raises:
        ModelError: there is no such layer, the final norm does not follow it, the model does not take
            such frames, or its layers are not sequential, so that it cannot be cut.
    """

    def __init__(
        self, model: PreTrainedModel, name: str, layer: int, size: tuple[int, int], final_norm: bool = False
    ) -> None:
        super().__init__()
        self.model = model.eval()
        self.options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in _inputs(type(model)) else {}
        frames = torch.linspace(-1, 1, 3 * size[0] * size[1], dtype=model.dtype).view(1, 3, *size)
        with takes(name, size), torch.no_grad():
            out = model(pixel_values=frames, output_hidden_states=True, **self.options)
        states = out.hidden_states
        if states is None:
            raise ModelError(f"Encoder '{name}', a {type(model).__name__}, has no hidden states.")
        count = len(states) - 1
        if layer not in range(1, count + 1) and layer not in range(-count, 0):
            raise ModelError(f"Layer {layer} does not exist: '{name}' has {count} layers, 1..{count} or -{count}..-1.")
        kept = layer % (count + 1)
        if final_norm and kept != count:
            raise ModelError(f"The final norm of '{name}' follows its last layer: 'final_norm' needs 'layer: -1'.")
        self.grid = _grid(model, states[layer], size)
        whole = self._tokens(out.last_hidden_state if final_norm else states[layer])
        if whole.shape[1] != self.grid[0] * self.grid[1]:
            raise ModelError(
                f"Encoder '{name}' has {whole.shape[1]} tokens after layer {layer}, but its patches are "
                f"{self.grid[0]}x{self.grid[1]}. Choose another layer, or the timm plugin."
            )
        _cut(model, count, kept, keep=nn.LayerNorm if final_norm else ())
        with torch.no_grad():
            cut = self._tokens(model(pixel_values=frames, **self.options).last_hidden_state)
        if cut.shape != whole.shape or not torch.allclose(cut, whole, rtol=1e-3, atol=1e-3):
            raise ModelError(f"Encoder '{name}', a {type(model).__name__}, cannot be cut after layer {layer}.")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalized frames `[F, 3, H, W]` to `[F, D, h, w]`, in the dtype of the frames."""
        # Nothing but a final norm follows the layer, so its hidden state is the last.
        hidden_state = self.model(pixel_values=x.to(self.model.dtype), **self.options).last_hidden_state
        tokens = self._tokens(hidden_state).transpose(1, 2)
        return torch.unflatten(tokens, 2, self.grid).to(x.dtype)

    def _tokens(self, state: torch.Tensor) -> torch.Tensor:
        if state.ndim == 4:
            return state.flatten(2).transpose(1, 2)
        # Class and register tokens come first.
        return state[:, max(0, state.shape[1] - self.grid[0] * self.grid[1]) :]


def build(
    source: str | None = None,
    config: dict[str, Any] | None = None,
    pretrained: Pretrained = True,
    tune: TuningMode = "frozen",
    layer: int = -2,
    final_norm: bool = False,
    image_size: PositiveInt | None = None,
    resize_mode: ResizeMode = "stretch",
    max_tiles: NonNegativeInt = 0,
    lora: dict[str, Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: Dtype = "auto",
) -> FrameEncoder:
    """The plugin `hf`. Exactly one of `source` and `config` is given.

    Args:
        source: a hub id, a folder, or `package:NAME/path`, with weights. Of a model of text and images, such as CLIP,
            the vision model is used.
        config: a vision model without weights: `model_type` and that type's own options.
        pretrained: true for `source`. With `config`, false starts from random weights, and `given` is for weights that
            a saved model provides.
        tune: `full`, `frozen` or `lora`.
        layer: index in transformers' `hidden_states`: -2, the second last, is the paper's; -1 the last one before the
            final norm.
        final_norm: apply the model's final norm to the last layer's hidden state; needs `layer: -1`.
        image_size: height and width in pixels of the frames; by default those of the source's image processor, or the
            config's `image_size`. Position embeddings are interpolated if the model can.
        resize_mode: for images that are not square: `stretch`, `pad` with the mean color, or `center_crop`.
        max_tiles: tiles, at most, of a single image that is larger than a frame: it is then an overview and its tiles,
            row by row, each with as many visual tokens as an image. Pairs, videos and series are not tiled.
        lora: options of `tune: lora`: `r`, `lora_alpha`, `lora_dropout`, `target_modules`.
        mean: of red, green and blue, 0..1; that of the source's image processor by default.
        std: of red, green and blue, 0..1; that of the source's image processor by default.
        dtype: of the weights. `auto`: bfloat16 for frozen weights if the device has instructions for it, else float32.
            Adapters and output tokens are always float32.

    Raises:
        ModelError: a source without a vision model, weights that do not fit it (with the keys), random weights that
            would not be trained, an unknown layer, size or option, or no image processor if one is needed.
    """
    name = source or str((config or {}).get("model_type"))
    if (source is None) == (config is None):
        raise ModelError(
            "Encoder 'hf' needs exactly one of 'source' (hub id or folder) and 'config' (without weights)."
        )
    if (source is None) == (pretrained is True):
        raise ModelError("Encoder 'hf' has weights from a 'source' only: 'config' goes with 'pretrained: false'.")
    adapters = check_options(name, pretrained, tune, lora)
    dtype = resolve_dtype(dtype, tune)
    if source is not None:
        model = _load(resolve_source(source), name, dtype)
        mean, std, image_size = _normalization(resolve_source(source), name, mean, std, image_size)
    else:
        model = _from_config(config or {}, dtype, check=pretrained is False)
        if mean is None or std is None:
            raise ModelError(f"Encoder '{name}' from a 'config' needs 'mean' and 'std', e.g. [0.5, 0.5, 0.5].")
        image_size = _side(getattr(model.config, "image_size", ()), name) if image_size is None else image_size
    # Before the cut, in JSON's types: it is saved with a model.
    saved_config = json.loads(model.config.to_json_string(use_diff=False))
    saved_config.pop("_name_or_path", None)
    return FrameEncoder(
        HiddenState(model, name, layer, (image_size, image_size), final_norm),
        name,
        image_size=(image_size, image_size),
        mean=mean,
        std=std,
        resize_mode=resize_mode,
        max_tiles=max_tiles,
        tune=tune,
        lora=adapters,
        init_config={
            "config": saved_config,
            "pretrained": "given",
            "layer": layer,
            "final_norm": final_norm,
            "image_size": image_size,
            "mean": list(mean),
            "std": list(std),
            "dtype": dtype,
        },
    )


def _vision_class(config: PreTrainedConfig, name: str) -> type[PreTrainedModel]:
    if type(config) not in MODEL_MAPPING:
        raise ModelError(f"'{name}' is of type '{config.model_type}', which is no vision model of transformers.")
    vision: Any = MODEL_MAPPING[type(config)]
    inputs = _inputs(vision)
    if "pixel_values" not in inputs:
        raise ModelError(f"'{name}' is a {vision.__name__}, which takes no images. Name a vision model.")
    more = [key for key, value in inputs.items() if value.default is value.empty and key != "pixel_values"]
    if more:
        raise ModelError(
            f"'{name}' is a {vision.__name__}, which needs more than frames of one size: {', '.join(more)}. Name a "
            "checkpoint of fixed resolution, such as google/siglip2-base-patch16-384."
        )
    return vision  # type: ignore[no-any-return]


def _inputs(model: type[PreTrainedModel]) -> dict[str, inspect.Parameter]:
    parameters = list(inspect.signature(model.forward).parameters.items())[1:]
    return {key: value for key, value in parameters if value.kind is not value.VAR_KEYWORD}


def _load(source: str, name: str, dtype: str) -> PreTrainedModel:
    remedy = "Name a hub id, or a folder with config.json and weights."
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # of any class, for damaged files
        raise ModelError(f"Encoder '{name}' does not load ({error}). {remedy}") from error
    vision = _vision_class(getattr(config, "vision_config", config), name)
    # Loaded as the class that was saved, with its text model, so that every key must fit.
    architecture = (config.architectures or [vision.__name__])[0]
    saved: Any = getattr(transformers, architecture, None)
    is_model = inspect.isclass(saved) and issubclass(saved, PreTrainedModel)
    if not is_model:
        raise ModelError(f"Encoder '{name}' was saved as '{architecture}', which is no model of transformers.")
    try:
        whole, report = saved.from_pretrained(
            source,
            config=config,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
        )
    except Exception as error:  # of any class, for damaged files
        raise ModelError(f"Encoder '{name}' does not load ({error}). {remedy}") from error
    check_loaded(name, whole, report)
    for module in whole.modules():
        if isinstance(module, vision):
            return module
    raise ModelError(f"Encoder '{name}' was saved as '{architecture}', which holds no {vision.__name__}.")


def _from_config(options: dict[str, Any], dtype: str, *, check: bool) -> PreTrainedModel:
    name = str(options.get("model_type"))
    if name not in CONFIG_MAPPING:
        hint = did_you_mean(name, [*MODEL_FOR_IMAGE_MAPPING_NAMES, CLIPVisionConfig.model_type])
        raise ModelError(f"Encoder option 'config' has no known 'model_type': '{name}'. {hint}")
    try:
        known = AutoConfig.for_model(name)
        # `transformers` accepts unknown options, so that a mistyped one would have no effect.
        for option in options if check else ():
            if not hasattr(known, option):
                raise ModelError(f"Encoder '{name}' has no option '{option}'. {did_you_mean(option, known.to_dict())}")
        config = AutoConfig.for_model(**options)
        vision = _vision_class(config, name)
        return vision._from_config(config, dtype=getattr(torch, dtype))  # type: ignore[no-any-return]
    except _INVALID as error:
        raise ModelError(f"Encoder option 'config' does not describe a vision model: {error}") from error


def _normalization(
    source: str, name: str, mean: Sequence[float] | None, std: Sequence[float] | None, size: int | None
) -> tuple[Sequence[float], Sequence[float], int]:
    if mean is not None and std is not None and size is not None:
        return mean, std, size
    try:
        processor: Any = AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # of any class, for damaged files
        raise ModelError(
            f"Encoder '{name}' has no preprocessor_config.json that loads ({error}). "
            "Set 'mean', 'std' and 'image_size'."
        ) from error
    # The model's value of the brightest byte before normalization.
    white = 255 * processor.rescale_factor if processor.do_rescale else 255
    plain = ([0, 0, 0], [1, 1, 1])
    own_mean, own_std = (processor.image_mean, processor.image_std) if processor.do_normalize else plain
    crop = processor.crop_size if getattr(processor, "do_center_crop", None) else processor.size
    return (
        [value / white for value in own_mean] if mean is None else mean,
        [value / white for value in own_std] if std is None else std,
        _side([value for value in dict(crop).values() if value is not None], name) if size is None else size,
    )


def _side(size: int | Sequence[int], name: str) -> int:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ModelError(f"Encoder '{name}' names no square size of frames, but {size}. Set 'image_size'.")
    return sides.pop()


def _grid(model: PreTrainedModel, state: torch.Tensor, size: tuple[int, int]) -> tuple[int, int]:
    if state.ndim == 4:
        return state.shape[2], state.shape[3]
    patch = getattr(model.config, "patch_size", size)
    high, wide = (patch, patch) if isinstance(patch, int) else patch
    return size[0] // high, size[1] // wide


def _cut(model: PreTrainedModel, count: int, kept: int, keep: type[nn.Module] | tuple[()]) -> None:
    """Removes all but `kept` of `count` layers, and all modules with weights after them that are not of type `keep`."""
    stacks = (module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count)
    stack = next(stacks, None)
    if stack is None:
        raise ModelError(f"{type(model).__name__} keeps its {count} layers in no list, so that it cannot be cut.")
    del stack[kept:]
    after = False
    for name, child in list(model.named_children()):
        if after and any(True for _ in child.parameters()) and not isinstance(child, keep):
            setattr(model, name, nn.Identity())
        after = after or any(module is stack for module in child.modules())
