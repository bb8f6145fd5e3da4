"""`Batch`, the input of the model, and the attention mask of its token rows."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from unirs.data.memory_features import FeatureKey
from unirs.errors import UniRSError
from unirs.metrics.base import Prediction
from unirs.tasks.media import Media, Modality

PASS_TOKENS = {"cpu": 64, "cuda": 2048}
"""Tokens whose computation takes as long as what a pass of the language model costs besides its tokens, by device. GPUs
launch kernels, which depends on their number only."""

T = TypeVar("T")


class Opaque(Generic[T]):
    """Items that Lightning ignores when it converts a batch's tensors to another precision: it rejects frozen ones."""

    def __init__(self, items: Collection[T]) -> None:
        self._items = tuple(items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: object) -> bool:
        return item in self._items


@dataclass(frozen=True)
class SkippedSample:
    """A sample that another one of its data set replaces, since its media or text cannot be read."""

    task: str
    id: str
    media: tuple[str, ...]
    error: str


@dataclass
class Batch:
    """A collated batch: frames, the media that they belong to, and packed token rows.

    Letters: M media, F frames of all media, B rows of up to T tokens, Q prompts to complete.

    Attributes:
        frames: uint8 `[F, 3, H, W]`, the frames of all media without cached features, one media item after another.
        modalities: M, modality of each media item.
        num_frames: M, number of frames of each media item.
        row_media: B, indices of the media in each row, in the order of their visual tokens.
        input_ids: int64 `[B, T]`, token ids; 0 for padding and visual tokens.
        visual_mask: bool `[B, T]`, true for visual tokens.
        branch_end: int64 `[B, T]`, index of the first position that may not attend to this token; 0 for padding.
        labels: int64 `[B, T]`, token ids to learn; `IGNORE` elsewhere.
        loss_weights: float32 `[B, T]`, weight of each label in the loss.
        prompt_ends: Q, row and position of the last token of each prompt; evaluation only.
        queries: Q, id, references and text of each prompt; evaluation only.
        vision_features: M, cached encoder features `[k, L, Dv]`, or None if the frames are to be encoded.
        feature_keys: M, keys of features that are to be cached, or None; empty for batches made by hand.
        num_fillers: number of media items that have no weight in the loss.
        sample_ids: M, task and id of each sample, for messages.
        skipped: samples that could not be read, and are replaced by others of this batch.
        processor_key: key of the `Processor` that made the batch; empty for batches made by hand.
        eval_set: name of the evaluation set; empty in training.
        labeled: the same examples with their answers as a training batch without frames, for a validation loss.
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
    queries: Collection[Prediction] = ()
    vision_features: tuple[torch.Tensor | None, ...] = ()
    feature_keys: tuple[FeatureKey | None, ...] = ()
    num_fillers: int = 0
    sample_ids: tuple[str, ...] = ()
    skipped: Collection[SkippedSample] = ()
    processor_key: str = ""
    eval_set: str = ""
    labeled: "Batch | None" = None

    def __post_init__(self) -> None:
        self.queries, self.skipped = Opaque(self.queries), Opaque(self.skipped)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch on a device."""
        return self._map_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same batch in pinned memory."""
        return self._map_tensors(lambda tensor: tensor.pin_memory())

    def share_memory(self) -> "Batch":
        """The same batch in shared memory, for another process."""
        return self._map_tensors(share_memory)

    @property
    def num_samples(self) -> int:
        """Number of samples that count in the loss."""
        return len(self.modalities) - self.num_fillers

    def token_mask(self) -> torch.Tensor:
        """Bool `[B, T]`, false for padding."""
        return self.branch_end > 0

    def prompt_lengths(self) -> list[int]:
        """Number of tokens that the last token of each prompt attends to, itself included; Q."""
        rows, ends = torch.tensor(self.prompt_ends, device=self.branch_end.device).view(-1, 2).unbind(1)
        before = torch.arange(self.branch_end.shape[1], device=rows.device) <= ends.unsqueeze(1)
        lengths: list[int] = (before & (self.branch_end[rows] > ends.unsqueeze(1))).sum(1).tolist()
        return lengths

    def _map_tensors(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        tensors: dict[str, Any] = {name: change(v) for name, v in vars(self).items() if isinstance(v, torch.Tensor)}
        features = tuple(None if one is None else change(one) for one in self.vision_features)
        labeled = None if self.labeled is None else self.labeled._map_tensors(change)
        return replace(self, **tensors, vision_features=features, labeled=labeled)


def share_memory(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of a batch in shared memory, for another process.

    Raises:
        UniRSError: it does not fit.
    """
    try:
        # Empty tensors cannot be shared, and need not be.
        return tensor.share_memory_() if tensor.numel() else tensor
    except RuntimeError as error:
        raise UniRSError(
            f"A batch of a loader worker does not fit in shared memory ({error}). Lower the batch size or the "
            "number of workers, or give a container more shared memory (docker run --shm-size 1g)."
        ) from error


