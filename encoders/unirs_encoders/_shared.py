"""Common code of the encoder plugins: the encoder around a network, and checks of options."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from unirs.errors import ModelError
from unirs.models import Lora, TuningMode, merge_adapters, set_tuning, train_adapters
from unirs.tasks import ResizeMode, ResizeSpec

Pretrained = bool | Literal["given"]
"""Weights of the source; random weights (false); or weights that a saved model provides later."""


class FrameEncoder(nn.Module):
    """An `unirs.interfaces.Encoder` around a network of another library.

    Args:
        tower: maps normalized frames `[F, 3, H, W]` to a feature map `[F, D, h, w]`.
        name: of the tower, for messages.
        image_size: height and width in pixels of the frames.
        mean: of red, green and blue, 0..1.
        std: of red, green and blue, 0..1.
        resize_mode: resizes images of another shape to `image_size`; `pad` pads with the mean color.
        max_tiles: see `ResizeSpec`.
        tune: which weights are trained.
        lora: adapters, for `tune: lora`.
        init_config: the plugin's options that build the same tower without weights; tuning and resize mode are added.

    Raises:
        ModelError: LoRA does not fit, or the tower does not take frames of this size.
    """

    def __init__(
        self,
        tower: nn.Module,
        name: str,
        *,
        image_size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        resize_mode: ResizeMode,
        max_tiles: int = 0,
        tune: TuningMode,
        lora: Lora,
        init_config: dict[str, Any],
    ) -> None:
        super().__init__()
        self.tower = tower
        self.image_size = image_size
        self.resize = ResizeSpec(resize_mode, (_byte(mean[0]), _byte(mean[1]), _byte(mean[2])), max_tiles)
        self.tune: TuningMode = tune
        self.init_config = {
            **init_config,
            "resize_mode": resize_mode,
            "max_tiles": max_tiles,
            "tune": tune,
            "lora": lora.as_options() if tune == "lora" else None,
        }
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", 255 * torch.tensor(list(mean)).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(list(std)).view(3, 1, 1), persistent=False)
        set_tuning(tower, tune, lora)
        tower.eval()
        # Overrides the caller's gradient mode.
        with torch.set_grad_enabled(tune != "frozen"):
            with takes(name, image_size):
                feature_map = tower(torch.zeros(1, 3, *image_size))
            _freeze_unused(tower, feature_map)
        self.embed_dim: int = feature_map.shape[1]
        self.grid: tuple[int, int] = (feature_map.shape[2], feature_map.shape[3])
        # Modules start in training mode; a frozen one does not, so that its batch statistics stay without `train()`.
        self.train()

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Encodes uint8 `[F, 3, H, W]` to `[F, L, D]`."""
        x = (frames - self.mean) / self.std
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.tune != "frozen"):
            feature_map: torch.Tensor = self.tower(x)
            return feature_map.flatten(2).transpose(1, 2)

    def train(self, mode: bool = True) -> "FrameEncoder":
        """Sets training mode; weights that are not trained stay in evaluation mode."""
        super().train(mode and self.tune != "frozen")
        if self.tune == "lora":
            train_adapters(self.tower, mode)
        return self

    def merge_adapters(self) -> None:
        """Merges LoRA adapters into the weights, in place; the encoder is then frozen."""
        merge_adapters(self.tower)
        self.tune = "frozen"
        self.init_config |= {"tune": "frozen", "lora": None}


def check_options(name: str, pretrained: Pretrained, tune: TuningMode, lora: dict[str, Any] | None) -> Lora:
    """Checks that the common options of the plugins fit together, and parses `lora`; raises `ModelError`."""
    if lora is not None and tune != "lora":
        raise ModelError(f"Encoder options 'lora' and 'tune: {tune}' exclude each other. Set 'tune: lora'.")
    if pretrained is False and tune != "full":
        raise ModelError(
            f"Encoder '{name}' has random weights and 'tune: {tune}'. Name pretrained weights, or set 'tune: full'."
        )
    return Lora.parse(lora or {})


@contextmanager
def takes(name: str, size: tuple[int, int]) -> Iterator[None]:
    """Converts errors of a network that does not take frames of a size to a `ModelError`."""
    try:
        yield
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"Encoder '{name}' does not take frames of {size[0]}x{size[1]} pixels. Set another 'image_size'. {error}"
        ) from error


def _byte(share: float) -> int:
    # Rounded down, as LLaVA and VILA do.
    return min(255, max(0, int(255 * share)))


def _freeze_unused(tower: nn.Module, feature_map: torch.Tensor) -> None:
    """Converts parameters that the map does not depend on, such as a mask token, to buffers.

    Data parallel training waits for the gradients of all trained parameters; and checkpoints omit parameters that are
    not trained, although these may be random.
    """
    trained = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    if not trained:
        return
    gradients = torch.autograd.grad(feature_map.sum(), trained, allow_unused=True)
    unused = {id(p) for p, gradient in zip(trained, gradients, strict=True) if gradient is None}
    for module in tower.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in unused:
                delattr(module, name)
                module.register_buffer(name, parameter.detach())
