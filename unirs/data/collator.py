"""Packs token trees into rows, and decoded examples into batches."""

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

_PROMPT_TOKENS_PER_ROW = 256
"""Tokens of prompts in an evaluation row: short rows make attention cheap, long rows make everything else cheap."""


def pack_rows(trees: Sequence[TokenTree]) -> tuple[list[TokenTree], list[tuple[int, ...]]]:
    """Packs token trees into rows to save padding (first fit, longest first).

    Args:
        trees: one for each media item.

    Returns:
        Rows, and the indices of the media in each. No row is longer than its longest tree, or than the shorter of the
        longest tree of all and `SHORT_ROW`: the cost of attention grows with the square of a row's length.
    """
    capacity = min(SHORT_ROW, max(len(tree.input_ids) for tree in trees))
    rows: list[TokenTree] = []
    row_media: list[tuple[int, ...]] = []
    budgets: list[int] = []
    for index in sorted(range(len(trees)), key=lambda index: -len(trees[index].input_ids)):
        length = len(trees[index].input_ids)
        row = next((row for row, budget in enumerate(budgets) if length <= budget), len(rows))
        if row == len(rows):
            rows.append(TokenTree())
            row_media.append(())
            budgets.append(max(length, capacity))
        rows[row].append(trees[index])
        row_media[row] += (index,)
        budgets[row] -= length
    return rows, row_media


def collate(
    frames: Sequence[torch.Tensor | None],
    modalities: Sequence[Modality],
    rows: Sequence[TokenTree],
    row_media: Sequence[tuple[int, ...]],
    *,
    pad_left: bool = False,
    vision_features: Sequence[torch.Tensor | None] | None = None,
) -> Batch:
    """Pads rows to equal length.

    Args:
        frames: uint8 `[k, 3, H, W]` of each media item; None if its features are given.
        modalities: modality of each media item.
        rows: token trees.
        row_media: indices of the media in each row.
        pad_left: pad on the left, as language models without tree attention need it to generate.
        vision_features: cached encoder features `[k, L, Dv]` of each media item, or None.
    """
    longest = max(len(row.input_ids) for row in rows)
    shifts = [longest - len(row.input_ids) if pad_left else 0 for row in rows]

    def pad(values: Sequence[Sequence[int]] | Sequence[Sequence[float]], fill: float) -> torch.Tensor:
        padded = torch.full((len(values), longest), fill)
        for row, shift, value in zip(padded, shifts, values, strict=True):
            row[shift : shift + len(value)] = torch.tensor(value)
        return padded

    features = vision_features or [None] * len(frames)
    given = [cached if one is None else one for one, cached in zip(frames, features, strict=True)]
    branch_end = [[end + shift for end in row.branch_end] for row, shift in zip(rows, shifts, strict=True)]
    return Batch(
        frames=torch.cat([one for one in frames if one is not None] or [torch.empty(0, 3, 0, 0, dtype=torch.uint8)]),
        modalities=tuple(modalities),
        num_frames=tuple(len(one) for one in given if one is not None),
        row_media=tuple(row_media),
        input_ids=pad([row.input_ids for row in rows], 0),
        visual_mask=pad([row.visual_mask for row in rows], 0).bool(),
        branch_end=pad(branch_end, 0),
        labels=pad([row.labels for row in rows], IGNORE),
        loss_weights=pad([row.loss_weights for row in rows], 0.0),
        prompt_ends=tuple((index, end + shifts[index]) for index, row in enumerate(rows) for end in row.prompt_ends),
        vision_features=tuple(features),
    )


