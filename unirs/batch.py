"""What the model eats: frames, the media they belong to, and token sequences about them."""

from collections.abc import Callable
from collections.abc import Sequence as List
from dataclasses import dataclass, replace

import torch

from unirs.media import Media, MediaKind
from unirs.metrics.base import Prediction
from unirs.prompt import IGNORE, Sequence

SHORT = 512
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
    kinds: tuple[MediaKind, ...]
    counts: tuple[int, ...]
    owners: tuple[tuple[int, ...], ...]
    ids: torch.Tensor
    visual: torch.Tensor
    until: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    asks: tuple[tuple[int, int], ...] = ()
    rows: tuple[Prediction, ...] = ()
    features: tuple[torch.Tensor | None, ...] = ()
    media: tuple[Media | None, ...] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch on a device; Lightning calls it."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same batch in pinned memory; the DataLoader calls it."""
        return self._with(lambda tensor: tensor.pin_memory())

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
            weights=change(self.weights),
            features=tuple(None if one is None else change(one) for one in self.features),
        )


def attention(until: torch.Tensor) -> torch.Tensor:
    """Which token sees which, bool `[B, T, T]`: causally, and no branch another. Padding sees itself only.

    A token's position is how many tokens it sees before itself, `attention(until).sum(2) - 1`.

    Args:
        until: as in `Batch`.
    """
    index = torch.arange(until.shape[1], device=until.device)
    seen = (index.unsqueeze(1) >= index) & (index.unsqueeze(1) < until.unsqueeze(1))
    return (seen & (until > 0).unsqueeze(2)) | (index.unsqueeze(1) == index)


def grids(media: Media, *, fused: bool) -> int:
    """How many pictures' worth of visual tokens a medium costs: one for an image or a pair whose times are fused."""
    return 1 if media.kind == "pair" and fused else media.count


def pack(sequences: List[Sequence]) -> tuple[list[Sequence], list[tuple[int, ...]]]:
    """Puts short sequences behind each other, so that rows need little padding (first fit, longest first).

    Args:
        sequences: what is said about one medium each.

    Returns:
        Rows, and which media each speaks of. A row is no longer than its longest sequence, or than the shorter of the
        longest sequence of all and `SHORT`: the cost of attention grows with the square of a row's length.
    """
    usual = min(SHORT, max(len(sequence.ids) for sequence in sequences))
    rows: list[Sequence] = []
    owners: list[tuple[int, ...]] = []
    room: list[int] = []
    for owner in sorted(range(len(sequences)), key=lambda index: -len(sequences[index].ids)):
        sequence = sequences[owner]
        length = len(sequence.ids)
        index = next((index for index, left in enumerate(room) if length <= left), len(rows))
        if index == len(rows):
            rows.append(Sequence())
            owners.append(())
            room.append(max(length, usual))
        rows[index].append(sequence)
        owners[index] += (owner,)
        room[index] -= length
    return rows, owners


def by_length(until: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
    """Parts right-padded rows so that long ones cost short ones no padding.

    Args:
        until: as in `Batch`.

    Returns:
        For each part the indices of its rows and the length of the longest. The others are more than half as long, or
        the longest is no longer than `SHORT`.
    """
    lengths = (until > 0).sum(1)
    parts = []
    left = torch.arange(len(lengths), device=until.device)
    while len(left):
        longest = int(lengths[left].max())
        here = lengths[left] > (longest // 2 if longest > SHORT else 0)
        parts.append((left[here], longest))
        left = left[~here]
    return parts


def collate(
    frames: List[torch.Tensor | None],
    kinds: List[MediaKind],
    rows: List[Sequence],
    owners: List[tuple[int, ...]],
    *,
    left: bool = False,
    features: List[torch.Tensor | None] | None = None,
) -> Batch:
    """Pads rows to one length.

    Args:
        frames: uint8 `[k, 3, H, W]` for each medium; None where its features are given.
        kinds: the kind of each medium.
        rows: what is said about the media.
        owners: which media each row speaks of.
        left: pad on the left, as language models that know no branches need it to generate.
        features: what the encoder sees in each medium, `[k, L, Dv]`, where that is known.
    """
    longest = max(len(row.ids) for row in rows)
    shifts = [longest - len(row.ids) if left else 0 for row in rows]

    def pad(values: List[List[int]] | List[List[float]], fill: float) -> torch.Tensor:
        padded = torch.full((len(values), longest), fill)
        for row, shift, value in zip(padded, shifts, values, strict=True):
            row[shift : shift + len(value)] = torch.tensor(value)
        return padded

    known = features or [None] * len(frames)
    counts = [len(seen if one is None else one) for one, seen in zip(frames, known, strict=True)]  # type: ignore[arg-type]
    until = [[end + shift for end in row.until] for row, shift in zip(rows, shifts, strict=True)]
    return Batch(
        frames=torch.cat([one for one in frames if one is not None] or [torch.empty(0, 3, 0, 0, dtype=torch.uint8)]),
        kinds=tuple(kinds),
        counts=tuple(counts),
        owners=tuple(owners),
        ids=pad([row.ids for row in rows], 0),
        visual=pad([row.visual for row in rows], 0).bool(),
        until=pad(until, 0),
        labels=pad([row.labels for row in rows], IGNORE),
        weights=pad([row.weights for row in rows], 0.0),
        asks=tuple((index, ask + shifts[index]) for index, row in enumerate(rows) for ask in row.asks),
        features=tuple(known),
    )