def tree_attention_mask(branch_end: torch.Tensor, bidirectional: torch.Tensor | None = None) -> torch.Tensor:
    """The attention mask of token rows that branch.

    Position i attends to position j if j <= i (causal) and i < branch_end[j] (the branch of j is still open). Padding
    attends to itself only, since attention to nothing is undefined. For a prefix P with two branches A and B, then
    padding, `branch_end` is `[N, N, 4, 4, 6, 6, 0]` with N = `NO_END`:

            P P A A B B .
        P   1 0 0 0 0 0 0
        P   1 1 0 0 0 0 0
        A   1 1 1 0 0 0 0
        A   1 1 1 1 0 0 0
        B   1 1 0 0 1 0 0
        B   1 1 0 0 1 1 0
        .   0 0 0 0 0 0 1

    Position ids follow from the mask: a token's position is the number of tokens before it that it attends to,
    `mask.sum(2) - 1`. Both branches above have positions 2 and 3, as if each followed the prefix alone.

    Args:
        branch_end: int64 `[B, T]`, see `Batch`.
        bidirectional: bool `[B, T]`, tokens that attend to all adjacent ones of these, also later ones: the visual
            tokens of an image, for language models that were trained so. They do not count for the position ids.

    Returns:
        Bool `[B, T, T]`, true if the row's position attends to the column's.
    """
    index = torch.arange(branch_end.shape[1], device=branch_end.device)
    causal = index.unsqueeze(1) >= index
    open_branch = index.unsqueeze(1) < branch_end.unsqueeze(1)
    is_token = (branch_end > 0).unsqueeze(2)
    mask = (causal & open_branch & is_token) | (index.unsqueeze(1) == index)
    if bidirectional is None:
        return mask
    # Number of tokens outside of runs up to each token: equal inside a run.
    runs = (~bidirectional).cumsum(1)
    same_run = (runs.unsqueeze(2) == runs.unsqueeze(1)) & bidirectional.unsqueeze(2) & bidirectional.unsqueeze(1)
    return mask | same_run


def sliding_window_mask(mask: torch.Tensor, window: int) -> torch.Tensor:
    """Limits an attention mask to keys less than `window` positions before the query, bool `[B, T, S + T]`.

    The mask is that of T tokens over S cached ones and themselves. The distance of two tokens is the number of tokens
    between them that the later one attends to, so that branches count as if each were alone.
    """
    causal = mask.tril(mask.shape[2] - mask.shape[1])
    distance = causal.flip(2).cumsum(2).flip(2)
    return mask & (distance <= window)


def num_image_slots(media: Media, *, fused: bool, num_frames: int | None = None) -> int:
    """Number of images whose visual tokens represent an input.

    `fused` if a change extractor fuses pairs; `num_frames` with tiles, by default without.
    """
    count = media.num_frames if num_frames is None else num_frames
    return 1 if media.modality == "pair" and fused else count


def group_by_length(branch_end: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
    """Groups right-padded rows, `branch_end` `[B, T]`, by length: short rows are not padded to the longest one.

    Returns the indices of the rows of each group, and the length of its longest row, of the groups that cost least in
    all: each costs its tokens with padding, and `PASS_TOKENS`.
    """
    lengths, rows = (branch_end > 0).sum(1).sort(descending=True, stable=True)
    widths = lengths.cpu().numpy().astype(float)
    per_pass = PASS_TOKENS.get(branch_end.device.type, PASS_TOKENS["cuda"])
    # Of the longest rows, by their number: the least cost, and where their last group begins.
    costs, starts = np.zeros(len(widths) + 1), [0]
    for end in range(1, len(widths) + 1):
        of_last = costs[:end] + per_pass + widths[:end] * np.arange(end, 0, -1)
        starts.append(int(of_last.argmin()))
        costs[end] = of_last[starts[end]]
    groups, end = [], len(widths)
    while end:
        start = starts[end]
        groups.append((rows[start:end], int(widths[start])))
        end = start
    return groups[::-1]
