"""Greedy decoding and choice scoring. A question's result does not depend on the rest of its batch.

Questions about the same media share a prefix, which is prefilled once. Their suffixes are prefilled after it, several
to a row, and each answer continues its question in a branch of its own (see `unirs.data.token_tree.TokenTree`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, GenerationConfig

from unirs.data.batch import Batch, tree_attention_mask
from unirs.data.token_tree import NO_END
from unirs.errors import ModelError
from unirs.models.unirs_model import UniRSModel

_MAX_MASK_CELLS = 1 << 24
"""Maximum number of attention mask entries in memory."""

_MAX_LOGITS = 1 << 27
"""Maximum number of logits in memory."""

_MAX_CACHE_BYTES = 1 << 32
"""Maximum size of the KV cache in bytes."""


Decoded = tuple[list[int], list[float]]
"""The answer to one question: its token ids without the end token, and the logprobs of these and of the end token if it
was reached. For a question with choices: no token ids, and the logprob of each choice."""


@torch.inference_mode()
def decode(
    model: UniRSModel,
    batch: Batch,
    choices: Sequence[Sequence[list[int]]],
    *,
    end: int,
    max_new_tokens: int,
    logprobs: bool = False,
) -> list[Decoded]:
    """Answers each question of an evaluation batch.

    Args:
        model: in evaluation mode.
        batch: An evaluation batch, with `prompt_ends`.
        choices: For each question the token ids of its choices, end token included; empty for free text.
        end: id of the end-of-sequence token.
        max_new_tokens: Maximum length of free text in tokens; it also ends with the model's context.
        logprobs: Whether to return the logprobs of free text.

    Raises:
        ModelError: there are choices that do not fit in the model's context, or the attention implementation does not
            support tree attention.
    """
    if not model.supports_tree_attention and any(choices):
        raise ModelError("Choice scoring needs tree attention. Set llm.attn_implementation to 'sdpa'.")
    visual_embeds = model.get_visual_embeds(batch)
    prompt_ends = sorted((row, position, question) for question, (row, position) in enumerate(batch.prompt_ends))
    decoded: dict[int, Decoded] = {}
    for rows in _split_rows(model, batch, max(sum(map(len, options)) for options in choices)):
        embeddings = model.merge_visual_embeds(batch, visual_embeds, rows)
        chunk = {
            question: (row - rows.start, position)
            for row, position, question in prompt_ends
            if rows.start <= row < rows.stop
        }
        if not model.supports_tree_attention:
            mask = batch.token_mask()[rows]
            flat = _generate_flat(model, embeddings, mask, end, max_new_tokens, logprobs)
            decoded |= dict(zip(chunk, flat, strict=True))
            continue
        prefilled = PrefilledBatch(
            model, embeddings, batch.branch_end[rows], batch.row_media[rows], list(chunk.values())
        )
        questions, allowed = list(chunk), [choices[question] for question in chunk]
        _check_choices(model, prefilled.num_positions, allowed)
        free = [index for index, options in enumerate(allowed) if not options]
        if any(allowed):
            scored = prefilled.score_choices(allowed)
            decoded |= {question: ([], scores) for question, scores in zip(questions, scored, strict=True) if scores}
        if free:
            answers = prefilled.generate(free, end, max_new_tokens, logprobs)
            decoded |= dict(zip([questions[index] for index in free], answers, strict=True))
    return [decoded[question] for question in range(len(batch.prompt_ends))]


def _split_rows(model: UniRSModel, batch: Batch, widest: int) -> Iterator[slice]:
    """Splits the rows into chunks that fit the limits of memory; `widest`: tokens of the choices of one question."""
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


class PrefilledBatch:
    """Prefilled prompts and their KV cache: B rows of T tokens that end in Q questions.

    Args:
        model: in evaluation mode.
        embeddings: `[B, T, D]`.
        branch_end: As in `Batch`, `[B, T]`.
        row_media: As in `Batch`, B; the prefix that rows of the same media share is prefilled once.
        prompt_ends: Row and position of the last token of each question, Q; sorted by row.
    """

    def __init__(
        self,
        model: UniRSModel,
        embeddings: torch.Tensor,
        branch_end: torch.Tensor,
        row_media: Sequence[tuple[int, ...]],
        prompt_ends: Sequence[tuple[int, int]],
    ) -> None:
        self._model = model
        self._device = branch_end.device
        self._cache = DynamicCache()
        self._num_rows = len(row_media)
        self._rows, positions = torch.tensor(prompt_ends, device=self._device).unbind(1)
        shared, lengths = (branch_end >= NO_END).sum(1), (branch_end > 0).sum(1)  # [B]
        prefix_mask = self._prefill_prefix(embeddings, shared, row_media)  # [B, S]
        own = [slice(*ends) for ends in zip(shared.tolist(), lengths.tolist(), strict=True)]
        ends = _padded_slices(branch_end, own) - shared.unsqueeze(1)  # [B, W]
        mask = torch.cat([prefix_mask.unsqueeze(1).expand(-1, ends.shape[1], -1), tree_attention_mask(ends)], dim=2)
        last = (self._rows, positions - shared[self._rows])
        self._first_logits = model.forward_masked(_padded_slices(embeddings, own), mask, last, self._cache)  # [Q, V]
        self._mask = mask[last]  # [Q, S + W]
        self.num_positions = self._mask.sum(1)  # [Q]
        self._length = mask.shape[2]

    def _prefill_prefix(
        self, embeddings: torch.Tensor, shared: torch.Tensor, row_media: Sequence[tuple[int, ...]]
    ) -> torch.Tensor:
        """Prefills the first `shared` tokens of each row; the mask of prefix positions of each row, bool `[B, S]`."""
        media = list(dict.fromkeys(row_media))
        rows = torch.tensor([row_media.index(one) for one in media], device=self._device)
        prefixes = [slice(length) for length in shared[rows].tolist()]
        prefix_end = _padded_slices(torch.full(embeddings.shape[:2], NO_END, device=self._device)[rows], prefixes)
        none = torch.empty(2, 0, dtype=torch.long, device=self._device)
        self._model.forward_masked(
            _padded_slices(embeddings[rows], prefixes), tree_attention_mask(prefix_end), tuple(none), self._cache
        )
        if len(rows) < self._num_rows:
            self._cache.batch_select_indices(torch.tensor([media.index(one) for one in row_media], device=self._device))
        return torch.arange(prefix_end.shape[1], device=self._device) < shared.unsqueeze(1)

    def generate(self, questions: Sequence[int], end: int, max_new_tokens: int, logprobs: bool) -> list[Decoded]:
        """Answers some of the questions greedily. It consumes the KV cache: call it last.

        Args:
            questions: Indices of the questions; ascending.
            end: id of the end-of-sequence token.
            max_new_tokens: Maximum length of an answer in tokens; it also ends with the model's context.
            logprobs: Whether to return the logprobs of the answers' tokens.
        """
        decoded: list[Decoded] = [([], []) for _ in questions]
        active = torch.arange(len(questions), device=self._device)
        indices = torch.tensor(questions, dtype=torch.long, device=self._device)
        rows, mask, logits = self._rows[indices], self._mask[indices], self._first_logits[indices]
        cached = torch.arange(self._num_rows, device=self._device)
        limits = _max_tokens(self._model, self.num_positions[indices], max_new_tokens)
        ending = set(limits.tolist())
        for length in range(1, max_new_tokens + 1):
            token_ids = logits.argmax(-1)
            if logprobs:
                values = logits.float().log_softmax(-1).gather(1, token_ids.unsqueeze(1)).squeeze(1)
                for answer, value in zip(active.tolist(), values.tolist(), strict=True):
                    decoded[answer][1].append(value)
            unfinished = token_ids != end
            token_ids, active, rows, mask = (one[unfinished] for one in (token_ids, active, rows, mask))
            for answer, token in zip(active.tolist(), token_ids.tolist(), strict=True):
                decoded[answer][0].append(token)
            if length in ending:
                unfinished = limits[active] > length
                token_ids, active, rows, mask = (one[unfinished] for one in (token_ids, active, rows, mask))
            if not len(active):
                break
            # Unfinished answers of a row take adjacent slots; rows without any leave the cache.
            remaining, row, counts = torch.unique_consecutive(rows, return_inverse=True, return_counts=True)
            if len(remaining) < len(cached):
                self._cache.batch_select_indices(torch.isin(cached, remaining).nonzero().squeeze(1))
                cached, self._num_rows = remaining, len(remaining)
            slot = torch.arange(len(rows), device=self._device) - (counts.cumsum(0) - counts)[row]
            own = F.one_hot(slot, int(counts.max())).bool()
            mask = torch.cat([mask, own], dim=1)
            logits = self._decode_step(row, slot, token_ids, mask, own.shape[1])
        return decoded

    def score_choices(self, choices: Sequence[Sequence[list[int]]]) -> list[list[float]]:
        """The log-likelihood of each choice of each question; prefixes that choices share are decoded once.

        Args:
            choices: Token ids of the choices of each question, Q; empty skips a question.
        """
        # A node is a prefix of choices of one question; its last token takes a slot in the question's row.
        nodes: list[dict[tuple[int, ...], int]] = []
        rows: list[int] = []
        slots: list[int] = []
        tokens: list[int] = []
        widths = [0] * self._num_rows
        for row, options in zip(self._rows.tolist(), choices, strict=True):
            found: dict[tuple[int, ...], int] = {}
            for choice in options:
                for length in range(1, len(choice)):
                    if tuple(choice[:length]) not in found:
                        found[tuple(choice[:length])] = len(tokens)
                        rows.append(row)
                        slots.append(widths[row])
                        tokens.append(choice[length - 1])
                        widths[row] += 1
            nodes.append(found)
        # [Q, V], then [nodes, V]: row q predicts the first token of a choice, row Q + n the token after node n.
        logits = self._first_logits
        if tokens:
            mask = torch.zeros(len(tokens), self._length + max(widths), dtype=torch.bool, device=self._device)
            for question, found in enumerate(nodes):
                for prefix, node in found.items():
                    mask[node, : self._length] = self._mask[question]
                    ancestors = [found[prefix[:length]] for length in range(1, len(prefix) + 1)]
                    mask[node, [self._length + slots[one] for one in ancestors]] = True
            row, slot, ids = (torch.tensor(one, device=self._device) for one in (rows, slots, tokens))
            logits = torch.cat([logits, self._decode_step(row, slot, ids, mask, max(widths))])
            self._cache.crop(-max(widths))
        logits = logits.float()
        # For each token of each choice: the row of its logits, its id, and the index of its choice.
        positions, token_ids, choice_idx = [], [], []
        count = 0
        for question, (options, found) in enumerate(zip(choices, nodes, strict=True)):
            for choice in options:
                positions += [question, *(len(choices) + found[tuple(choice[:n])] for n in range(1, len(choice)))]
                token_ids += choice
                choice_idx += [count] * len(choice)
                count += 1
        # Some devices do not support float64.
        scores = (logits[positions, token_ids] - logits.logsumexp(-1)[positions]).cpu().double()
        sums = iter(torch.zeros(count, dtype=torch.double).index_add_(0, torch.tensor(choice_idx), scores).tolist())
        return [[next(sums) for _ in options] for options in choices]

    def _decode_step(
        self, row: torch.Tensor, slot: torch.Tensor, token_ids: torch.Tensor, mask: torch.Tensor, width: int
    ) -> torch.Tensor:
        """Appends N tokens to the KV cache; returns their next-token logits, `[N, V]`.

        Args:
            row: Row of each token, N.
            slot: Position of each token among the new ones of its row, N.
            token_ids: N.
            mask: Attention mask of each token over the cache and the new tokens of its row, `[N, S + width]`.
            width: New tokens per row, including padding.
        """
        input_ids = torch.zeros(self._num_rows, width, dtype=torch.long, device=self._device)
        input_ids[row, slot] = token_ids
        full_mask = torch.zeros(self._num_rows, width, mask.shape[1], dtype=torch.bool, device=self._device)
        # Padding attends to itself, since the softmax over nothing is undefined.
        full_mask[:, :, -width:] = torch.eye(width, dtype=torch.bool, device=self._device)
        full_mask[row, slot] = mask
        embeddings = self._model.llm.get_input_embeddings()(input_ids)
        return self._model.forward_masked(embeddings, full_mask, (row, slot), self._cache)


def _max_tokens(model: UniRSModel, num_positions: torch.Tensor, max_new_tokens: int) -> torch.Tensor:
    """Maximum length of the answer to each prompt, whose tokens take `num_positions`; its last token takes none."""
    if model.context is None:
        return torch.full_like(num_positions, max_new_tokens)
    return (model.context + 1 - num_positions).clamp(max=max_new_tokens)


def _check_choices(model: UniRSModel, num_positions: torch.Tensor, choices: Sequence[Sequence[list[int]]]) -> None:
    for positions, options in zip(num_positions.tolist(), choices, strict=True):
        longest = max(map(len, options), default=0)
        if model.context is not None and positions + longest - 1 > model.context:
            raise ModelError(
                f"A prompt of {positions} tokens and a choice of {longest} do not fit in the {model.context} positions "
                "of the language model. Shorten the prompt or the choices, lower the number of frames, or choose "
                "another language model."
            )


def _padded_slices(values: torch.Tensor, parts: Sequence[slice]) -> torch.Tensor:
    """A slice of each row, moved to the left edge and zero-padded to one length."""
    return pad_sequence([row[part] for row, part in zip(values, parts, strict=True)], batch_first=True)


def greedy_config(max_new_tokens: int, **options: Any) -> GenerationConfig:  # noqa: ANN401 - as transformers has them
    """The config of greedy decoding by `transformers`."""
    return GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, use_cache=True, **options)


def _generate_flat(
    model: UniRSModel, embeddings: torch.Tensor, mask: torch.Tensor, end: int, max_new_tokens: int, logprobs: bool
) -> list[Decoded]:
    """Generation by `transformers`, for left-padded rows with one question each."""
    limits = _max_tokens(model, mask.sum(1), max_new_tokens)
    decoded: dict[int, Decoded] = {}
    # It ends the answers of a batch at one length.
    for limit in limits.unique().tolist():
        rows = (limits == limit).nonzero().squeeze(1)
        answers = _generate_rows(model, embeddings[rows], mask[rows], end, limit, logprobs)
        decoded |= dict(zip(rows.tolist(), answers, strict=True))
    return [decoded[row] for row in range(len(mask))]


def _generate_rows(
    model: UniRSModel, embeddings: torch.Tensor, mask: torch.Tensor, end: int, max_new_tokens: int, logprobs: bool
) -> list[Decoded]:
    ends = {"eos_token_id": end, "pad_token_id": end}
    config = greedy_config(max_new_tokens, **ends, return_dict_in_generate=True, output_logits=logprobs)
    # `transformers` takes unset values from the checkpoint's config, which may penalise or forbid tokens.
    defaults, model.llm.generation_config = model.llm.generation_config, GenerationConfig()
    try:
        out = model.llm.generate(  # type: ignore[operator]
            inputs_embeds=embeddings, attention_mask=mask.long(), generation_config=config
        )
    finally:
        model.llm.generation_config = defaults
    sequences: torch.Tensor = out.sequences
    lengths = [row.index(end) if end in row else len(row) for row in sequences.tolist()]
    ids = [row[:length] for row, length in zip(sequences.tolist(), lengths, strict=True)]
    if not logprobs:
        return [(token_ids, []) for token_ids in ids]
    steps = [
        torch.log_softmax(logits.float(), dim=-1).gather(1, sequences[:, step, None])
        for step, logits in enumerate(out.logits)
    ]
    rows = torch.cat(steps, dim=1).tolist()
    return [(token_ids, row[: len(token_ids) + 1]) for token_ids, row in zip(ids, rows, strict=True)]