@dataclass(frozen=True, eq=False)
class Collator:
    """Collates decoded examples; turns of a sample share token rows if the model supports tree attention.

    Attributes:
        prompt_encoder: encodes prompts and answers as token ids.
        prompts: prompt template of each task.
        num_image_slots: number of images whose visual tokens represent a media item.
        tokens_per_image: visual tokens of one image.
        training: whether sequences hold answers and labels.
        supports_tree_attention: whether the model takes sequences that branch.
        processor_key: key of the `Processor` that the batches are for.
        eval_set: name of the evaluation set; empty in training.
        with_labels: evaluation batches also hold their examples as a training batch, for a validation loss.
    """

    prompt_encoder: PromptEncoder
    prompts: Mapping[str, PromptTemplate]
    num_image_slots: Callable[[Media], int]
    tokens_per_image: int
    training: bool
    supports_tree_attention: bool = True
    processor_key: str = ""
    eval_set: str = ""
    with_labels: bool = False

    def __call__(self, items: Sequence[tuple[Example, VisualInput]]) -> Batch:
        """Collates examples and their decoded media."""
        examples, inputs = [example for example, _ in items], [one for _, one in items]
        batch = self._training_batch(examples, inputs) if self.training else self._evaluation_batch(examples, inputs)
        labeled = None
        if self.with_labels:
            # Without frames: their features are computed once, for the evaluation batch.
            placeholders = [VisualInput(vision_features=torch.empty(count, 0, 0)) for count in batch.num_frames]
            labeled = self._training_batch(examples, placeholders)
        return replace(
            batch,
            media=tuple(None if example.augment else example.sample.media for example in examples),
            processor_key=self.processor_key,
            eval_set=self.eval_set,
            labeled=labeled,
        )

    def _training_batch(self, examples: Sequence[Example], inputs: Sequence[VisualInput]) -> Batch:
        encode = self.prompt_encoder.encode_train if self.supports_tree_attention else None
        trees: list[TokenTree] = []
        row_media: list[tuple[int, ...]] = []
        for index, example in enumerate(examples):
            slots = self.num_image_slots(example.sample.media)
            arguments = (self.prompts[example.task], example.sample, slots, self.tokens_per_image, example.clue)
            flat = [encode(*arguments)] if encode else self.prompt_encoder.encode_train_flat(*arguments)
            trees += flat
            row_media += [(index,)] * len(flat)
        if self.supports_tree_attention:
            trees, row_media = pack_rows(trees)
        return self._collate(examples, inputs, trees, row_media)

    def _evaluation_batch(self, examples: Sequence[Example], inputs: Sequence[VisualInput]) -> Batch:
        trees: list[TokenTree] = []
        row_media: list[tuple[int, ...]] = []
        # The query of each prompt, in the order of the rows.
        order: list[int] = []
        queries: list[Prediction] = []
        max_tokens = _PROMPT_TOKENS_PER_ROW if self.supports_tree_attention else 0
        for index, example in enumerate(examples):
            prompt, slots = self.prompts[example.task], self.num_image_slots(example.sample.media)
            for tree, turns in self.prompt_encoder.encode_prompts(
                prompt, example.sample, slots, self.tokens_per_image, example.clue, max_tokens
            ):
                trees.append(tree)
                row_media.append((index,))
                order += [len(queries) + turn for turn in turns]
            queries += [
                _query(example, turn, self.prompt_encoder.render(prompt, turn, slots, example.clue))
                for turn in example.sample.turns
            ]
        batch = self._collate(examples, inputs, trees, row_media, pad_left=not self.supports_tree_attention)
        ends = dict(zip(order, batch.prompt_ends, strict=True))
        return replace(batch, prompt_ends=tuple(ends[query] for query in range(len(queries))), queries=tuple(queries))

    def _collate(
        self,
        examples: Sequence[Example],
        inputs: Sequence[VisualInput],
        rows: Sequence[TokenTree],
        row_media: Sequence[tuple[int, ...]],
        *,
        pad_left: bool = False,
    ) -> Batch:
        return collate(
            [one.frames for one in inputs],
            [example.sample.media.modality for example in examples],
            rows,
            row_media,
            pad_left=pad_left,
            vision_features=[one.vision_features for one in inputs],
        )


def _query(example: Example, turn: Turn, prompt: str) -> Prediction:
    media = example.sample.media.sources
    return Prediction(turn.id, example.task, media, turn.category, prompt, "", turn.references, example.clue)
