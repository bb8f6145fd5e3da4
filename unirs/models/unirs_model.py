"""The model in plain torch: encoder, change extractor, projector and language model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel

from unirs import plugins
from unirs.data.batch import Batch, group_by_length, sliding_window_mask, tree_attention_mask
from unirs.data.block_mask import tree_block_mask, tree_positions
from unirs.data.token_tree import IGNORE
from unirs.errors import ModelError
from unirs.interfaces import ChangeExtractor, Encoder, MapsChange, Projector, as_module
from unirs.models.flex_attention import TREE_ATTENTION
from unirs.models.llm import context_length
from unirs.utils.hashing import hash_tensors

LossReduction = Literal["sample_mean", "token_mean"]

# On CPUs: larger passes need more memory, and are slower, since their activations do not fit the processor's caches.
_FRAMES_PER_PASS = 16

Positions = torch.Tensor | tuple[torch.Tensor, ...]
"""An index into the first two dimensions of `[B, T, D]`: a bool mask, or a tensor of rows and one of columns. The empty
tuple selects all positions."""


def create_encoder(options: Mapping[str, Any]) -> Encoder:
    """Creates an encoder from the name of its plugin and the plugin's options."""
    return cast("Encoder", plugins.create("unirs.encoders", options))


def create_change(options: Mapping[str, Any] | None, encoder: Encoder) -> ChangeExtractor | None:
    """Creates the change extractor of an encoder's tokens; None without options."""
    if options is None:
        return None
    return cast("ChangeExtractor", plugins.create("unirs.change_extractors", options, encoder.grid, encoder.embed_dim))


