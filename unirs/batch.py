"""What the model eats: frames, the media they belong to, and token sequences about them."""

from collections.abc import Callable
from collections.abc import Sequence as List
from dataclasses import dataclass, replace

import torch

from unirs.media import MediaKind
from unirs.metrics.base import Prediction
from unirs.prompt import IGNORE, Sequence


@dataclass
class Batch:
    """A mixed batch. M media, F frames in all, B sequences of up to T tokens.

    Attributes:
        frames: uint8 `[F, 3, H, W]`, medium by medium.
        kinds: the kind of each medium, M.
        counts: frames of each medium, M.
        owners: which medium each sequence speaks of, B.
        ids: int64 `[B, T]`; 0 where padding or a visual token stands.
        visual: bool `[B, T]`, where visual tokens stand.
        segments: int64 `[B, T]`: -1 padding, 0 prefix, 1, 2, … turns.
        labels: int64 `[B, T]`, `IGNORE` where nothing is learnt.
        rows: what each sequence asks, in evaluation; B, or empty in training.
    """

    frames: torch.Tensor
    kinds: tuple[MediaKind, ...]
    counts: tuple[int, ...]
    owners: tuple[int, ...]
    ids: torch.Tensor
    visual: torch.Tensor
    segments: torch.Tensor
    labels: torch.Tensor
    rows: tuple[Prediction, ...] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch on a device; Lightning calls it."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same batch in pinned memory; the DataLoader calls it."""
        return self._with(lambda tensor: tensor.pin_memory())

    def positions(self) -> torch.Tensor:
        """Position ids `[B, T]`: each turn continues the prefix, whatever stands between; 0 for padding."""
        prefix = (self.segments == 0).sum(1, keepdim=True)
        index = torch.arange(self.ids.shape[1], device=self.ids.device).expand_as(self.ids)
        begins = torch.ones_like(self.segments, dtype=torch.bool)
        begins[:, 1:] = self.segments[:, 1:] != self.segments[:, :-1]
        begin = torch.where(begins, index, 0).cummax(1).values
        return torch.where(self.segments > 0, prefix, 0).where(self.segments >= 0, 0) + (index - begin) * (
            self.segments >= 0
        )

    def attention(self) -> torch.Tensor:
        """Which token sees which, bool `[B, T, T]`: the prefix and its own turn, causally. Padding sees itself only."""
        seen = (self.segments.unsqueeze(2) == self.segments.unsqueeze(1)) | (self.segments.unsqueeze(1) == 0)
        seen = seen & (self.segments >= 0).unsqueeze(2)
        t = self.ids.shape[1]
        causal = torch.ones(t, t, dtype=torch.bool, device=self.ids.device).tril()
        return (seen & causal) | torch.eye(t, dtype=torch.bool, device=self.ids.device)

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        return replace(
            self,
            frames=change(self.frames),
            ids=change(self.ids),
            visual=change(self.visual),
            segments=change(self.segments),
            labels=change(self.labels),
        )


def collate(
    frames: List[torch.Tensor], kinds: List[MediaKind], sequences: List[Sequence], owners: List[int], *, left: bool
) -> Batch:
    """Pads sequences to one length.

    Args:
        frames: uint8 `[k, 3, H, W]` for each medium.
        kinds: the kind of each medium.
        sequences: what is said about the media.
        owners: which medium each sequence speaks of.
        left: pad on the left, as generation needs it.
    """
    longest = max(len(sequence.ids) for sequence in sequences)

    def pad(values: List[List[int]], fill: int) -> torch.Tensor:
        rows = [
            [fill] * (longest - len(row)) + list(row) if left else list(row) + [fill] * (longest - len(row))
            for row in values
        ]
        return torch.tensor(rows)

    return Batch(
        frames=torch.cat(list(frames)),
        kinds=tuple(kinds),
        counts=tuple(len(frame) for frame in frames),
        owners=tuple(owners),
        ids=pad([sequence.ids for sequence in sequences], 0),
        visual=pad([sequence.visual for sequence in sequences], 0).bool(),
        segments=pad([sequence.segments for sequence in sequences], -1),
        labels=pad([sequence.labels for sequence in sequences], IGNORE),
    )
