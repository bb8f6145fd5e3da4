"""Generation by `transformers`: its options, and answers of language models without tree attention."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_utils import PreTrainedModel

from unirs.inference.generation_options import GenerationOptions
from unirs.inference.search import Decoded, OnToken


def generation_config(options: GenerationOptions, max_new_tokens: int, **more: Any) -> GenerationConfig:  # noqa: ANN401 - as transformers has them
    """The options as `transformers` has them, without its own limit of the tokens to sample from."""
    sampling = {"temperature": options.temperature, "top_p": options.top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=options.temperature > 0,
        num_beams=options.num_beams,
        repetition_penalty=options.repetition_penalty,
        use_cache=True,
        **(sampling if options.temperature > 0 else {}),
        **more,
    )


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seeds torch's random numbers in the block alone; None leaves them."""
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield


class _Streamer(BaseStreamer):
    """Passes on the tokens of a batch until the end token of each answer."""

    def __init__(self, end: int, rows: Sequence[int], on_token: OnToken) -> None:
        self._end, self._rows, self._on_token = end, list(rows), on_token
        self._ended: set[int] = set()

    def put(self, value: torch.Tensor) -> None:
        """Takes the next token of each row, or the tokens of the prompts, `[B, T]`, which are not passed on."""
        if value.ndim > 1:
            return
        for row, token in zip(self._rows, value.tolist(), strict=True):
            if token == self._end:
                self._ended.add(row)
            if row not in self._ended:
                self._on_token(row, token)

    def end(self) -> None:
        """Does nothing."""


@dataclass(frozen=True)
class FlatGenerator:
    """Generates answers to left-padded rows with one question each.

    Attributes:
        llm: The language model.
        end: Id of the end-of-sequence token.
        options: How text is generated.
        logprobs: Whether to return the logprobs of the tokens.
        on_token: Called with the row and id of each new token, except with beams; None for no calls.
    """

    llm: PreTrainedModel
    end: int
    options: GenerationOptions
    logprobs: bool = False
    on_token: OnToken | None = None

    def __call__(
        self, embeddings: torch.Tensor, mask: torch.Tensor, limits: torch.Tensor, seeds: Sequence[int]
    ) -> list[Decoded]:
        """Generates an answer to each row.

        Args:
            embeddings: `[B, T, D]`.
            mask: Of the tokens that are no padding, `[B, T]`.
            limits: Maximum length of each answer in tokens, B.
            seeds: Of each answer's sample; for sampling only.
        """
        decoded: dict[int, Decoded] = {}
        # It ends the answers of a batch at one length, has one random number generator for all of them, and with
        # `inputs_embeds` takes padding for the first tokens of the answer, which are not penalised then.
        if self.options.temperature > 0 or self.options.repetition_penalty != 1:
            chunks = [[row] for row in range(len(mask))]
        else:
            chunks = [(limits == limit).nonzero().squeeze(1).tolist() for limit in limits.unique()]
        for rows in chunks:
            start = int(mask[rows].any(0).int().argmax())
            with seeded(seeds[rows[0]] if self.options.temperature > 0 else None):
                answers = self._generate(embeddings[rows, start:], mask[rows, start:], int(limits[rows[0]]), rows)
            decoded |= dict(zip(rows, answers, strict=True))
        return [decoded[row] for row in range(len(mask))]

    def _generate(
        self, embeddings: torch.Tensor, mask: torch.Tensor, max_new_tokens: int, rows: Sequence[int]
    ) -> list[Decoded]:
        ends = {"eos_token_id": self.end, "pad_token_id": self.end}
        config = generation_config(
            self.options, max_new_tokens, **ends, return_dict_in_generate=True, output_logits=self.logprobs
        )
        streamer = None
        if self.on_token is not None and self.options.num_beams == 1:
            streamer = _Streamer(self.end, rows, self.on_token)
        generate: Any = self.llm.generate
        # `transformers` takes unset values from the checkpoint's config, which may penalise or forbid tokens.
        defaults, self.llm.generation_config = self.llm.generation_config, GenerationConfig()
        try:
            with warnings.catch_warnings():
                # Meant: the penalty counts the tokens of the answer.
                warnings.filterwarnings("ignore", "Passing `repetition_penalty` with `inputs_embeds`")
                out = generate(
                    inputs_embeds=embeddings, attention_mask=mask.long(), generation_config=config, streamer=streamer
                )
        finally:
            self.llm.generation_config = defaults
        sequences: torch.Tensor = out.sequences
        lengths = [row.index(self.end) if self.end in row else len(row) for row in sequences.tolist()]
        ids = [row[:length] for row, length in zip(sequences.tolist(), lengths, strict=True)]
        if not self.logprobs:
            return [(token_ids, []) for token_ids in ids]
        # Beams change places from step to step.
        greedy = self.options.num_beams == 1
        beams = [slice(None)] * len(out.logits) if greedy else out.beam_indices.clamp_min(0).unbind(1)
        steps = [
            torch.log_softmax(logits.float(), dim=-1)[beam].gather(1, sequences[:, step, None])
            for step, (logits, beam) in enumerate(zip(out.logits, beams, strict=False))
            if step < sequences.shape[1]
        ]
        values = torch.cat(steps, dim=1).tolist()
        return [(token_ids, row[: len(token_ids) + 1]) for token_ids, row in zip(ids, values, strict=True)]
