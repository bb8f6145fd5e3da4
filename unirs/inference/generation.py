"""Decoding: greedy, and the same for a question whatever else is in its batch.

All questions about a medium share what stands before them: it is read once. Questions are read behind it, several a
row, and answers go on from there, a branch each (see `unirs.data.token_tree.Sequence`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, GenerationConfig

from unirs.data.batch import Batch, tree_attention_mask
from unirs.data.token_tree import NO_END
from unirs.errors import ModelError
from unirs.models.unirs_model import UniRSModel

_MAX_MASK_CELLS = 1 << 24
"""Places of attention masks in memory at once."""

_MAX_LOGITS = 1 << 27
"""Logits in memory at once."""

_MAX_CACHE_BYTES = 1 << 32
"""Bytes of keys and values in memory at once."""


class Said(NamedTuple):
    """The answer to one question.

    Attributes:
        ids: token ids, without the end token; none where there were choices.
        log_probabilities: natural logarithm of the probability of each of them, and of the end token where it was
            reached; empty unless asked for.
        likelihoods: natural logarithm of each choice's probability, as if it stood alone.
    """

    ids: list[int]
    log_probabilities: list[float]
    likelihoods: list[float]


@torch.inference_mode()
def complete(
    model: UniRSModel,
    batch: Batch,
    choices: Sequence[Sequence[list[int]]],
    *,
    end: int,
    max_new_tokens: int,
    log_probabilities: bool = False,
) -> list[Said]:
    """Answers each question of an evaluation batch.

    Args:
        model: in evaluation mode.
        batch: with `asks`.
        choices: for each question the token ids of its choices, end token included; none asks for free text.
        end: id of the end-of-sequence token.
        max_new_tokens: the longest free text in tokens.
        log_probabilities: also those of the tokens of free text.

    Raises:
        ModelError: there are choices, and the language model takes no branches.
    """
    if not model.supports_tree_attention and any(choices):
        raise ModelError("Ranking needs an attention that knows branches. Set llm.attn_implementation to 'sdpa'.")
    seen = model.get_visual_embeds(batch)
    asks = sorted((row, place, question) for question, (row, place) in enumerate(batch.prompt_ends))
    said: dict[int, Said] = {}
    for rows in _split_rows(model, batch, max(sum(map(len, options)) for options in choices)):
        embeddings = model.merge_visual_embeds(batch, seen, rows)
        here = {question: (row - rows.start, place) for row, place, question in asks if rows.start <= row < rows.stop}
        if not model.supports_tree_attention:
            real = batch.token_mask()[rows]
            told = _generate_flat(model, embeddings, real, end, max_new_tokens, log_probabilities)
            said |= dict(zip(here, told, strict=True))
            continue
        reading = PrefilledBatch(model, embeddings, batch.branch_end[rows], batch.row_media[rows], list(here.values()))
        questions, allowed = list(here), [choices[question] for question in here]
        free = [place for place, options in enumerate(allowed) if not options]
        if any(allowed):
            ranked = reading.score_choices(allowed)
            said |= {question: Said([], [], of) for question, of in zip(questions, ranked, strict=True) if of}
        if free:
            told = reading.generate(free, end, max_new_tokens, log_probabilities)
            said |= dict(zip([questions[place] for place in free], told, strict=True))
    return [said[question] for question in range(len(batch.prompt_ends))]


def _split_rows(model: UniRSModel, batch: Batch, widest: int) -> Iterator[slice]:
    """Parts the rows so that the language model has memory for what it reads at once.

    Args:
        model: in evaluation mode.
        batch: with `asks`.
        widest: the most tokens that the choices of a question have.
    """
    config = model.llm.config.get_text_config()
    vocabulary, width = model.llm.get_output_embeddings().weight.shape
    kept = 2 * config.num_hidden_layers * width * model.llm.dtype.itemsize  # of a token, or less with shared heads
    shared, lengths = (batch.branch_end >= NO_END).sum(1).tolist(), batch.token_mask().sum(1).tolist()
    asked = Counter(row for row, _ in batch.prompt_ends)

    def fits(rows: range) -> bool:
        before, own = max(shared[row] for row in rows), max(lengths[row] - shared[row] for row in rows)
        media = len({batch.row_media[row] for row in rows})
        return (
            media * before**2 + len(rows) * own * (before + own) <= _MAX_MASK_CELLS
            and sum(asked[row] for row in rows) * (1 + widest) * int(vocabulary) <= _MAX_LOGITS
            and len(rows) * (before + own) * kept <= _MAX_CACHE_BYTES
        )

    start = 0
    for row in range(1, len(lengths)):
        if not fits(range(start, row + 1)):
            yield slice(start, row)
            start = row
    yield slice(start, len(lengths))


class PrefilledBatch:
    """Questions that the language model has read, and what it keeps of them: B rows of T tokens with Q questions.

    Args:
        model: in evaluation mode.
        embeddings: `[B, T, D]`.
        until: as in `Batch`, `[B, T]`.
        owners: as in `Batch`, B; what rows of one medium share is read for the first of them only.
        asks: the row of each question and the place of its last token, Q; row by row.
    """

    def __init__(
        self,
        model: UniRSModel,
        embeddings: torch.Tensor,
        until: torch.Tensor,
        owners: Sequence[tuple[int, ...]],
        asks: Sequence[tuple[int, int]],
    ) -> None:
        self._model = model
        self._device = until.device
        self._cache = DynamicCache()
        self._count = len(owners)
        self._rows, places = torch.tensor(asks, device=self._device).unbind(1)
        shared, lengths = (until >= NO_END).sum(1), (until > 0).sum(1)  # [B]
        before = self._prefill_prefix(embeddings, shared, owners)
        own = [slice(*ends) for ends in zip(shared.tolist(), lengths.tolist(), strict=True)]
        ends = _padded_slices(until, own) - shared.unsqueeze(1)  # [B, W]
        seen = torch.cat([before.unsqueeze(1).expand(-1, ends.shape[1], -1), tree_attention_mask(ends)], dim=2)
        last = (self._rows, places - shared[self._rows])
        self._first = model.forward_masked(_padded_slices(embeddings, own), seen, last, self._cache)  # [Q, V]
        self._seen = seen[last]  # [Q, S + W]
        self._length = seen.shape[2]

    def _prefill_prefix(
        self, embeddings: torch.Tensor, shared: torch.Tensor, owners: Sequence[tuple[int, ...]]
    ) -> torch.Tensor:
        """Reads the first `shared` tokens of rows into the cache; which places there a row sees, bool `[B, S]`."""
        media = list(dict.fromkeys(owners))
        rows = torch.tensor([owners.index(owner) for owner in media], device=self._device)
        heads = [slice(length) for length in shared[rows].tolist()]
        until = _padded_slices(torch.full(embeddings.shape[:2], NO_END, device=self._device)[rows], heads)
        none = torch.empty(2, 0, dtype=torch.long, device=self._device)
        self._model.forward_masked(
            _padded_slices(embeddings[rows], heads), tree_attention_mask(until), tuple(none), self._cache
        )
        if len(rows) < self._count:
            self._cache.batch_select_indices(
                torch.tensor([media.index(owner) for owner in owners], device=self._device)
            )
        return torch.arange(until.shape[1], device=self._device) < shared.unsqueeze(1)

    def generate(self, questions: Sequence[int], end: int, max_new_tokens: int, log_probabilities: bool) -> list[Said]:
        """Answers some of the questions, greedily. Nothing can be asked afterwards.

        Args:
            questions: which, counted from 0; ascending.
            end: id of the end-of-sequence token.
            max_new_tokens: the longest answer in tokens.
            log_probabilities: also of the tokens said.
        """
        said = [Said([], [], []) for _ in questions]
        going = torch.arange(len(questions), device=self._device)
        asked = torch.tensor(questions, dtype=torch.long, device=self._device)
        rows, seen, logits = self._rows[asked], self._seen[asked], self._first[asked]
        cached = torch.arange(self._count, device=self._device)
        for step in range(max_new_tokens):
            chosen = logits.argmax(-1)
            if log_probabilities:
                told = logits.float().log_softmax(-1).gather(1, chosen.unsqueeze(1)).squeeze(1)
                for answer, value in zip(going.tolist(), told.tolist(), strict=True):
                    said[answer].log_probabilities.append(value)
            goes_on = chosen != end
            chosen, going, rows, seen = chosen[goes_on], going[goes_on], rows[goes_on], seen[goes_on]
            for answer, token in zip(going.tolist(), chosen.tolist(), strict=True):
                said[answer].ids.append(token)
            if not len(going) or step + 1 == max_new_tokens:
                break
            # The answers that go on stand side by side in their rows; rows without any drop out.
            left, row, counts = torch.unique_consecutive(rows, return_inverse=True, return_counts=True)
            if len(left) < len(cached):
                self._cache.batch_select_indices(torch.isin(cached, left).nonzero().squeeze(1))
                cached, self._count = left, len(left)
            slot = torch.arange(len(rows), device=self._device) - (counts.cumsum(0) - counts)[row]
            own = F.one_hot(slot, int(counts.max())).bool()
            seen = torch.cat([seen, own], dim=1)
            logits = self._decode_step(row, slot, chosen, seen, own.shape[1])
        return said

    def score_choices(self, choices: Sequence[Sequence[list[int]]]) -> list[list[float]]:
        """The log-likelihood of each choice of each question; beginnings that choices share are read once.

        Args:
            choices: Q; none leaves a question out.
        """
        # A node is a beginning of choices of one question, and stands in the question's row.
        nodes: list[dict[tuple[int, ...], int]] = []
        rows: list[int] = []
        slots: list[int] = []
        tokens: list[int] = []
        widths = [0] * self._count
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
        # [Q, V], then a row a node, so that question q tells the first token and node n the one after it.
        told = self._first
        if tokens:
            seen = torch.zeros(len(tokens), self._length + max(widths), dtype=torch.bool, device=self._device)
            for question, found in enumerate(nodes):
                for beginning, node in found.items():
                    seen[node, : self._length] = self._seen[question]
                    above = [found[beginning[:length]] for length in range(1, len(beginning) + 1)]
                    seen[node, [self._length + slots[one] for one in above]] = True
            row, slot, ids = (torch.tensor(one, device=self._device) for one in (rows, slots, tokens))
            told = torch.cat([told, self._decode_step(row, slot, ids, seen, max(widths))])
            self._cache.crop(-max(widths))
        told = told.float()
        # One number for each token of each choice: where it is told, which it is, and of which choice.
        where, which, of = [], [], []
        count = 0
        for question, (options, found) in enumerate(zip(choices, nodes, strict=True)):
            for choice in options:
                where += [question, *(len(choices) + found[tuple(choice[:n])] for n in range(1, len(choice)))]
                which += choice
                of += [count] * len(choice)
                count += 1
        # Not every device has doubles.
        scores = (told[where, which] - told.logsumexp(-1)[where]).cpu().double()
        sums = iter(torch.zeros(count, dtype=torch.double).index_add_(0, torch.tensor(of), scores).tolist())
        return [[next(sums) for _ in options] for options in choices]

    def _decode_step(
        self, row: torch.Tensor, slot: torch.Tensor, ids: torch.Tensor, seen: torch.Tensor, width: int
    ) -> torch.Tensor:
        """Reads N more tokens; their next-token logits, `[N, V]`.

        Args:
            row: where each stands, N.
            slot: likewise, below `width`, N.
            ids: N.
            seen: which tokens in the cache and of its row's `width` new ones each sees, `[N, S + width]`.
            width: new tokens a row, padding included.
        """
        every = torch.zeros(self._count, width, dtype=torch.long, device=self._device)
        every[row, slot] = ids
        mask = torch.zeros(self._count, width, seen.shape[1], dtype=torch.bool, device=self._device)
        # Padding sees itself, as attention to nothing is undefined.
        mask[:, :, -width:] = torch.eye(width, dtype=torch.bool, device=self._device)
        mask[row, slot] = seen
        embeddings = self._model.llm.get_input_embeddings()(every)
        return self._model.forward_masked(embeddings, mask, (row, slot), self._cache)


def _padded_slices(values: torch.Tensor, parts: Sequence[slice]) -> torch.Tensor:
    """A part of each row, from the left edge on and filled up with zeros."""
    return pad_sequence([row[part] for row, part in zip(values, parts, strict=True)], batch_first=True)


def _generate_flat(
    model: UniRSModel,
    embeddings: torch.Tensor,
    real: torch.Tensor,
    end: int,
    max_new_tokens: int,
    log_probabilities: bool,
) -> list[Said]:
    """By `transformers`, for left-padded rows with one question each."""
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
    # `transformers` fills what `config` leaves open from the checkpoint's, which may penalise or forbid tokens.
    defaults, model.llm.generation_config = model.llm.generation_config, GenerationConfig()
    try:
        out = model.llm.generate(  # type: ignore[operator]
            inputs_embeds=embeddings, attention_mask=real.long(), generation_config=config
        )
    finally:
        model.llm.generation_config = defaults
    said: torch.Tensor = out.sequences
    lengths = [row.index(end) if end in row else len(row) for row in said.tolist()]
    ids = [row[:length] for row, length in zip(said.tolist(), lengths, strict=True)]
    if not log_probabilities:
        return [Said(told, [], []) for told in ids]
    steps = [
        torch.log_softmax(logits.float(), dim=-1).gather(1, said[:, step, None])
        for step, logits in enumerate(out.logits)
    ]
    rows = torch.cat(steps, dim=1).tolist()
    return [Said(told, row[: len(told) + 1], []) for told, row in zip(ids, rows, strict=True)]
