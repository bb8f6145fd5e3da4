"""Packs token sequences into rows, and decoded examples into batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from unirs.data.batch import SHORT_ROW, Batch
from unirs.data.dataset import Example, VisualInput
from unirs.data.prompt_encoder import PromptEncoder
from unirs.data.token_tree import IGNORE, TokenTree
from unirs.metrics.base import Prediction
from unirs.tasks.media import Media, Modality
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Turn


def pack_rows(trees: Sequence[TokenTree]) -> tuple[list[TokenTree], list[tuple[int, ...]]]:
    """Puts short sequences behind each other, so that rows need little padding (first fit, longest first).

    Args:
        trees: what is said about one medium each.

    Returns:
        Rows, and which media each speaks of. A row is no longer than its longest sequence, or than the shorter of the
        longest sequence of all and `SHORT`: the cost of attention grows with the square of a row's length.
    """
    usual = min(SHORT_ROW, max(len(sequence.input_ids) for sequence in trees))
    rows: list[TokenTree] = []
    owners: list[tuple[int, ...]] = []
    room: list[int] = []
    for owner in sorted(range(len(trees)), key=lambda index: -len(trees[index].input_ids)):
        sequence = trees[owner]
        length = len(sequence.input_ids)
        index = next((index for index, left in enumerate(room) if length <= left), len(rows))
        if index == len(rows):
            rows.append(TokenTree())
            owners.append(())
            room.append(max(length, usual))
        rows[index].append(sequence)
        owners[index] += (owner,)
        room[index] -= length
    return rows, owners


def collate(
    frames: Sequence[torch.Tensor | None],
    modalities: Sequence[Modality],
    rows: Sequence[TokenTree],
    row_media: Sequence[tuple[int, ...]],
    *,
    pad_left: bool = False,
    vision_features: Sequence[torch.Tensor | None] | None = None,
) -> Batch:
    """Pads rows to one length.

    Args:
        frames: uint8 `[k, 3, H, W]` for each medium; None where its features are given.
        modalities: the kind of each medium.
        rows: what is said about the media.
        row_media: which media each row speaks of.
        pad_left: pad on the left, as language models that know no branches need it to generate.
        vision_features: what the encoder sees in each medium, `[k, L, Dv]`, where that is known.
    """
    longest = max(len(row.input_ids) for row in rows)
    shifts = [longest - len(row.input_ids) if pad_left else 0 for row in rows]

    def pad(values: Sequence[Sequence[int]] | Sequence[Sequence[float]], fill: float) -> torch.Tensor:
        padded = torch.full((len(values), longest), fill)
        for row, shift, value in zip(padded, shifts, values, strict=True):
            row[shift : shift + len(value)] = torch.tensor(value)
        return padded

    known = vision_features or [None] * len(frames)
    counts = [len(seen if one is None else one) for one, seen in zip(frames, known, strict=True)]  # type: ignore[arg-type]
    until = [[end + shift for end in row.branch_end] for row, shift in zip(rows, shifts, strict=True)]
    return Batch(
        frames=torch.cat([one for one in frames if one is not None] or [torch.empty(0, 3, 0, 0, dtype=torch.uint8)]),
        modalities=tuple(modalities),
        num_frames=tuple(counts),
        row_media=tuple(row_media),
        input_ids=pad([row.input_ids for row in rows], 0),
        visual_mask=pad([row.visual_mask for row in rows], 0).bool(),
        branch_end=pad(until, 0),
        labels=pad([row.labels for row in rows], IGNORE),
        loss_weights=pad([row.loss_weights for row in rows], 0.0),
        prompt_ends=tuple((index, ask + shifts[index]) for index, row in enumerate(rows) for ask in row.prompt_ends),
        vision_features=tuple(known),
    )


_PROMPT_TOKENS_PER_ROW = 256
"""Tokens of questions in a row of an evaluation: attention costs less where they are few, all else where many."""


@dataclass(frozen=True, eq=False)
class Collator:
    """Makes a batch of decoded items; turns of a sample stand in common sequences where the model takes branches.

    Attributes:
        renderer: makes token ids.
        prompts: of each task.
        grids: how many pictures' worth of visual tokens a medium costs.
        tokens: visual tokens a picture.
        training: whether answers are in the sequences.
        branches: whether the model takes sequences that branch.
    """

    prompt_encoder: PromptEncoder
    prompts: Mapping[str, PromptTemplate]
    num_image_slots: Callable[[Media], int]
    tokens_per_image: int
    training: bool
    supports_tree_attention: bool = True

    def __call__(self, items: Sequence[tuple[Example, VisualInput]]) -> Batch:
        """Batches items and what they show."""
        media = tuple(None if item.augment else item.sample.media for item, _ in items)
        return replace(self._batch(items), media=media)

    def _batch(self, items: Sequence[tuple[Example, VisualInput]]) -> Batch:
        frames, features = [shown.frames for _, shown in items], [shown.vision_features for _, shown in items]
        kinds = [item.sample.media.modality for item, _ in items]
        grids = [self.num_image_slots(item.sample.media) for item, _ in items]
        if self.training:
            asked = [
                (self.prompts[item.task], item.sample, count, self.tokens_per_image, item.clue)
                for (item, _), count in zip(items, grids, strict=True)
            ]
            if self.supports_tree_attention:
                rows, owners = pack_rows([self.prompt_encoder.encode_train(*one) for one in asked])
                return collate(frames, kinds, rows, owners, vision_features=features)
            plain = [
                (row, (owner,))
                for owner, one in enumerate(asked)
                for row in self.prompt_encoder.encode_train_flat(*one)
            ]
            rows, owners = [row for row, _ in plain], [owner for _, owner in plain]
            return collate(frames, kinds, rows, owners, vision_features=features)
        sequences, of, order = [], [], []
        told: list[Prediction] = []
        room = _PROMPT_TOKENS_PER_ROW if self.supports_tree_attention else 0
        for owner, ((item, _), count) in enumerate(zip(items, grids, strict=True)):
            prompt = self.prompts[item.task]
            for sequence, turns in self.prompt_encoder.encode_prompts(
                prompt, item.sample, count, self.tokens_per_image, item.clue, room
            ):
                sequences.append(sequence)
                of.append((owner,))
                order += [len(told) + turn for turn in turns]
            told += [
                _query(item, turn, self.prompt_encoder.render(prompt, turn, count, item.clue))
                for turn in item.sample.turns
            ]
        batch = collate(
            frames, kinds, sequences, of, pad_left=not self.supports_tree_attention, vision_features=features
        )
        asks = dict(zip(order, batch.prompt_ends, strict=True))
        return replace(batch, prompt_ends=tuple(asks[question] for question in range(len(told))), queries=tuple(told))


def _query(item: Example, turn: Turn, prompt: str) -> Prediction:
    media = tuple(map(str, item.sample.media.paths))
    return Prediction(turn.id, item.task, media, turn.category, prompt, "", turn.references, item.clue)
