"""Packs token trees into rows, and decoded examples into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from unirs.data.batch import Batch, num_image_slots
from unirs.data.dataset import Example, VisualInput
from unirs.data.processor import Processor
from unirs.data.token_tree import IGNORE, TokenTree
from unirs.metrics.base import Prediction
from unirs.tasks.box_frames import box_frame, to_frame
from unirs.tasks.media import Modality, frame_labels
from unirs.tasks.prompt import PromptTemplate

SHORT_ROW = 512
"""Row length in tokens up to which attention is cheap compared with the rest of the model."""

_PROMPT_TOKENS_PER_ROW = 256
"""Tokens of prompts in an evaluation row: short rows make attention cheap, long rows make everything else cheap."""


def pack_rows(trees: Sequence[TokenTree]) -> tuple[list[TokenTree], list[tuple[int, ...]]]:
    """Packs token trees, one for each media item, into rows to save padding (first fit, longest first).

    Returns rows, and the indices of the media in each. No row is longer than its longest tree, or than the shorter of
    the longest tree of all and `SHORT_ROW`: the cost of attention grows with the square of a row's length.
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
    """Pads rows to equal length; on the left for generation without tree attention.

    Each media item has `frames`, uint8 `[k, 3, H, W]`, or cached `vision_features`, `[k, L, Dv]`.
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


class Collator:
    """Collates decoded examples; turns of a sample share token rows if the model supports tree attention.

    Args:
        processor: of the model that the batches are for.
        training: whether sequences contain answers and labels.
        prompts: prompt template of each task; by default those of the processor's tasks.
        eval_set: name of the evaluation set; empty in training.
        with_labels: evaluation batches also hold their examples as a training batch, for a validation loss.

    Raises:
        ModelError: the tokenizer has not been trained yet.
    """

    def __init__(
        self,
        processor: Processor,
        *,
        training: bool,
        prompts: Mapping[str, PromptTemplate] | None = None,
        eval_set: str = "",
        with_labels: bool = False,
    ) -> None:
        self._processor = processor
        self._prompt_encoder = processor.prompt_encoder()
        self._prompts = prompts or {name: task.task.prompt for name, task in processor.tasks.items()}
        self.training, self._eval_set, self._with_labels = training, eval_set, with_labels

    def __call__(self, items: Sequence[tuple[Example, VisualInput]]) -> Batch:
        """Collates examples and their decoded media."""
        items = [(self._with_boxes_of_frame(example), visual) for example, visual in items]
        examples = [example for example, _ in items]
        batch = self._training_batch(items) if self.training else self._evaluation_batch(items)
        labeled = None
        if self._with_labels:
            # Without frames: their features are computed once, for the evaluation batch.
            placeholders = [VisualInput(vision_features=torch.empty(count, 0, 0)) for count in batch.num_frames]
            labeled = self._training_batch(list(zip(examples, placeholders, strict=True)))
        return replace(
            batch,
            feature_keys=tuple(visual.feature_key for _, visual in items),
            num_fillers=sum(example.filler for example, _ in items),
            skipped=tuple(one for example in examples for one in example.skipped),
            sample_ids=tuple(f"{example.task}: {example.sample.id}" for example, _ in items),
            processor_key=self._processor.key,
            eval_set=self._eval_set,
            labeled=labeled,
        )

    def check(self, example: Example, visual: VisualInput) -> None:
        """Raises a `DataError` if the texts of an example cannot be encoded."""
        example = self._with_boxes_of_frame(example)
        if self.training or self._with_labels:
            self._training_trees(example, visual)
        if not self.training:
            self._prompt_trees(example, visual)

    def _with_boxes_of_frame(self, example: Example) -> Example:
        """Converts boxes in training answers to the encoder's frame; those of the model are converted back."""
        processor, media = self._processor, example.sample.media
        frame = box_frame(self._prompts[example.task], media, processor.image_size, processor.resize)
        return example if frame is None else replace(example, sample=to_frame(example.sample, frame), box_frame=frame)

    def _training_trees(self, example: Example, visual: VisualInput) -> list[TokenTree]:
        arguments = (self._prompts[example.task], example.sample, *self._layout(example, visual), example.clue)
        if self._processor.supports_tree_attention:
            return [self._prompt_encoder.encode_train(*arguments)]
        return self._prompt_encoder.encode_train_flat(*arguments)

    def _prompt_trees(self, example: Example, visual: VisualInput) -> list[tuple[TokenTree, list[int]]]:
        max_tokens = _PROMPT_TOKENS_PER_ROW if self._processor.supports_tree_attention else 0
        prompt, layout = self._prompts[example.task], self._layout(example, visual)
        return self._prompt_encoder.encode_prompts(prompt, example.sample, *layout, example.clue, max_tokens)

    def _training_batch(self, items: Sequence[tuple[Example, VisualInput]]) -> Batch:
        trees: list[TokenTree] = []
        row_media: list[tuple[int, ...]] = []
        for index, (example, visual) in enumerate(items):
            encoded = self._training_trees(example, visual)
            if example.filler:
                for tree in encoded:
                    tree.labels = [IGNORE] * len(tree.labels)
                    tree.loss_weights = [0.0] * len(tree.labels)
            trees += encoded
            row_media += [(index,)] * len(encoded)
        if self._processor.supports_tree_attention:
            trees, row_media = pack_rows(trees)
        return _collate(items, trees, row_media)

    def _evaluation_batch(self, items: Sequence[tuple[Example, VisualInput]]) -> Batch:
        trees: list[TokenTree] = []
        row_media: list[tuple[int, ...]] = []
        order: list[int] = []  # index of the query of each prompt, in the order of the rows
        queries: list[Prediction] = []
        for index, (example, visual) in enumerate(items):
            prompt, (slots, _) = self._prompts[example.task], self._layout(example, visual)
            for tree, turns in self._prompt_trees(example, visual):
                trees.append(tree)
                row_media.append((index,))
                order += [len(queries) + turn for turn in turns]
            sources, labels = example.sample.media.sources, frame_labels(example.sample.media)
            for turn in example.sample.turns:
                text = self._prompt_encoder.render(prompt, turn, slots, example.clue, labels)
                args = (turn.id, example.task, sources, turn.category, text, "", turn.references, example.clue)
                queries.append(Prediction(*args, box_frame=example.box_frame))
        batch = _collate(items, trees, row_media, pad_left=not self._processor.supports_tree_attention)
        prompt_ends = tuple(end for _, end in sorted(zip(order, batch.prompt_ends, strict=True)))
        return replace(batch, prompt_ends=prompt_ends, queries=tuple(queries))

    def _layout(self, example: Example, visual: VisualInput) -> tuple[int, int]:
        """Number of images whose visual tokens represent the media, and visual tokens of each."""
        media, fused = example.sample.media, self._processor.fuse_pairs
        slots = num_image_slots(media, fused=fused, num_frames=visual.num_frames)
        return slots, self._processor.tokens_per_image


def _collate(
    items: Sequence[tuple[Example, VisualInput]],
    rows: Sequence[TokenTree],
    row_media: Sequence[tuple[int, ...]],
    *,
    pad_left: bool = False,
) -> Batch:
    frames, features, _ = zip(*(visual for _, visual in items), strict=True)
    modalities = [example.sample.media.modality for example, _ in items]
    return collate(frames, modalities, rows, row_media, pad_left=pad_left, vision_features=features)
