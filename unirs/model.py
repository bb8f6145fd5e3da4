"""The model: encoder, change extractor, projector and language model in plain torch."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel

from unirs.batch import Batch, attention, by_length, grids
from unirs.errors import ModelError
from unirs.interfaces import ChangeExtractor, Encoder, MapsChange, as_module
from unirs.media import Media
from unirs.projector import PROJECTORS, ProjectorKind
from unirs.prompt import IGNORE

LossKind = Literal["answer", "token"]
Places = torch.Tensor | tuple[torch.Tensor, ...]
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
        projector: ProjectorKind = "downsample",
    ) -> None:
        super().__init__()
        self.encoder = as_module(encoder)
        self.change = None if change is None else as_module(change)
        width: int = llm.get_input_embeddings().weight.shape[1]  # type: ignore[index, assignment]
        self.projector = PROJECTORS[projector](encoder.grid, encoder.dim, width)
        self.llm = llm

    @property
    def branches(self) -> bool:
        """Whether the language model takes sequences that branch; flash attention knows padding only."""
        return bool(self.llm.config._attn_implementation != "flash_attention_2")

    def grids(self, media: Media) -> int:
        """How many pictures' worth of visual tokens a medium costs."""
        return grids(media, fused=self.change is not None)

    def encode(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """What the encoder sees in each medium, M tensors `[k, L, Dv]`; it looks at those without features only."""
        new = [count for count, known in zip(batch.counts, batch.features, strict=True) if known is None]
        seen = iter(torch.split(self.encoder(batch.frames), new) if new else ())
        return tuple(next(seen) if known is None else known for known in batch.features)

    def see(self, batch: Batch) -> list[torch.Tensor]:
        """The visual tokens of each medium, M tensors `[n, L', D]` with n of `grids`."""
        tokens = torch.cat(self.encode(batch))  # [F, L, Dv]
        starts = [sum(batch.counts[:medium]) for medium in range(len(batch.counts))]
        pairs = [start for start, kind in zip(starts, batch.kinds, strict=True) if kind == "pair"]
        if self.change is None or not pairs:
            return list(torch.split(self.projector(tokens + self._idle()), list(batch.counts)))
        fused = self.change(tokens[pairs], tokens[[start + 1 for start in pairs]])  # [P, L, Dv]
        # A fused pair takes the place of its first frame, and its second frame drops out.
        slot = {start: index for index, start in enumerate(pairs)}
        rows = [tokens.shape[0] + slot[i] if i in slot else i for i in range(tokens.shape[0]) if i - 1 not in slot]
        seen = self.projector(torch.cat([tokens, fused])[rows])  # [N, L', D]
        counts = [1 if kind == "pair" else count for kind, count in zip(batch.kinds, batch.counts, strict=True)]
        return list(torch.split(seen, counts))

    @torch.no_grad()
    def change_maps(self, batch: Batch) -> list[torch.Tensor | None]:
        """How alike the two times of each pair are, `[h, w]` in -1..1; None for other media.

        None for pairs too where the change extractor has no such map.
        """
        if not isinstance(self.change, MapsChange):
            return [None] * len(batch.kinds)
        return [
            self.change.similarity(frames[:1], frames[1:])[0] if kind == "pair" else None
            for kind, frames in zip(batch.kinds, self.encode(batch), strict=True)
        ]

    def _idle(self) -> torch.Tensor | float:
        # Zero, but with a way for gradients: data parallel training waits for one of each parameter on every process,
        # and a process may have no pair in its batch.
        weights = [] if self.change is None else [p for p in self.change.parameters() if p.requires_grad]
        return 0.0 * torch.stack([weight.sum() for weight in weights]).sum() if weights else 0.0

    def embed(self, batch: Batch) -> torch.Tensor:
        """Text embeddings with the visual tokens in their places, `[B, T, D]`.

        Raises:
            ModelError: a row has more or fewer visual placeholders than its media have visual tokens.
        """
        return self.splice(batch, self.see(batch), slice(len(batch.owners)))

    def splice(self, batch: Batch, seen: Sequence[torch.Tensor], rows: slice) -> torch.Tensor:
        """The same for some of the rows, with what `see` gave for the batch."""
        text = self.llm.get_input_embeddings()(batch.ids[rows])
        visual = [torch.cat([seen[owner].flatten(0, 1) for owner in owners]) for owners in batch.owners[rows]]
        places = batch.visual[rows]
        for row, (tokens, count) in enumerate(zip(visual, places.sum(1).tolist(), strict=True), rows.start or 0):
            if tokens.shape[0] != count:
                raise ModelError(f"Row {row} has {count} visual placeholders for {tokens.shape[0]} visual tokens.")
        spliced: torch.Tensor = text.masked_scatter(places.unsqueeze(-1), torch.cat(visual).to(text.dtype))
        return spliced

    def forward(self, batch: Batch) -> torch.Tensor:
        """Next-token logits `[B, T, V]`."""
        return self.logits(batch, ())

    def logits(self, batch: Batch, where: Places) -> torch.Tensor:
        """Next-token logits of some places only, `[K, V]`: the output layer is the widest of all.

        Args:
            batch: B rows of T tokens.
            where: indexes `[B, T]`: a mask with K true places, or rows and columns.
        """
        return self._told(self.embed(batch), batch.until, where)

    def _told(self, embeddings: torch.Tensor, until: torch.Tensor, where: Places) -> torch.Tensor:
        seen = attention(until)
        if self.branches:
            return self.read(embeddings, seen, where)
        mask = (until > 0).long()
        return self._run(where, inputs_embeds=embeddings, attention_mask=mask, position_ids=seen.sum(2) - 1)

    def read(
        self, embeddings: torch.Tensor, seen: torch.Tensor, where: Places, cache: DynamicCache | None = None
    ) -> torch.Tensor:
        """Next-token logits of some places, for a language model that takes branches.

        Args:
            embeddings: of the tokens to read, `[B, T, D]`.
            seen: which of the S tokens in the cache and these T each of them sees, bool `[B, T, S + T]`.
            where: as in `logits`.
            cache: holds the S tokens; keeps these as well.
        """
        # An additive mask, since not every attention implementation understands a boolean one.
        mask = torch.zeros(seen.shape, dtype=embeddings.dtype, device=seen.device)
        mask.masked_fill_(~seen, torch.finfo(embeddings.dtype).min)
        return self._run(
            where,
            inputs_embeds=embeddings,
            attention_mask=mask.unsqueeze(1),
            position_ids=seen.sum(2) - 1,
            cache=cache,
        )

    def _run(self, where: Places, **inputs: Any) -> torch.Tensor:  # noqa: ANN401 - the language model's
        hook = self.llm.get_output_embeddings().register_forward_pre_hook(lambda _, given: (given[0][where],))
        try:
            logits: torch.Tensor = self.llm(**inputs, use_cache=inputs.get("cache") is not None).logits
        finally:
            hook.remove()
        return logits

    def loss(self, batch: Batch, kind: LossKind = "answer") -> torch.Tensor:
        """Negative log-likelihood of the answers.

        Args:
            batch: with labels.
            kind: `answer` averages whole answers over each sample, then over samples: a picture with a hundred
                questions weighs no more than a video with one, and the word that tells whether something changed does
                not drown among those that follow from it. `token` is the usual mean over all tokens (the paper's).
        """
        embeddings = self.embed(batch)
        learnt = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE)
        weights = F.pad(batch.weights[:, 1:], (0, 1))
        losses, weighed = [], []
        for rows, length in by_length(batch.until):
            labels = learnt[rows, :length]
            where = labels != IGNORE
            logits = self._told(embeddings[rows, :length], batch.until[rows, :length], where)
            losses.append(F.cross_entropy(logits.float(), labels[where], reduction="none"))
            weighed.append(weights[rows, :length][where])
        loss = torch.cat(losses)
        return loss.mean() if kind == "token" else (torch.cat(weighed) * loss).sum() / len(batch.kinds)
