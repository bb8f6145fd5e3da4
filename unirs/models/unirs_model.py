"""The model: encoder, change extractor, projector and language model in plain torch."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel

from unirs.data.batch import Batch, group_by_length, num_image_slots, tree_attention_mask
from unirs.data.token_tree import IGNORE
from unirs.errors import ModelError
from unirs.interfaces import ChangeExtractor, Encoder, MapsChange, as_module
from unirs.models.projectors import PROJECTORS, ProjectorName
from unirs.tasks.media import Media

LossReduction = Literal["sample_mean", "token_mean"]

Positions = torch.Tensor | tuple[torch.Tensor, ...]
"""What picks places of `[B, T]`: a bool mask, or a tensor of rows and one of columns; all of them where empty."""


class UniRSModel(nn.Module):
    """Reads pictures, pairs and videos in one batch and answers in text (paper section III).

    Letters: F frames, N pictures as the language model sees them ("grids": one for an image, one for a fused pair, k
    for a video), L and L' tokens of a grid before and after the projector, B sequences of T tokens, D the language
    model's width.

    Args:
        encoder: frames to vision tokens.
        change: fuses the two times of a pair; None gives the language model both.
        llm: a Hugging Face causal language model.
        projector: `downsample` is the paper's.
    """

    def __init__(
        self,
        encoder: Encoder,
        change: ChangeExtractor | None,
        llm: PreTrainedModel,
        projector: ProjectorName = "downsample",
    ) -> None:
        super().__init__()
        self.encoder = as_module(encoder)
        self.change = None if change is None else as_module(change)
        width: int = llm.get_input_embeddings().weight.shape[1]  # type: ignore[index, assignment]
        self.projector = PROJECTORS[projector](encoder.grid, encoder.embed_dim, width)
        self.llm = llm

    @property
    def supports_tree_attention(self) -> bool:
        """Whether the language model takes sequences that branch; flash attention knows padding only."""
        return bool(self.llm.config._attn_implementation != "flash_attention_2")

    def num_image_slots(self, media: Media) -> int:
        """How many pictures' worth of visual tokens a medium costs."""
        return num_image_slots(media, fused=self.change is not None)

    def encode_frames(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """What the encoder sees in each medium, M tensors `[k, L, Dv]`; it looks at those without features only."""
        new = [count for count, known in zip(batch.num_frames, batch.vision_features, strict=True) if known is None]
        seen = iter(torch.split(self.encoder(batch.frames), new) if new else ())
        return tuple(next(seen) if known is None else known for known in batch.vision_features)

    def get_visual_embeds(self, batch: Batch) -> list[torch.Tensor]:
        """The visual tokens of each medium, M tensors `[n, L', D]` with n of `grids`."""
        tokens = torch.cat(self.encode_frames(batch))  # [F, L, Dv]
        starts = [sum(batch.num_frames[:medium]) for medium in range(len(batch.num_frames))]
        pairs = [start for start, kind in zip(starts, batch.modalities, strict=True) if kind == "pair"]
        if self.change is None or not pairs:
            return list(torch.split(self.projector(tokens + self._zero_grad_anchor()), list(batch.num_frames)))
        fused = self.change(tokens[pairs], tokens[[start + 1 for start in pairs]])  # [P, L, Dv]
        # A fused pair takes the place of its first frame, and its second frame drops out.
        slot = {start: index for index, start in enumerate(pairs)}
        rows = [tokens.shape[0] + slot[i] if i in slot else i for i in range(tokens.shape[0]) if i - 1 not in slot]
        seen = self.projector(torch.cat([tokens, fused])[rows])  # [N, L', D]
        counts = [
            1 if kind == "pair" else count for kind, count in zip(batch.modalities, batch.num_frames, strict=True)
        ]
        return list(torch.split(seen, counts))

    @torch.no_grad()
    def change_maps(self, batch: Batch) -> list[torch.Tensor | None]:
        """How alike the two times of each pair are, `[h, w]` in -1..1; None for other media.

        None for pairs too where the change extractor has no such map.
        """
        if not isinstance(self.change, MapsChange):
            return [None] * len(batch.modalities)
        return [
            self.change.similarity(frames[:1], frames[1:])[0] if kind == "pair" else None
            for kind, frames in zip(batch.modalities, self.encode_frames(batch), strict=True)
        ]

    def _zero_grad_anchor(self) -> torch.Tensor | float:
        # Zero, but with a way for gradients: data parallel training waits for one of each parameter on every process,
        # and a process may have no pair in its batch.
        weights = [] if self.change is None else [p for p in self.change.parameters() if p.requires_grad]
        return 0.0 * torch.stack([weight.sum() for weight in weights]).sum() if weights else 0.0

    def get_inputs_embeds(self, batch: Batch) -> torch.Tensor:
        """Text embeddings with the visual tokens in their places, `[B, T, D]`.

        Raises:
            ModelError: a row has more or fewer visual placeholders than its media have visual tokens.
        """
        return self.merge_visual_embeds(batch, self.get_visual_embeds(batch), slice(len(batch.row_media)))

    def merge_visual_embeds(self, batch: Batch, visual_embeds: Sequence[torch.Tensor], rows: slice) -> torch.Tensor:
        """The same for some of the rows, with what `see` gave for the batch."""
        text = self.llm.get_input_embeddings()(batch.input_ids[rows])
        visual = [
            torch.cat([visual_embeds[owner].flatten(0, 1) for owner in owners]) for owners in batch.row_media[rows]
        ]
        places = batch.visual_mask[rows]
        for row, (tokens, count) in enumerate(zip(visual, places.sum(1).tolist(), strict=True), rows.start or 0):
            if tokens.shape[0] != count:
                raise ModelError(f"Row {row} has {count} visual placeholders for {tokens.shape[0]} visual tokens.")
        spliced: torch.Tensor = text.masked_scatter(places.unsqueeze(-1), torch.cat(visual).to(text.dtype))
        return spliced

    def forward(self, batch: Batch) -> torch.Tensor:
        """Next-token logits `[B, T, V]`."""
        return self.logits(batch, ())

    def logits(self, batch: Batch, positions: Positions) -> torch.Tensor:
        """Next-token logits of some places only, `[K, V]`: the output layer is the widest of all.

        Args:
            batch: B rows of T tokens.
            positions: indexes `[B, T]`: a mask with K true places, or rows and columns.
        """
        return self._logits_from_embeds(self.get_inputs_embeds(batch), batch.branch_end, positions)

    def _logits_from_embeds(
        self, embeddings: torch.Tensor, branch_end: torch.Tensor, positions: Positions
    ) -> torch.Tensor:
        seen = tree_attention_mask(branch_end)
        if self.supports_tree_attention:
            return self.forward_masked(embeddings, seen, positions)
        mask = (branch_end > 0).long()
        return self._llm_forward(positions, inputs_embeds=embeddings, attention_mask=mask, position_ids=seen.sum(2) - 1)

    def forward_masked(
        self,
        embeddings: torch.Tensor,
        attention_mask: torch.Tensor,
        positions: Positions,
        cache: DynamicCache | None = None,
    ) -> torch.Tensor:
        """Next-token logits of some places, for a language model that takes branches.

        Args:
            embeddings: of the tokens to read, `[B, T, D]`.
            attention_mask: which of the S tokens in the cache and these T each of them sees, bool `[B, T, S + T]`.
            positions: as in `logits`.
            cache: holds the S tokens; keeps these as well.
        """
        # An additive mask, since not every attention implementation understands a boolean one.
        mask = torch.zeros(attention_mask.shape, dtype=embeddings.dtype, device=attention_mask.device)
        mask.masked_fill_(~attention_mask, torch.finfo(embeddings.dtype).min)
        return self._llm_forward(
            positions,
            inputs_embeds=embeddings,
            attention_mask=mask.unsqueeze(1),
            position_ids=attention_mask.sum(2) - 1,
            cache=cache,
        )

    def _llm_forward(self, positions: Positions, **inputs: Any) -> torch.Tensor:  # noqa: ANN401 - the language model's
        hook = self.llm.get_output_embeddings().register_forward_pre_hook(lambda _, given: (given[0][positions],))
        try:
            logits: torch.Tensor = self.llm(**inputs, use_cache=inputs.get("cache") is not None).logits
        finally:
            hook.remove()
        return logits

    def loss(self, batch: Batch, reduction: LossReduction = "sample_mean") -> torch.Tensor:
        """Negative log-likelihood of the answers.

        Args:
            batch: with labels.
            reduction: `sample_mean` averages whole answers over each sample, then over samples: a picture with a
                hundred questions weighs no more than a video with one, and the word that tells whether something
                changed does not drown among those that follow from it. `token_mean` is the usual mean over all tokens
                (the paper's).
        """
        embeddings = self.get_inputs_embeds(batch)
        learnt = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE)
        weights = F.pad(batch.loss_weights[:, 1:], (0, 1))
        losses, weighed = [], []
        for rows, length in group_by_length(batch.branch_end):
            labels = learnt[rows, :length]
            where = labels != IGNORE
            logits = self._logits_from_embeds(embeddings[rows, :length], batch.branch_end[rows, :length], where)
            losses.append(F.cross_entropy(logits.float(), labels[where], reduction="none"))
            weighed.append(weights[rows, :length][where])
        loss = torch.cat(losses)
        return loss.mean() if reduction == "token_mean" else (torch.cat(weighed) * loss).sum() / len(batch.modalities)
