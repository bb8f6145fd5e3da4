"""What the encoder plugins share: bytes in, tokens out, and which weights learn."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import nn

from unirs.errors import ModelError, did_you_mean
from unirs.models import Lora, TuningMode, merge_adapters, set_tuning, train_adapters
from unirs.tasks import ResizeMode, ResizeSpec

Pretrained = bool | Literal["given"]
"""Weights from the source, random ones, or ones that a saved model is about to bring."""


class FrameEncoder(nn.Module):
    """An `unirs.interfaces.Encoder` around a network of another library.

    Args:
        tower: normalised frames `[F, 3, H, W]` to a map `[F, D, h, w]`.
        name: of the tower, for messages.
        image_size: height and width in pixels of its frames.
        mean: of red, green and blue, 0..1.
        std: of red, green and blue, 0..1.
        resize_mode: how pictures of another shape are brought to `image_size`; `pad` fills up with the mean colour.
        tune: what of it learns.
        lora: options of `unirs.models.tuning.Lora`, for `tune: lora`.
        init_config: the plugin's options that build the same tower without weights; tuning and resize mode are added.

    Raises:
        ModelError: an unknown `resize_mode` or `tune`, LoRA that does not fit, or a tower that does not take such
            frames.
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
        tune: TuningMode,
        lora: dict[str, Any] | None,
        init_config: dict[str, Any],
    ) -> None:
        super().__init__()
        adapters = check_choices(resize_mode, tune, lora)
        self.tower = tower
        self.image_size = image_size
        self.resize = ResizeSpec(resize_mode, (_byte(mean[0]), _byte(mean[1]), _byte(mean[2])))
        self.tune: TuningMode = tune
        self.init_config = {
            **init_config,
            "resize_mode": resize_mode,
            "tune": tune,
            "lora": adapters.as_options() if tune == "lora" else None,
        }
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", 255 * torch.tensor(list(mean)).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(list(std)).view(3, 1, 1), persistent=False)
        set_tuning(tower, tune, adapters)
        tower.eval()
        # Whatever mode the caller is in.
        with torch.set_grad_enabled(tune != "frozen"):
            with takes(name, image_size):
                feature_map = tower(torch.zeros(1, 3, *image_size))
            _leave_out_unreached(tower, feature_map)
        self.embed_dim: int = feature_map.shape[1]
        self.grid: tuple[int, int] = (feature_map.shape[2], feature_map.shape[3])
        # As any module begins, except where frozen: nobody need call `train` for the batch statistics to stay.
        self.train()

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Encodes uint8 `[F, 3, H, W]` to `[F, L, D]`."""
        x = (frames - self.mean) / self.std
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.tune != "frozen"):
            feature_map: torch.Tensor = self.tower(x)
            return feature_map.flatten(2).transpose(1, 2)

    def train(self, mode: bool = True) -> "FrameEncoder":
        """Sets training mode, in which pretrained weights that do not learn stay in evaluation mode."""
        super().train(mode and self.tune != "frozen")
        if self.tune == "lora":
            train_adapters(self.tower, mode)
        return self

    def merge_adapters(self) -> None:
        """Merges LoRA adapters into the weights, in place; the encoder is then frozen."""
        merge_adapters(self.tower)
        self.tune = "frozen"
        self.init_config |= {"tune": "frozen", "lora": None}


def check_choices(resize_mode: ResizeMode, tune: TuningMode, lora: dict[str, Any] | None) -> Lora:
    """Checks what both plugins offer, before anything is loaded.

    Raises:
        ModelError: an unknown `resize_mode`, `tune` or option of `lora`, with the nearest match; or `lora` without
            its `tune`.
    """
    for option, value, known in (
        ("resize_mode", resize_mode, get_args(ResizeMode)),
        ("tune", tune, get_args(TuningMode)),
    ):
        if value not in known:
            raise ModelError(f"Encoder option '{option}' has no value '{value}'. {did_you_mean(str(value), known)}")
    if lora is not None and tune != "lora":
        raise ModelError(f"Encoder options 'lora' and 'tune: {tune}' exclude each other. Set 'tune: lora'.")
    return Lora.parse(lora or {})


def check_random(name: str, pretrained: Pretrained, tune: TuningMode) -> None:
    """Checks that random weights would learn.

    Raises:
        ModelError: `pretrained` is no such value, or is false while `tune` is not `full`.
    """
    if not isinstance(pretrained, bool) and pretrained != "given":
        raise ModelError(f"Encoder option 'pretrained' is true or false, not '{pretrained}'.")
    if pretrained is False and tune != "full":
        raise ModelError(
            f"Encoder '{name}' has random weights and 'tune: {tune}'. Name pretrained weights, or set 'tune: full'."
        )


@contextmanager
def takes(name: str, size: tuple[int, int]) -> Iterator[None]:
    """Says what went wrong where a network, shown frames of a size, gives up.

    Raises:
        ModelError: it does.
    """
    try:
        yield
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"Encoder '{name}' does not take frames of {size[0]}x{size[1]} pixels. Set another 'image_size'. {error}"
        ) from error


def _byte(share: float) -> int:
    return min(255, max(0, round(255 * share)))


def _leave_out_unreached(tower: nn.Module, feature_map: torch.Tensor) -> None:
    """Makes buffers of weights that the map does not depend on, such as a mask token.

    Data parallel training waits for a gradient of every weight that learns, and checkpoints leave out those that do
    not, since their source has them; these may have come from nowhere.
    """
    learning = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    if not learning:
        return
    gradients = torch.autograd.grad(feature_map.sum(), learning, allow_unused=True)
    unreached = {id(p) for p, gradient in zip(learning, gradients, strict=True) if gradient is None}
    for module in tower.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in unreached:
                delattr(module, name)
                module.register_buffer(name, parameter.detach())
