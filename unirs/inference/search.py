"""Search of answers token by token: greedily, by sampling, or with beams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from unirs.inference.generation_options import GenerationOptions
from unirs.inference.prefilled_batch import Branches

Decoded = tuple[list[int], list[float]]
"""The answer to one question: its token ids without the end token, and the logprobs of these and of the end token if it
was reached. For a question with choices: no token ids, and the logprob of each choice."""

OnToken = Callable[[int, int], None]
"""Called with the index of an answer, and the id of its next token."""


def sample(
    branches: Branches,
    limits: torch.Tensor,
    end: int,
    options: GenerationOptions,
    seeds: Sequence[int] = (),
    *,
    logprobs: bool = False,
    on_token: OnToken | None = None,
) -> list[Decoded]:
    """Answers questions by their likeliest tokens, or by samples.

    Args:
        branches: one for each question.
        limits: maximum length of each answer in tokens, 1 or more.
        end: id of the end-of-sequence token.
        options: temperature, top-p and repetition penalty.
        seeds: of each question's sample; for sampling only.
        logprobs: whether to return the logprobs of the answers' tokens.
        on_token: called for each token of the answers except the end token.
    """
    longest, device = int(limits.max()), limits.device
    ending = set(limits.tolist())
    adjust = _adjustments(options)
    uniform = torch.empty(0)
    if options.temperature > 0:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        uniform = torch.stack([torch.rand(longest, generator=one) for one in generators]).to(device)
    answers: list[Decoded] = [([], []) for _ in limits]
    active = torch.arange(len(answers), device=device)
    tokens = torch.empty(len(answers), 0, dtype=torch.long, device=device)  # [N, t]
    for length in range(1, longest + 1):
        logits = adjust(tokens, branches.logits) if adjust else branches.logits
        chosen = _draw(logits, uniform[active, length - 1]) if options.temperature > 0 else logits.argmax(-1)
        if logprobs:
            values = branches.logits.float().log_softmax(-1).gather(1, chosen.unsqueeze(1)).squeeze(1)
            for answer, value in zip(active.tolist(), values.tolist(), strict=True):
                answers[answer][1].append(value)
        for answer, token in zip(active.tolist(), chosen.tolist(), strict=True):
            if token != end:
                answers[answer][0].append(token)
                if on_token is not None:
                    on_token(answer, token)
        unfinished = chosen != end
        if length in ending:
            unfinished &= limits[active] > length
        active = active[unfinished]
        if not len(active):
            break
        tokens = torch.cat([tokens[unfinished], chosen[unfinished].unsqueeze(1)], dim=1)
        branches.extend(unfinished.nonzero().squeeze(1), chosen[unfinished])
    return answers


def beam_search(branches: Branches, limits: torch.Tensor, end: int, options: GenerationOptions) -> list[Decoded]:
    """Answers questions with the likeliest sequence per token that beams find, as `transformers` does by default.

    A question keeps its `num_beams` likeliest unfinished sequences, and as many finished ones. It is done when the
    likeliest unfinished sequence has a lower mean log-likelihood per token than the worst finished one.

    Args:
        branches: one for each question.
        limits: maximum length of each answer in tokens, 1 or more.
        end: id of the end-of-sequence token.
        options: number of beams and repetition penalty.
    """
    k, device = options.num_beams, limits.device
    adjust = _adjustments(options)
    finished: list[list[tuple[float, Decoded]]] = [[] for _ in limits]
    active = torch.arange(len(limits), device=device)  # A questions
    scores = torch.zeros(len(limits), 1, device=device)  # [A, k], from the second token on
    tokens = torch.empty(len(limits), 1, 0, dtype=torch.long, device=device)  # [A, k, t]
    logprobs = torch.empty(len(limits), 1, 0, device=device)  # [A, k, t]
    for length in range(1, int(limits.max()) + 1):
        raw = branches.logits.float().log_softmax(-1)
        adjusted = adjust(tokens.flatten(0, 1), raw) if adjust else raw
        count, vocab = tokens.shape[1], raw.shape[-1]
        totals = scores.unsqueeze(2) + adjusted.view(-1, count, vocab)
        # At most k of these end the sequence, so that k remain.
        best, index = totals.flatten(1).topk(2 * k)
        beam, chosen = index // vocab, index % vocab
        parent = beam + count * torch.arange(len(active), device=device).unsqueeze(1)  # [A, 2k]
        grown = torch.cat([tokens.flatten(0, 1)[parent], chosen.unsqueeze(2)], dim=2)
        values = torch.cat([logprobs.flatten(0, 1)[parent], raw[parent, chosen].unsqueeze(2)], dim=2)
        ended = (chosen == end) | (limits[active] == length).unsqueeze(1)
        for row, answer in enumerate(active.tolist()):
            for rank in ended[row, :k].nonzero().squeeze(1).tolist():
                ids = [token for token in grown[row, rank].tolist() if token != end]
                finished[answer].append((float(best[row, rank]) / length, (ids, values[row, rank].tolist())))
            finished[answer] = sorted(finished[answer], key=lambda one: -one[0])[:k]
        scores, order = best.masked_fill(ended, -torch.inf).topk(k)
        hopeless = torch.tensor(
            [
                len(finished[answer]) == k and score / length <= finished[answer][-1][0]
                for answer, score in zip(active.tolist(), scores[:, 0].tolist(), strict=True)
            ],
            device=device,
        )
        going = ~hopeless & (limits[active] > length)
        if not going.any():
            break
        active, scores, order = active[going], scores[going], order[going]
        # Branches are extended in the order of their parents.
        order = order.gather(1, parent[going].gather(1, order).argsort(dim=1, stable=True))
        scores = best[going].gather(1, order)
        tokens, logprobs = (one[going].gather(1, _like(order, one)) for one in (grown, values))
        branches.extend(parent[going].gather(1, order).flatten(), tokens[:, :, -1].flatten())
    return [one[0][1] for one in finished]


def _like(order: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return order.unsqueeze(2).expand(-1, -1, values.shape[2])


def _adjustments(options: GenerationOptions) -> Any:  # noqa: ANN401 - its types take no `Tensor`
    """Changes logits `[N, V]` of branches with tokens `[N, t]`; false if there is nothing to change."""
    processors = LogitsProcessorList()
    if options.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if options.temperature > 0:
        processors.append(TemperatureLogitsWarper(options.temperature))
        if options.top_p < 1:
            processors.append(TopPLogitsWarper(options.top_p))
    return processors


def _draw(logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The tokens, N, at which the cumulative probability of `[N, V]` exceeds N uniform numbers in 0..1, by token id.

    In the order of ids, since rounding, which depends on the batch, changes the order of equally likely tokens.
    """
    # Apple's GPUs do not have float64.
    exact = logits.cpu() if logits.device.type == "mps" else logits
    cumulative = exact.double().softmax(-1).cumsum(-1)
    # Relative to the sum, which rounding may keep below 1.
    target = uniform.to(cumulative).unsqueeze(1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).to(logits.device)
