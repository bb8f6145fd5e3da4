"""Prefilled prompts of a batch, and the branches of the token tree that answer them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from unirs.data.batch import tree_attention_mask
from unirs.data.token_tree import NO_END
from unirs.models.unirs_model import UniRSModel


class Branches:
    """Unfinished answers to some of the questions of a prefilled batch, N branches; those of a question are adjacent.

    They consume the KV cache. At first each question has one branch.

    Args:
        batch: Prefilled prompts.
        questions: Indices of the questions; ascending.

    Attributes:
        logits: Next-token logits of each branch, `[N, V]`.
    """

    def __init__(self, batch: PrefilledBatch, questions: Sequence[int]) -> None:
        self._batch = batch
        indices = torch.tensor(questions, dtype=torch.long, device=batch.device)
        self._rows, self._mask, self.logits = batch.rows[indices], batch.mask[indices], batch.first_logits[indices]
        self._cached = torch.arange(batch.num_rows, device=batch.device)

    def extend(self, parents: torch.Tensor, token_ids: torch.Tensor) -> None:
        """Replaces the branches by copies of the branches `parents`, ascending, that a token each is appended to."""
        rows, device = self._rows[parents], self._batch.device
        # The branches of a row take adjacent slots; rows without any leave the cache.
        remaining, row, counts = torch.unique_consecutive(rows, return_inverse=True, return_counts=True)
        if len(remaining) < len(self._cached):
            self._batch.keep_rows(torch.isin(self._cached, remaining).nonzero().squeeze(1))
            self._cached = remaining
        slot = torch.arange(len(rows), device=device) - (counts.cumsum(0) - counts)[row]
        own = F.one_hot(slot, int(counts.max())).bool()
        mask = torch.cat([self._mask[parents], own], dim=1)
        self._rows, self._mask = rows, mask
        self.logits = self._batch.decode_step(row, slot, token_ids, mask, own.shape[1])


class PrefilledBatch:
    """Prefilled prompts and their KV cache: B rows of T tokens that end in Q questions.

    Args:
        model: in evaluation mode.
        embeddings: `[B, T, D]`.
        branch_end: As in `Batch`, `[B, T]`.
        visual_mask: As in `Batch`, `[B, T]`; all visual tokens are in the prefix.
        row_media: As in `Batch`, B; the prefix that rows of the same media share is prefilled once.
        prompt_ends: Row and position of the last token of each question, Q; sorted by row.
    """

    def __init__(
        self,
        model: UniRSModel,
        embeddings: torch.Tensor,
        branch_end: torch.Tensor,
        visual_mask: torch.Tensor,
        row_media: Sequence[tuple[int, ...]],
        prompt_ends: Sequence[tuple[int, int]],
    ) -> None:
        self._model = model
        self.device = branch_end.device
        self._cache = DynamicCache()
        self.num_rows = len(row_media)
        self.rows, positions = torch.tensor(prompt_ends, device=self.device).unbind(1)
        shared, lengths = (branch_end >= NO_END).sum(1), (branch_end > 0).sum(1)  # [B]
        prefix_mask = self._prefill_prefix(embeddings, visual_mask, shared, row_media)  # [B, S]
        own = [slice(*ends) for ends in zip(shared.tolist(), lengths.tolist(), strict=True)]
        ends = _padded_slices(branch_end, own) - shared.unsqueeze(1)  # [B, W]
        mask = torch.cat([prefix_mask.unsqueeze(1).expand(-1, ends.shape[1], -1), tree_attention_mask(ends)], dim=2)
        last = (self.rows, positions - shared[self.rows])
        self.first_logits = model.forward_masked(_padded_slices(embeddings, own), mask, last, self._cache)  # [Q, V]
        self.mask = mask[last]  # [Q, S + W]
        self.num_positions = self.mask.sum(1)  # [Q]
        self._length = mask.shape[2]

    def _prefill_prefix(
        self,
        embeddings: torch.Tensor,
        visual_mask: torch.Tensor,
        shared: torch.Tensor,
        row_media: Sequence[tuple[int, ...]],
    ) -> torch.Tensor:
        """Prefills the first `shared` tokens of each row; the mask of prefix positions of each row, bool `[B, S]`."""
        media = list(dict.fromkeys(row_media))
        rows = torch.tensor([row_media.index(one) for one in media], device=self.device)
        prefixes = [slice(length) for length in shared[rows].tolist()]
        prefix_end = _padded_slices(torch.full(embeddings.shape[:2], NO_END, device=self.device)[rows], prefixes)
        none = torch.empty(2, 0, dtype=torch.long, device=self.device)
        mask = self._model.attention_mask(prefix_end, _padded_slices(visual_mask[rows], prefixes))
        self._model.forward_masked(_padded_slices(embeddings[rows], prefixes), mask, tuple(none), self._cache)
        if len(rows) < self.num_rows:
            self._cache.batch_select_indices(torch.tensor([media.index(one) for one in row_media], device=self.device))
        return torch.arange(prefix_end.shape[1], device=self.device) < shared.unsqueeze(1)

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Removes all other rows from the KV cache."""
        self._cache.batch_select_indices(rows)
        self.num_rows = len(rows)

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
        widths = [0] * self.num_rows
        for row, options in zip(self.rows.tolist(), choices, strict=True):
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
        logits = self.first_logits
        if tokens:
            mask = torch.zeros(len(tokens), self._length + max(widths), dtype=torch.bool, device=self.device)
            for question, found in enumerate(nodes):
                for prefix, node in found.items():
                    mask[node, : self._length] = self.mask[question]
                    ancestors = [found[prefix[:length]] for length in range(1, len(prefix) + 1)]
                    mask[node, [self._length + slots[one] for one in ancestors]] = True
            row, slot, ids = (torch.tensor(one, device=self.device) for one in (rows, slots, tokens))
            logits = torch.cat([logits, self.decode_step(row, slot, ids, mask, max(widths))])
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

    def decode_step(
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
        input_ids = torch.zeros(self.num_rows, width, dtype=torch.long, device=self.device)
        input_ids[row, slot] = token_ids
        full_mask = torch.zeros(self.num_rows, width, mask.shape[1], dtype=torch.bool, device=self.device)
        # Padding attends to itself, since the softmax over nothing is undefined.
        full_mask[:, :, -width:] = torch.eye(width, dtype=torch.bool, device=self.device)
        full_mask[row, slot] = mask
        embeddings = self._model.llm.get_input_embeddings()(input_ids)
        return self._model.forward_masked(embeddings, full_mask, (row, slot), self._cache)


def _padded_slices(values: torch.Tensor, parts: Sequence[slice]) -> torch.Tensor:
    """A slice of each row, moved to the left edge and zero-padded to one length."""
    return pad_sequence([row[part] for row, part in zip(values, parts, strict=True)], batch_first=True)
