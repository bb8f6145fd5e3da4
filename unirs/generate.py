"""Decoding: greedy, and the same for a sample whatever else is in its batch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from transformers import GenerationConfig

from unirs.batch import Batch
from unirs.errors import ModelError
from unirs.model import UniRSModel


class Generated(NamedTuple):
    """Answers without their end token.

    Attributes:
        ids: token ids of each answer.
        log_probabilities: natural logarithm of the probability of each of those tokens, and of the end token where it
            was reached; empty unless asked for.
    """

    ids: list[list[int]]
    log_probabilities: list[list[float]]


@torch.inference_mode()
def generate(
    model: UniRSModel, batch: Batch, *, end: int, max_new_tokens: int, log_probabilities: bool = False
) -> Generated:
    """Answers each sequence of a left-padded batch.

    Args:
        model: in evaluation mode.
        batch: sequences that end where the answer begins.
        end: id of the end-of-sequence token.
        max_new_tokens: the longest answer in tokens.
        log_probabilities: also of the tokens said.
    """
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=end,
        pad_token_id=end,
        use_cache=True,
        return_dict_in_generate=True,
        output_logits=log_probabilities,
    )
    embeddings, mask = model.embed(batch), batch.real().long()
    # `transformers` fills what `config` leaves open from the checkpoint's, which may penalise or forbid tokens.
    defaults, model.llm.generation_config = model.llm.generation_config, GenerationConfig()
    try:
        out = model.llm.generate(  # type: ignore[operator]
            inputs_embeds=embeddings, attention_mask=mask, generation_config=config
        )
    finally:
        model.llm.generation_config = defaults
    said: torch.Tensor = out.sequences
    lengths = [row.index(end) if end in row else len(row) for row in said.tolist()]
    ids = [row[:length] for row, length in zip(said.tolist(), lengths, strict=True)]
    if not log_probabilities:
        return Generated(ids, [[] for _ in ids])
    steps = [
        torch.log_softmax(logits.float(), dim=-1).gather(1, said[:, step, None])
        for step, logits in enumerate(out.logits)
    ]
    rows = torch.cat(steps, dim=1).tolist()
    return Generated(ids, [row[: length + 1] for row, length in zip(rows, lengths, strict=True)])


@torch.inference_mode()
def rank(model: UniRSModel, batch: Batch, choices: Sequence[Sequence[list[int]]]) -> list[list[float]]:
    """Log-likelihoods of the answers that a task allows, in one pass: all choices share what stands before them.

    Args:
        model: in evaluation mode, with a language model that takes branches.
        batch: left-padded sequences that end where the answer begins.
        choices: for each sequence, the token ids of its choices, end token included; none leaves a sequence out.

    Returns:
        For each sequence, the natural logarithm of each choice's probability, as if it stood alone.

    Raises:
        ModelError: the language model takes no branches.
    """
    if not model.branches:
        raise ModelError("Ranking needs an attention that knows branches. Set llm.attention to 'sdpa'.")
    length = batch.ids.shape[1]
    widest = max(sum(map(len, row)) for row in choices)
    ids = torch.zeros(len(choices), widest, dtype=torch.long)
    until = torch.zeros_like(ids)
    told_by: list[list[list[int]]] = []
    for row, options in enumerate(choices):
        start, places = 0, []
        for choice in options:
            end = start + len(choice)
            ids[row, start:end] = torch.tensor(choice)
            until[row, start:end] = length + end
            # The first token is told by the prompt's last one, each other by the one before it.
            places.append([0, *range(start + 1, end)])
            start = end
        told_by.append(places)
    asked = replace(
        batch,
        ids=torch.cat([batch.ids, ids.to(batch.ids)], dim=1),
        until=torch.cat([batch.until, until.to(batch.until)], dim=1),
        visual=torch.cat([batch.visual, torch.zeros_like(ids, dtype=torch.bool).to(batch.visual.device)], dim=1),
    )
    needed = torch.zeros_like(asked.visual)
    needed[:, length - 1 : -1] = True
    told = model.logits(asked, needed).float().log_softmax(-1).view(len(choices), widest, -1)
    return [
        [float(told[row, places, choice].double().sum()) for places, choice in zip(told_by[row], options, strict=True)]
        for row, options in enumerate(choices)
    ]