class UniRSModel(nn.Module):
    """Logits of texts about images, image pairs and videos, which one batch may mix (paper section III).

    Shapes: M media with F frames in all; N images in the language model's input (1 for an image, 1 for a fused pair, k
    for a video of k frames); L and L' tokens of an image before and after the projector; Dv and D widths of the encoder
    and the language model; B rows of T tokens; V the vocabulary size.

    Args:
        encoder: frames to vision tokens.
        change: fuses the two times of a pair; None passes both frames to the language model.
        llm: a Hugging Face causal language model.
        projector: name of a projector plugin, or name and options; `downsample` is the paper's.
    """

    def __init__(
        self,
        encoder: Encoder,
        change: ChangeExtractor | None,
        llm: PreTrainedModel,
        projector: Mapping[str, Any] | str = "downsample",
    ) -> None:
        super().__init__()
        self.encoder = as_module(encoder)
        self.change = None if change is None else as_module(change)
        width: int = llm.get_input_embeddings().weight.shape[1]  # type: ignore[index, assignment]
        self.projector = plugins.create("unirs.projectors", projector, encoder.grid, encoder.embed_dim, width)
        if not isinstance(as_module(self.projector), Projector):
            raise ModelError(f"Projector {type(self.projector).__name__} has no attribute 'num_tokens'.")
        self.llm = llm
        if self.bidirectional_images and not self.supports_tree_attention:
            raise ModelError(
                "The visual tokens of this language model attend to each other in both directions, which flash "
                "attention cannot compute. Set llm.attn_implementation to 'sdpa'."
            )

    @property
    def bidirectional_images(self) -> bool:
        """Whether the visual tokens of an image attend to each other in both directions; set in the LLM's config."""
        return bool(getattr(self.llm.config, "bidirectional_images", False))

    @property
    def supports_tree_attention(self) -> bool:
        """Whether the language model takes an attention mask per token; flash attention takes a padding mask only."""
        return bool(self.llm.config._attn_implementation != "flash_attention_2")

    @property
    def context(self) -> int | None:
        """Number of positions of the language model; None if unlimited."""
        return context_length(self.llm.config)

    def train(self, mode: bool = True) -> Self:
        """Sets training or evaluation mode; a frozen change extractor or projector stays in evaluation mode."""
        super().train(mode)
        for component in (self.change, self.projector):
            if component is not None and not any(parameter.requires_grad for parameter in component.parameters()):
                component.eval()
        return self

    def forward(self, batch: Batch) -> torch.Tensor:
        """Next-token logits `[B, T, V]`."""
        return self.logits(batch, ())

    def logits(self, batch: Batch, positions: Positions) -> torch.Tensor:
        """Next-token logits of K positions of `[B, T]` only, `[K, V]`: the output layer is the model's widest."""
        return self._logits_from_embeds(self.get_inputs_embeds(batch), batch.branch_end, batch.visual_mask, positions)

    def attention_mask(self, branch_end: torch.Tensor, visual_mask: torch.Tensor) -> torch.Tensor:
        """The attention mask of rows of a batch, bool `[B, T, T]`."""
        return tree_attention_mask(branch_end, visual_mask if self.bidirectional_images else None)

    def loss(self, batch: Batch, reduction: LossReduction = "sample_mean") -> torch.Tensor:
        """Negative log-likelihood of the answers.

        Args:
            batch: with labels.
            reduction: `token_mean` averages over all tokens (the paper's). `sample_mean` averages the answers of a
                sample, each the sum of its tokens, then the samples: an image with a hundred questions weighs as much
                as a video with one.
        """
        total, count = self.loss_sum(batch, reduction)
        return total / count

    def loss_sum(self, batch: Batch, reduction: LossReduction) -> tuple[torch.Tensor, torch.Tensor]:
        """Numerator and denominator of `loss`, so that processes can divide by the denominator of all of them."""
        embeds = self.get_inputs_embeds(batch)  # [B, T, D]
        # The logits of one position predict the token at the next.
        targets = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE)
        loss_weights = F.pad(batch.loss_weights[:, 1:], (0, 1))
        losses, weights = [], []
        for rows, length in group_by_length(batch.branch_end):
            labels = targets[rows, :length]
            positions = labels != IGNORE
            tokens, branch_end, visual_mask = (
                one[rows, :length] for one in (embeds, batch.branch_end, batch.visual_mask)
            )
            logits = self._logits_from_embeds(tokens, branch_end, visual_mask, positions)
            losses.append(F.cross_entropy(logits.float(), labels[positions], reduction="none"))
            weights.append(loss_weights[rows, :length][positions])
        loss = torch.cat(losses)
        if reduction == "token_mean":
            return loss.sum(), loss.new_tensor(len(loss))
        return (torch.cat(weights) * loss).sum(), loss.new_tensor(batch.num_samples)

    def encode_frames(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Vision features, M tensors `[k, L, Dv]`: cached ones of the batch, and the encoder's for all other frames."""
        new = [k for k, cached in zip(batch.num_frames, batch.vision_features, strict=True) if cached is None]
        encoded = iter(torch.split(self._encode(batch.frames), new) if new else ())
        return tuple(next(encoded) if cached is None else cached for cached in batch.vision_features)

    def _encode(self, frames: torch.Tensor) -> torch.Tensor:
        # In training, batch norm needs all frames; with FSDP, all processes need equally many passes.
        if self.encoder.training or frames.device.type != "cpu":
            return cast("torch.Tensor", self.encoder(frames))
        # Equal frames are encoded once: black ones of a baseline, and videos that stand still.
        hashes = [hash_tensors({"frame": frame}) for frame in frames]
        distinct = list(dict.fromkeys(hashes))
        first = frames[[hashes.index(one) for one in distinct]]
        features = torch.cat([self.encoder(few) for few in first.split(_FRAMES_PER_PASS)])
        position = {one: index for index, one in enumerate(distinct)}
        return features[[position[one] for one in hashes]]

    def get_visual_embeds(self, batch: Batch) -> list[torch.Tensor]:
        """Visual tokens in the language model's space: for each input `[n, L', D]`, n its number of image slots."""
        tokens = torch.cat(self.encode_frames(batch))  # [F, L, Dv]
        starts = [sum(batch.num_frames[:index]) for index in range(len(batch.num_frames))]
        pairs = [start for start, modality in zip(starts, batch.modalities, strict=True) if modality == "pair"]
        # In training also without pairs: data parallel training expects a gradient of every parameter on every process.
        if self.change is None or not (pairs or self.change.training):
            return list(torch.split(self.projector(tokens), list(batch.num_frames)))
        fused = self.change(tokens[pairs], tokens[[start + 1 for start in pairs]])  # [P, L, Dv]
        # A fused pair replaces its first frame; its second frame is dropped.
        slot = {start: index for index, start in enumerate(pairs)}
        kept = [tokens.shape[0] + slot[i] if i in slot else i for i in range(tokens.shape[0]) if i - 1 not in slot]
        embeds = self.projector(torch.cat([tokens, fused])[kept])  # [N, L', D]
        slots = [1 if modality == "pair" else k for modality, k in zip(batch.modalities, batch.num_frames, strict=True)]
        return list(torch.split(embeds, slots))

    def get_inputs_embeds(self, batch: Batch) -> torch.Tensor:
        """Text embeddings with the visual tokens at the placeholders, `[B, T, D]`.

        Raises:
            ModelError: a row has more or fewer placeholders than its media have visual tokens.
        """
        return self.merge_visual_embeds(batch, self.get_visual_embeds(batch), slice(len(batch.row_media)))

    def merge_visual_embeds(self, batch: Batch, visual_embeds: Sequence[torch.Tensor], rows: slice) -> torch.Tensor:
        """`get_inputs_embeds` of R of the B rows, `[R, T, D]`, from the visual embeddings of the whole batch."""
        text = self.llm.get_input_embeddings()(batch.input_ids[rows])  # [R, T, D]
        visual = [
            torch.cat([visual_embeds[index].flatten(0, 1) for index in media]) for media in batch.row_media[rows]
        ]  # R tensors [n L', D]
        mask = batch.visual_mask[rows]  # [R, T]
        for row, (tokens, count) in enumerate(zip(visual, mask.sum(1).tolist(), strict=True), rows.start or 0):
            if tokens.shape[0] != count:
                raise ModelError(f"Row {row} has {count} visual placeholders for {tokens.shape[0]} visual tokens.")
        return cast("torch.Tensor", text.masked_scatter(mask.unsqueeze(-1), torch.cat(visual).to(text.dtype)))

    @torch.no_grad()
    def change_maps(self, batch: Batch) -> list[torch.Tensor | None]:
        """Similarity of the two times of each pair, M maps `[h, w]` in -1..1; None for other media or no such maps."""
        if not self.maps_change:
            return [None] * len(batch.modalities)
        return [
            self.change_map(tokens) if modality == "pair" else None
            for modality, tokens in zip(batch.modalities, self.encode_frames(batch), strict=True)
        ]

    @property
    def maps_change(self) -> bool:
        """Whether the change extractor computes maps of change."""
        return isinstance(self.change, MapsChange)

    def change_map(self, tokens: torch.Tensor) -> torch.Tensor:
        """Similarity `[h, w]`, -1..1, of the two times of a pair with the vision tokens `[2, L, Dv]`."""
        return cast("MapsChange", self.change).similarity(tokens[:1], tokens[1:])[0]

    def _logits_from_embeds(
        self, inputs_embeds: torch.Tensor, branch_end: torch.Tensor, visual_mask: torch.Tensor, positions: Positions
    ) -> torch.Tensor:
        if self.llm.config._attn_implementation == TREE_ATTENTION:
            bidirectional = visual_mask if self.bidirectional_images else None
            masks = self._layer_masks(
                lambda window: tree_block_mask(branch_end, bidirectional, window), branch_end.shape[1]
            )
            position_ids = tree_positions(branch_end)
            return self._llm_forward(
                positions, inputs_embeds=inputs_embeds, attention_mask=masks, position_ids=position_ids
            )
        mask = self.attention_mask(branch_end, visual_mask)  # [B, T, T]
        if self.supports_tree_attention:
            return self.forward_masked(inputs_embeds, mask, positions)
        padding_mask, position_ids = (branch_end > 0).long(), mask.sum(2) - 1
        return self._llm_forward(
            positions, inputs_embeds=inputs_embeds, attention_mask=padding_mask, position_ids=position_ids
        )

    def forward_masked(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        positions: Positions,
        cache: DynamicCache | None = None,
    ) -> torch.Tensor:
        """Next-token logits of K positions under an attention mask per token, `[K, V]`.

        The mask, bool `[B, T, S + T]`, is true if a token attends to one of the S tokens in the KV cache or of these T
        tokens, `[B, T, D]`, which are appended to the cache. Layers with a sliding window limit it further.
        """

        def additive(window: int | None) -> torch.Tensor:
            mask = attention_mask if window is None else sliding_window_mask(attention_mask, window)
            return _additive(mask, inputs_embeds)

        masks = self._layer_masks(additive, attention_mask.shape[2])
        causal = attention_mask.tril(attention_mask.shape[2] - attention_mask.shape[1])
        return self._llm_forward(
            positions, inputs_embeds=inputs_embeds, attention_mask=masks, position_ids=causal.sum(2) - 1, cache=cache
        )

    def _layer_masks(self, make: Callable[[int | None], Any], length: int) -> Any:  # noqa: ANN401 - for transformers
        """The mask of all layers, or of each type of layers, by their sliding windows; `length` is that of the keys."""
        config = self.llm.config.get_text_config()
        window, layer_types = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
        if window is None or length <= window:
            return make(None)
        return {"full_attention": make(None), "sliding_attention": make(window)} if layer_types else make(window)

    def _llm_forward(self, positions: Positions, **inputs: Any) -> torch.Tensor:  # noqa: ANN401 - the language model's
        # The output layer gets the hidden states of these positions only.
        hook = self.llm.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0][positions],))
        try:
            logits: torch.Tensor = self.llm(**inputs, use_cache=inputs.get("cache") is not None).logits
        finally:
            hook.remove()
        return logits


def _additive(mask: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
    """`[B, 1, T, S + T]`: not every attention implementation takes a bool mask; all take an additive one."""
    additive = torch.zeros(mask.shape, dtype=embeds.dtype, device=mask.device)
    return additive.masked_fill_(~mask, torch.finfo(embeds.dtype).min).unsqueeze(1)
