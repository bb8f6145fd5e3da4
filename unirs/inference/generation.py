"""Generation of answers and choice scoring. A question's result does not depend on the rest of its batch.

Questions about the same media share a prefix, which is prefilled once. Their suffixes are prefilled after it, several
to a row, and each answer continues its question in a branch of its own (see `unirs.data.token_tree.TokenTree`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch

from unirs.data.batch import Batch
from unirs.data.token_tree import NO_END
from unirs.errors import ModelError
from unirs.inference.generation_options import GREEDY, GenerationOptions
from unirs.inference.hf_generation import FlatGenerator
from unirs.inference.prefilled_batch import Branches, PrefilledBatch
from unirs.inference.search import Decoded, OnToken, beam_search, sample
from unirs.models.unirs_model import UniRSModel

_MAX_MASK_CELLS = 1 << 24
"""Maximum number of attention mask entries in memory."""

_MAX_LOGITS = 1 << 27
"""Maximum number of logits in memory."""

_MAX_CACHE_BYTES = 1 << 32
"""Maximum size of the KV cache in bytes."""


@torch.inference_mode()
def decode(
    model: UniRSModel,
    batch: Batch,
    choices: Sequence[Sequence[list[int]]],
    *,
    end: int,
    max_new_tokens: int,
    logprobs: bool = False,
    options: GenerationOptions = GREEDY,
    seeds: Sequence[int] = (),
    on_token: OnToken | None = None,
) -> list[Decoded]:
    """Answers each question of an evaluation batch.

    Args:
        model: in evaluation mode.
        batch: An evaluation batch, with `prompt_ends`.
        choices: For each question the token ids of its choices, end token included; empty for free text.
        end: id of the end-of-sequence token.
        max_new_tokens: Maximum length of free text in tokens; it also ends with the model's context.
        logprobs: Whether to return the logprobs of free text.
        options: How free text is generated.
        seeds: of each question's sample; for sampling only.
        on_token: Called with the index of a question and the id of the next token of its free text, without the end
            token; not called for beams. An exception that it raises ends the generation.

    Raises:
        ModelError: there are choices that do not fit in the model's context, or the attention implementation does not
            support tree attention.
    """
    if not model.supports_tree_attention and any(choices):
        raise ModelError("Choice scoring needs tree attention. Set llm.attn_implementation to 'sdpa'.")
    visual_embeds = model.get_visual_embeds(batch)
    prompt_ends = sorted((row, position, question) for question, (row, position) in enumerate(batch.prompt_ends))
    decoded: dict[int, Decoded] = {}
    widest = max(options.num_beams, *(sum(map(len, texts)) for texts in choices))
    for rows in _split_rows(model, batch, widest):
        embeddings = model.merge_visual_embeds(batch, visual_embeds, rows)
        chunk = {
            question: (row - rows.start, position)
            for row, position, question in prompt_ends
            if rows.start <= row < rows.stop
        }
        if not model.supports_tree_attention:
            mask = batch.token_mask()[rows]
            chosen = [seeds[question] for question in chunk] if seeds else []
            generate = FlatGenerator(model.llm, end, options, logprobs, _of_questions(on_token, list(chunk)))
            flat = generate(embeddings, mask, _max_tokens(model, mask.sum(1), max_new_tokens), chosen)
            decoded |= dict(zip(chunk, flat, strict=True))
            continue
        prefilled = PrefilledBatch(
            model,
            embeddings,
            batch.branch_end[rows],
            batch.visual_mask[rows],
            batch.row_media[rows],
            list(chunk.values()),
        )
        questions, allowed = list(chunk), [choices[question] for question in chunk]
        _check_choices(model, prefilled.num_positions, allowed)
        free = [index for index, texts in enumerate(allowed) if not texts]
        if any(allowed):
            scored = prefilled.score_choices(allowed)
            decoded |= {question: ([], scores) for question, scores in zip(questions, scored, strict=True) if scores}
        if free:
            asked = [questions[index] for index in free]
            limits = _max_tokens(model, prefilled.num_positions[free], max_new_tokens)
            branches = Branches(prefilled, free)
            if options.num_beams > 1:
                answers = beam_search(branches, limits, end, options)
            else:
                chosen = [seeds[question] for question in asked] if seeds else []
                answers = sample(
                    branches, limits, end, options, chosen, logprobs=logprobs, on_token=_of_questions(on_token, asked)
                )
            decoded |= dict(zip(asked, answers, strict=True))
    return [decoded[question] for question in range(len(batch.prompt_ends))]


def _of_questions(on_token: OnToken | None, questions: Sequence[int]) -> OnToken | None:
    """`on_token` for answers to some of the questions."""
    return None if on_token is None else lambda answer, token_id: on_token(questions[answer], token_id)


def _split_rows(model: UniRSModel, batch: Batch, widest: int) -> Iterator[slice]:
    """Splits the rows into chunks that fit the limits of memory; `widest`: tokens or beams of one question at once."""
    config = model.llm.config.get_text_config()
    vocabulary, width = model.llm.get_output_embeddings().weight.shape
    # Per token; less with grouped-query attention.
    cache_bytes = 2 * config.num_hidden_layers * width * model.llm.dtype.itemsize
    shared, lengths = (batch.branch_end >= NO_END).sum(1).tolist(), batch.token_mask().sum(1).tolist()
    num_questions = Counter(row for row, _ in batch.prompt_ends)

    def fits(rows: range) -> bool:
        before, own = max(shared[row] for row in rows), max(lengths[row] - shared[row] for row in rows)
        media = len({batch.row_media[row] for row in rows})
        return (
            media * before**2 + len(rows) * own * (before + own) <= _MAX_MASK_CELLS
            and sum(num_questions[row] for row in rows) * (1 + widest) * int(vocabulary) <= _MAX_LOGITS
            and len(rows) * (before + own) * cache_bytes <= _MAX_CACHE_BYTES
        )

    start = 0
    for row in range(1, len(lengths)):
        if not fits(range(start, row + 1)):
            yield slice(start, row)
            start = row
    yield slice(start, len(lengths))


def _max_tokens(model: UniRSModel, num_positions: torch.Tensor, max_new_tokens: int) -> torch.Tensor:
    """Maximum length of the answer to each prompt, whose tokens take `num_positions`; its last token takes none."""
    if model.context is None:
        return torch.full_like(num_positions, max_new_tokens)
    return (model.context + 1 - num_positions).clamp(max=max_new_tokens)


def _check_choices(model: UniRSModel, num_positions: torch.Tensor, choices: Sequence[Sequence[list[int]]]) -> None:
    context = model.context
    for positions, options in zip(num_positions.tolist(), choices, strict=True):
        longest = max(map(len, options), default=0)
        if context is not None and positions + longest - 1 > context:
            raise ModelError(
                f"A prompt of {positions} tokens and a choice of {longest} do not fit in the {context} positions "
                "of the language model. Shorten the prompt or the choices, lower the number of frames, or choose "
                "another language model."
            )
