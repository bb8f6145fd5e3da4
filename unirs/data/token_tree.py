"""Token trees: token sequences whose branches share a prefix and do not attend to each other."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

IGNORE = -100
"""Label of tokens without a loss."""

NO_END = 1 << 30
"""`TokenTree.branch_end` of tokens that all later tokens attend to."""


@dataclass
class TokenTree:
    """The token ids of one sequence that branches.

    All turns share the prefix with the visual tokens, questions share their common prefixes, and the answers to a
    question share the question. Every answer is computed as if prefix, question and answer were the whole sequence;
    `unirs.data.batch.tree_attention_mask` draws the mask.

    Attributes:
        input_ids: token ids; 0 for visual tokens.
        visual_mask: true for visual tokens.
        labels: token ids to learn; `IGNORE` elsewhere.
        branch_end: index of the first position that may not attend to this token; `NO_END` if there is none.
        loss_weights: weight of each label in the loss: 1 over the number of the sample's answers; 0 without a label.
        prompt_ends: index of the last token of each prompt that is to be completed.
    """

    input_ids: list[int] = field(default_factory=list)
    visual_mask: list[bool] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    branch_end: list[int] = field(default_factory=list)
    loss_weights: list[float] = field(default_factory=list)
    prompt_ends: list[int] = field(default_factory=list)

    def depth(self) -> int:
        """Number of tokens of the longest path, which is how many positions of the language model the tree takes."""
        closing, open_tokens, deepest = Counter(self.branch_end), 0, 0
        for index in range(len(self.input_ids)):
            open_tokens += 1 - closing[index]
            deepest = max(deepest, open_tokens)
        return deepest

    def add(self, token_ids: list[int], *, learn: bool = False, visual: bool = False) -> None:
        """Appends tokens that attend to all tokens of open branches; `learn` makes them labels."""
        self.input_ids += token_ids
        self.visual_mask += [visual] * len(token_ids)
        self.labels += token_ids if learn else [IGNORE] * len(token_ids)
        self.branch_end += [NO_END] * len(token_ids)
        self.loss_weights += [float(learn)] * len(token_ids)

    def close(self, start: int) -> None:
        """Closes the branch from index `start`: later tokens do not attend to it."""
        length = len(self.input_ids)
        self.branch_end[start:] = [min(end, length) for end in self.branch_end[start:]]

    def append(self, other: TokenTree) -> None:
        """Appends another tree that shares nothing with this one."""
        self.close(0)
        start = len(self.input_ids)
        self.input_ids += other.input_ids
        self.visual_mask += other.visual_mask
        self.labels += other.labels
        self.branch_end += [min(end + start, NO_END) for end in other.branch_end]
        self.loss_weights += other.loss_weights
        self.prompt_ends += [end + start for end in other.prompt_ends]


def partition(texts: Sequence[list[int]], max_tokens: int) -> list[list[int]]:
    """Partitions texts (token ids) into chunks of neighbours with common prefixes, as few and as even as possible.

    `max_tokens` is the budget of a chunk, which a single text may exceed. A prefix that neighbours share counts once,
    and each text for at least one token. Returns the indices of the texts of each chunk.
    """
    order = sorted(range(len(texts)), key=texts.__getitem__)
    ordered = [texts[index] for index in order]
    # Tokens of each text as the first of a chunk, and after its neighbour.
    costs = [
        (len(text), max(1, len(text) - _common_prefix_length(before, text)))
        for before, text in pairwise([[], *ordered])
    ]

    def starts(budget: int) -> list[int]:
        positions: list[int] = []
        remaining = 0
        for position, (alone, after_neighbour) in enumerate(costs):
            remaining -= after_neighbour
            if remaining < 0 or not positions:
                positions.append(position)
                remaining = budget - alone
        return positions

    # The smallest budget with as few chunks: even chunks need less padding.
    fewest = len(starts(max_tokens))
    budget = bisect_left(range(max_tokens), True, key=lambda smaller: len(starts(smaller)) == fewest)
    return [order[start:end] for start, end in pairwise([*starts(budget), len(order)])]


def append_branches(tree: TokenTree, texts: Sequence[list[int]]) -> Iterator[tuple[int, list[int]]]:
    """Appends texts (token ids, sorted) to a tree as branches; each shares its common prefix with the text before.

    Yields the index of the appended text, and the positions of its tokens in the tree. Tokens that the caller appends
    before the next step belong to its branch.
    """
    start = len(tree.input_ids)
    before: list[int] = []
    path: list[int] = []
    for index, text in enumerate(texts):
        shared = _common_prefix_length(before, text)
        if shared < len(path):
            tree.close(path[shared])
        path = path[:shared] + list(range(len(tree.input_ids), len(tree.input_ids) + len(text) - shared))
        tree.add(text[shared:])
        before = text
        yield index, path
    tree.close(start)


def _common_prefix_length(one: list[int], other: list[int]) -> int:
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))
