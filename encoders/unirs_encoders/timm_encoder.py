"""Any timm model as encoder: convolutional feature maps and vision transformer tokens alike."""

from typing import Any

import timm
import torch
from torch import nn

from unirs.errors import ModelError, nearest


class TimmEncoder(nn.Module):
    """One intermediate feature map of a timm model as vision tokens.

    Args:
        model: a timm model with `forward_intermediates`; its unused later layers are dropped.
        layer: which feature map, counted as timm counts them; negative from the end.
        size: height and width in pixels of its frames.
        frozen: keep the weights as they are, without gradients and with running batch statistics.
    """

    def __init__(self, model: nn.Module, layer: int, size: int, frozen: bool) -> None:
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
        self.frozen = frozen
        self.requires_grad_(not frozen)
        config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", 255 * torch.tensor(config["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(config["std"]).view(3, 1, 1), persistent=False)
        self.size = (size, size)
        self.eval()
        with torch.no_grad():
            self.dim, *grid = self._features(torch.zeros(1, 3, size, size, dtype=torch.uint8)).shape[1:]
        self.grid = (grid[0], grid[1])
        # As any module begins, except where frozen: nobody need call `train` for the batch statistics to stay.
        self.train()

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Encodes uint8 `[F, 3, H, W]` to `[F, L, D]`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self._features(frames).flatten(2).transpose(1, 2)

    def train(self, mode: bool = True) -> "TimmEncoder":
        """Sets training mode; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def _features(self, frames: torch.Tensor) -> torch.Tensor:
        x = (frames - self.mean) / self.std
        maps: list[torch.Tensor] = self.backbone.forward_intermediates(  # type: ignore[operator]
            x.contiguous(memory_format=torch.channels_last),
            indices=[self.layer],
            norm=False,
            stop_early=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return maps[0]


def build(
    model: str,
    pretrained: bool = True,
    frozen: bool = True,
    layer: int = -1,
    size: int | None = None,
    options: dict[str, Any] | None = None,
) -> TimmEncoder:
    """The plugin `timm`.

    Args:
        model: a timm model name, e.g. `vit_base_patch16_siglip_384`.
        pretrained: load timm's weights; False starts from random weights.
        frozen: keep the weights as they are.
        layer: which feature map; the paper uses the second last, -2.
        size: height and width in pixels of the frames; the model's own where left out.
        options: more of the model's own options, e.g. `{channels: [16, 32, 64, 128]}` for a narrower ResNet.

    Raises:
        ModelError: an unknown model (with the nearest match) or layer, a frozen encoder with random weights, weights
            that do not load, or options that the model does not have.
    """
    if model.split(".")[0] not in timm.list_models():
        raise ModelError(f"timm has no model '{model}'. {nearest(model.split('.')[0], timm.list_models())}")
    if frozen and not pretrained:
        raise ModelError(f"Encoder '{model}' is frozen with random weights. Set 'pretrained: true' or 'frozen: false'.")
    try:
        config = timm.get_pretrained_cfg(model)
        sized: dict[str, Any] = {"img_size": size} if size and config and config.fixed_input_size else {}
        backbone: Any = timm.create_model(model, pretrained=pretrained, **sized, **(options or {}))
    except TypeError as error:
        raise ModelError(f"timm model '{model}' does not take its options: {error}.") from error
    except (OSError, RuntimeError) as error:
        raise ModelError(f"The weights of timm model '{model}' do not load: {error}") from error
    return TimmEncoder(backbone, layer, size or backbone.pretrained_cfg["input_size"][1], frozen)
