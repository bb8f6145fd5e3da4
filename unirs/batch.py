"""What the model eats: frames, the media they belong to, and token sequences about them."""

from collections.abc import Callable
from collections.abc import Sequence as List
from dataclasses import dataclass, replace

import torch

from unirs.media import Media, MediaKind
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
        until: int64 `[B, T]`, the index from which on no token sees this one; 0 for padding.
        labels: int64 `[B, T]`, `IGNORE` where nothing is learnt.
        rows: what each sequence asks, in evaluation; B, or empty in training.
    """

    frames: torch.Tensor
    kinds: tuple[MediaKind, ...]
    counts: tuple[int, ...]
    owners: tuple[int, ...]
    ids: torch.Tensor
    visual: torch.Tensor
    until: torch.Tensor
    labels: torch.Tensor
    rows: tuple[Prediction, ...] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch on a device; Lightning calls it."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same batch in pinned memory; the DataLoader calls it."""
        return self._with(lambda tensor: tensor.pin_memory())

    def attention(self) -> torch.Tensor:
        """Which token sees which, bool `[B, T, T]`: causally, and no branch another. Padding sees itself only."""
        index = torch.arange(self.ids.shape[1], device=self.ids.device)
        seen = (index.unsqueeze(1) >= index) & (index.unsqueeze(1) < self.until.unsqueeze(1))
        return (seen & self.real().unsqueeze(2)) | (index.unsqueeze(1) == index)

    def positions(self) -> torch.Tensor:
        """Position ids `[B, T]`: how many tokens each sees before itself; 0 for padding."""
        return self.attention().sum(2) - 1

    def real(self) -> torch.Tensor:
        """Where no padding stands, bool `[B, T]`."""
        return self.until > 0

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        return replace(
            self,
            frames=change(self.frames),
            ids=change(self.ids),
            visual=change(self.visual),
            until=change(self.until),
            labels=change(self.labels),
        )


def grids(media: Media, *, fused: bool) -> int:
    """How many pictures' worth of visual tokens a medium costs: one for an image or a pair whose times are fused."""
    return 1 if media.kind == "pair" and fused else media.count


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
    shifts = [longest - len(sequence.ids) if left else 0 for sequence in sequences]

    def pad(values: List[List[int]], fill: int) -> torch.Tensor:
        rows = torch.full((len(values), longest), fill)
        for row, shift, value in zip(rows, shifts, values, strict=True):
            row[shift : shift + len(value)] = torch.tensor(value)
        return rows

    until = [[end + shift for end in sequence.until] for sequence, shift in zip(sequences, shifts, strict=True)]
    return Batch(
        frames=torch.cat(list(frames)),
        kinds=tuple(kinds),
        counts=tuple(len(frame) for frame in frames),
        owners=tuple(owners),
        ids=pad([sequence.ids for sequence in sequences], 0),
        visual=pad([sequence.visual for sequence in sequences], 0).bool(),
        until=pad(until, 0),
        labels=pad([sequence.labels for sequence in sequences], IGNORE),
    )
