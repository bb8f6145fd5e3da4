"""Media with perturbed frames, for baselines that show whether a model uses its input."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from unirs.tasks.media import STRETCH, Media, Modality, ResizeSpec, frame_labels, with_reader
from unirs.utils.hashing import hash_parts

if TYPE_CHECKING:
    import torch

Perturbation = Literal["blank", "swap_times", "repeat_first", "shuffle_frames"]
"""Black frames; `after` before `before`; the first frame instead of all; frames in another order."""

PERTURBATIONS: Mapping[Modality, tuple[Perturbation, ...]] = {
    "image": ("blank",),
    "pair": ("blank", "swap_times", "repeat_first"),
    "video": ("blank", "repeat_first", "shuffle_frames"),
    "series": ("blank", "repeat_first", "shuffle_frames"),
}
"""Perturbations that apply to a modality. A model that scores as well on them does not use its visual input."""


@dataclass(frozen=True, slots=True)
class PerturbedMedia:
    """Media whose frames are perturbed."""

    media: Media
    perturbation: Perturbation

    @property
    def modality(self) -> Modality:
        """The modality of the original."""
        return self.media.modality

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of the original."""
        return self.media.sources

    @property
    def num_frames(self) -> int:
        """Number of frames that `load_frames` returns."""
        return self.media.num_frames

    @property
    def frame_labels(self) -> tuple[str, ...]:
        """The labels of the original, in its order: shuffled frames have dates of others."""
        return frame_labels(self.media)

    def with_reader(self, reader: str) -> PerturbedMedia:
        """See `DecodesVideo.with_reader`."""
        return replace(self, media=with_reader(self.media, reader))

    def load_frames(self, size: tuple[int, int] | None = None, resize: ResizeSpec = STRETCH) -> torch.Tensor:
        """Decodes and perturbs the frames, see `Media.load_frames`.

        Black frames of a given size are made without decoding. The order of shuffled frames depends only on the name of
        the first source, and differs from the original order.
        """
        if self.perturbation == "blank" and size is not None:
            import torch

            return torch.zeros(self.num_frames, 3, *size, dtype=torch.uint8)
        frames = self.media.load_frames(size, resize)
        match self.perturbation:
            case "blank":
                return frames.zero_()
            case "swap_times":
                return frames.flip(0)
            case "repeat_first":
                return frames[:1].expand_as(frames).contiguous()
            case "shuffle_frames":
                return frames[_shuffled_order(self.num_frames, self._name)]

    def content_key(self) -> str:
        """See `Media.content_key`. That of black frames does not depend on the original's content."""
        if self.perturbation == "blank":
            return hash_parts(self.modality, self.num_frames, self.perturbation)
        salt = self._name if self.perturbation == "shuffle_frames" else ""
        return hash_parts(self.perturbation, salt, self.media.content_key())

    @property
    def _name(self) -> str:
        return os.path.basename(self.media.sources[0])  # noqa: PTH119 - a source need not be a path


def _shuffled_order(count: int, salt: str) -> list[int]:
    order = sorted(
        range(count), key=lambda index: hashlib.sha256(f"{salt}/{index}".encode(errors="surrogateescape")).digest()
    )
    # Rotated by one if it is the original order.
    return order[1:] + order[:1] if order == sorted(order) else order
