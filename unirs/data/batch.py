"""What the model eats: frames, the media they belong to, and token sequences about them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from unirs.metrics.base import Prediction
from unirs.tasks.media import Media, Modality

SHORT_ROW = 512
"""Tokens of a row up to which attention costs little beside all else."""


@dataclass
class Batch:
    """A mixed batch. M media, F frames in all, B rows of up to T tokens.

    Attributes:
        frames: uint8 `[F, 3, H, W]`, medium by medium, of media without features.
        kinds: the kind of each medium, M.
        counts: frames of each medium, M.
        owners: which media each row speaks of, in their order; B.
        ids: int64 `[B, T]`; 0 where padding or a visual token stands.
        visual: bool `[B, T]`, where visual tokens stand.
        until: int64 `[B, T]`, the index from which on no token sees this one; 0 for padding.
        labels: int64 `[B, T]`, `IGNORE` where nothing is learnt.
        weights: float32 `[B, T]`, how much each label counts in the loss.
        asks: in evaluation, the row and the place of each question's last token; Q.
        rows: in evaluation, what each question asks; Q.
        features: what the encoder sees in each medium, `[k, L, Dv]`, None where it is still to look; M.
        media: M, None where something else is shown of them; empty where nobody need know.
    """

    frames: torch.Tensor
    modalities: tuple[Modality, ...]
    num_frames: tuple[int, ...]
    row_media: tuple[tuple[int, ...], ...]
    input_ids: torch.Tensor
    visual_mask: torch.Tensor
    branch_end: torch.Tensor
    labels: torch.Tensor
    loss_weights: torch.Tensor
    prompt_ends: tuple[tuple[int, int], ...] = ()
    queries: tuple[Prediction, ...] = ()
    vision_features: tuple[torch.Tensor | None, ...] = ()
    media: tuple[Media | None, ...] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch on a device; Lightning calls it."""
        return self._map_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same batch in pinned memory; the DataLoader calls it."""
        return self._map_tensors(lambda tensor: tensor.pin_memory())

    def token_mask(self) -> torch.Tensor:
        """Where no padding stands, bool `[B, T]`."""
        return self.branch_end > 0

    def _map_tensors(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        return replace(
            self,
            frames=change(self.frames),
            input_ids=change(self.input_ids),
            visual_mask=change(self.visual_mask),
            branch_end=change(self.branch_end),
            labels=change(self.labels),
            loss_weights=change(self.loss_weights),
            vision_features=tuple(None if one is None else change(one) for one in self.vision_features),
        )


def tree_attention_mask(branch_end: torch.Tensor) -> torch.Tensor:
    """Which token sees which, bool `[B, T, T]`: causally, and no branch another. Padding sees itself only.

    A token's position is how many tokens it sees before itself, `attention(until).sum(2) - 1`.

    Args:
        branch_end: as in `Batch`.
    """
    index = torch.arange(branch_end.shape[1], device=branch_end.device)
    seen = (index.unsqueeze(1) >= index) & (index.unsqueeze(1) < branch_end.unsqueeze(1))
    return (seen & (branch_end > 0).unsqueeze(2)) | (index.unsqueeze(1) == index)


def num_image_slots(media: Media, *, fused: bool) -> int:
    """How many pictures' worth of visual tokens a medium costs: one for an image or a pair whose times are fused."""
    return 1 if media.modality == "pair" and fused else media.num_frames


def group_by_length(branch_end: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
    """Parts right-padded rows so that long ones cost short ones no padding.

    Args:
        branch_end: as in `Batch`.

    Returns:
        For each part the indices of its rows and the length of the longest. The others are more than half as long, or
        the longest is no longer than `SHORT`.
    """
    lengths = (branch_end > 0).sum(1)
    parts = []
    left = torch.arange(len(lengths), device=branch_end.device)
    while len(left):
        longest = int(lengths[left].max())
        here = lengths[left] > (longest // 2 if longest > SHORT_ROW else 0)
        parts.append((left[here], longest))
        left = left[~here]
    return parts
