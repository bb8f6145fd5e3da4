"""Token trees: token sequences whose branches share a prefix and do not attend to each other."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


IGNORE = -100
"""The label of tokens that are not learnt."""

NO_END = 1 << 30
"""`TokenTree.until` of tokens that all later ones see."""


@dataclass
class TokenTree:
    """Token ids of one sequence that branches: what stands before is shared, and branches do not see each other.

    The prefix with the visual tokens is shared by all turns, the beginning of a question by those that begin alike, and
    a question by all its answers. Every answer is computed as if prefix, question and answer stood alone in the
    sequence.

    Attributes:
        ids: token ids; 0 where a visual token stands.
        visual: whether a visual token stands there.
        labels: the ids to learn, `IGNORE` elsewhere.
        until: the index from which on no token sees this one, `OPEN` where all do.
        weights: how much each label counts in the loss: 1 over the answers of its sample; 0 where nothing is learnt.
        asks: the index of the last token of each question whose answer is to be found.
    """

    input_ids: list[int] = field(default_factory=list)
    visual_mask: list[bool] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    branch_end: list[int] = field(default_factory=list)
    loss_weights: list[float] = field(default_factory=list)
    prompt_ends: list[int] = field(default_factory=list)

    def add(self, token_ids: list[int], *, learn: bool = False, visual: bool = False) -> None:
        """Appends tokens that see all tokens of branches that are not closed."""
        self.input_ids += token_ids
        self.visual_mask += [visual] * len(token_ids)
        self.labels += token_ids if learn else [IGNORE] * len(token_ids)
        self.branch_end += [NO_END] * len(token_ids)
        self.loss_weights += [float(learn)] * len(token_ids)

    def close(self, start: int) -> None:
        """Ends the branch that began at index `start`: later tokens do not see it."""
        end = len(self.input_ids)
        self.branch_end[start:] = [min(until, end) for until in self.branch_end[start:]]

    def append(self, other: TokenTree) -> None:
        """Appends another sequence that shares nothing with this one."""
        self.close(0)
        start = len(self.input_ids)
        self.input_ids += other.input_ids
        self.visual_mask += other.visual_mask
        self.labels += other.labels
        self.branch_end += [min(until + start, NO_END) for until in other.branch_end]
        self.loss_weights += other.loss_weights
        self.prompt_ends += [ask + start for ask in other.prompt_ends]


def _partition(texts: Sequence[list[int]], max_tokens: int) -> list[list[int]]:
    """Parts texts so that those which begin alike stand together, sorted.

    Args:
        texts: token ids.
        max_tokens: tokens in a part, beginnings that its texts share counted once, and one at least for each text;
            one text alone may take more.

    Returns:
        Which texts each part has.
    """
    order = sorted(range(len(texts)), key=texts.__getitem__)
    ordered = [texts[index] for index in order]
    lengths = [
        (len(text), max(1, len(text) - _common_prefix_length(before, text)))
        for before, text in pairwise([[], *ordered])
    ]

    def starts(room: int) -> list[int]:
        found: list[int] = []
        left = 0
        for place, (alone, more) in enumerate(lengths):
            left -= more
            if left < 0 or not found:
                found.append(place)
                left = room - alone
        return found

    # As even as so few parts can be, since rows are padded to the longest.
    fewest = len(starts(max_tokens))
    even = bisect_left(range(max_tokens), True, key=lambda less: len(starts(less)) == fewest)
    return [order[start:end] for start, end in pairwise([*starts(even), len(order)])]


def _append_branches(tree: TokenTree, texts: Sequence[list[int]]) -> Iterator[tuple[int, list[int]]]:
    """Appends texts, each a branch that shares what it begins with in common with the one before.

    Args:
        tree: holds what all of them share.
        texts: token ids; sorted, so that much is shared.

    Yields:
        Which text has just been appended, and where in the sequence its tokens stand. What is appended now belongs to
        it.
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
    """How many tokens two texts begin with in common."""
    unlike = (place for place, (left, right) in enumerate(zip(one, other, strict=False)) if left != right)
    return next(unlike, min(len(one), len(other)))
