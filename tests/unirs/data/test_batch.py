import itertools
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import unirs.data.batch
import unirs.data.collator
from unirs.data.batch import Batch, group_by_length, tree_attention_mask
from unirs.data.collator import collate, pack_rows
from unirs.data.token_tree import IGNORE, NO_END, TokenTree
from unirs.tasks.media import Modality


def sequence(prefix: int, *turns: int) -> TokenTree:
    """Ids count from 1; the first token is visual, the last of each turn is learnt; each turn is a branch."""
    made = TokenTree()
    for branch, length in enumerate((prefix, *turns)):
        start = len(made.input_ids)
        for index in range(length):
            first, last = branch == 0 and index == 0, branch > 0 and index == length - 1
            made.add([start + index + 1], learn=last, visual=first)
        if branch:
            made.close(start)
    return made


def batch(*sequences: TokenTree, left: bool) -> Batch:
    frames = [torch.zeros(1, 3, 2, 2, dtype=torch.uint8) for _ in sequences]
    modalities: list[Modality] = ["image"] * len(sequences)
    return collate(frames, modalities, sequences, [(index,) for index in range(len(sequences))], pad_left=left)


def positions(made: Batch) -> torch.Tensor:
    return tree_attention_mask(made.branch_end).sum(2) - 1


def test_right_padding() -> None:
    made = batch(sequence(2, 2, 1), sequence(1, 2), left=False)
    assert made.input_ids.tolist() == [[1, 2, 3, 4, 5], [1, 2, 3, 0, 0]]
    assert made.branch_end.tolist() == [[NO_END, NO_END, 4, 4, 5], [NO_END, 3, 3, 0, 0]]
    assert made.token_mask().tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert made.labels.tolist() == [[IGNORE, IGNORE, IGNORE, 4, 5], [IGNORE, IGNORE, 3, IGNORE, IGNORE]]
    assert made.visual_mask.tolist() == [[True] + [False] * 4] * 2
    assert positions(made).tolist() == [[0, 1, 2, 3, 2], [0, 1, 2, 0, 0]]
    assert tree_attention_mask(made.branch_end).int().tolist() == [
        [
            [1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [1, 1, 1, 0, 0],
            [1, 1, 1, 1, 0],
            [1, 1, 0, 0, 1],
        ],
        [
            [1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [1, 1, 1, 0, 0],
            [0, 0, 0, 1, 0],
            [0, 0, 0, 0, 1],
        ],
    ]


def test_left_padding() -> None:
    made = batch(sequence(2, 2), sequence(1, 1), left=True)
    assert made.input_ids.tolist() == [[1, 2, 3, 4], [0, 0, 1, 2]]
    assert made.branch_end.tolist() == [[NO_END, NO_END, 4, 4], [0, 0, NO_END + 2, 4]]
    assert made.token_mask().tolist() == [[True] * 4, [False] * 2 + [True] * 2]
    assert made.labels.tolist() == [[IGNORE, IGNORE, IGNORE, 4], [IGNORE, IGNORE, IGNORE, 2]]
    assert made.visual_mask.tolist() == [[True, False, False, False], [False, False, True, False]]
    assert positions(made).tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    assert tree_attention_mask(made.branch_end)[1].int().tolist() == [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 1, 1],
    ]


shapes = st.lists(
    st.tuples(st.integers(0, 4), st.lists(st.integers(1, 4), min_size=1, max_size=4)), min_size=1, max_size=3
)


@given(shapes, st.booleans())
def test_token_attends_to_the_prefix_and_its_own_turn(shapes: list[tuple[int, list[int]]], left: bool) -> None:
    made = batch(*(sequence(prefix, *turns) for prefix, turns in shapes), left=left)
    width = made.input_ids.shape[1]
    for (prefix, turns), mask, positions_of in zip(
        shapes, tree_attention_mask(made.branch_end).tolist(), positions(made).tolist(), strict=True
    ):
        row_media = [0] * prefix + [turn for turn, length in enumerate(turns, 1) for _ in range(length)]
        padding = [-1] * (width - len(row_media))
        row_media = padding + row_media if left else row_media + padding
        for query, index in enumerate(row_media):
            attended = {key for key in range(width) if mask[query][key]}
            if index == -1:
                assert (attended, positions_of[query]) == ({query}, 0)
            else:
                assert attended == {key for key in range(query + 1) if row_media[key] in (0, index)}
                # As if the turn stood alone behind the prefix.
                assert positions_of[query] == len(attended) - 1


def test_branches_of_branches() -> None:
    made = TokenTree()
    made.add([1])
    made.add([2])  # a question, attended by both of its answers
    for answer in (3, 4):
        made.add([answer], learn=True)
        made.close(len(made.input_ids) - 1)
    made.close(1)
    made.add([5])  # the next question
    assert made.branch_end == [NO_END, 4, 3, 4, NO_END]
    both = batch(made, left=False)
    assert positions(both).tolist() == [[0, 1, 2, 2, 1]]
    assert tree_attention_mask(both.branch_end)[0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 0, 0, 0, 1],
    ]


some = st.lists(st.tuples(st.integers(1, 4), st.lists(st.integers(1, 4), min_size=1, max_size=3)), min_size=1)


@given(some, st.integers(1, 20))
def test_packed_trees_do_not_attend_to_each_other(shapes: list[tuple[int, list[int]]], short: int) -> None:
    sequences = [sequence(prefix, *turns) for prefix, turns in shapes]
    with patch.object(unirs.data.collator, "SHORT_ROW", short):
        rows, row_media = pack_rows(sequences)
    assert max(len(row.input_ids) for row in rows) <= max(len(one.input_ids) for one in sequences)
    for made, indices in zip(rows, row_media, strict=True):
        assert len(made.input_ids) <= max(short, *(len(sequences[index].input_ids) for index in indices))
    assert sorted(index for row in row_media for index in row) == list(range(len(sequences)))
    packed = batch(*rows, left=False)
    for row, indices in enumerate(row_media):
        start = 0
        for index in indices:
            alone = batch(sequences[index], left=False)
            span = slice(start, start + alone.input_ids.shape[1])
            for name in ("input_ids", "labels", "visual_mask"):
                assert torch.equal(getattr(packed, name)[row, span], getattr(alone, name)[0])
            assert torch.equal(positions(packed)[row, span], positions(alone)[0])
            mask = tree_attention_mask(packed.branch_end)[row, span]
            assert torch.equal(mask[:, span], tree_attention_mask(alone.branch_end)[0])
            assert mask.sum() == tree_attention_mask(alone.branch_end).sum()
            start = span.stop


@given(st.lists(st.integers(1, 30), min_size=1, max_size=7), st.integers(0, 40))
def test_groups_by_length_contain_every_row_once_and_cost_least(lengths: list[int], per_pass: int) -> None:
    made = batch(*(sequence(length) for length in lengths), left=False)
    with patch.dict(unirs.data.batch.PASS_TOKENS, {"cpu": per_pass}):
        groups = [(rows.tolist(), length) for rows, length in group_by_length(made.branch_end)]
    assert sorted(row for rows, _ in groups for row in rows) == list(range(len(lengths)))
    assert all(max(lengths[row] for row in rows) == length for rows, length in groups)
    ranked = sorted(lengths, reverse=True)
    # All ways to cut the rows, longest first.
    cuts = [
        [0, *some, len(ranked)]
        for count in range(len(ranked))
        for some in itertools.combinations(range(1, len(ranked)), count)
    ]
    costs = [sum(ranked[start] * (end - start) + per_pass for start, end in itertools.pairwise(cut)) for cut in cuts]
    assert sum(length * len(rows) + per_pass for rows, length in groups) == min(costs)


def test_media_of_a_batch() -> None:
    frames = [torch.full((count, 3, 2, 2), count, dtype=torch.uint8) for count in (1, 2, 3)]
    made = collate(frames, ["image", "pair", "video"], [sequence(1, 1)] * 4, [(0,), (1,), (1,), (2,)], pad_left=True)
    assert made.frames[:, 0, 0, 0].tolist() == [1, 2, 2, 3, 3, 3]
    assert (made.modalities, made.num_frames, made.row_media) == (
        ("image", "pair", "video"),
        (1, 2, 3),
        ((0,), (1,), (1,), (2,)),
    )
    assert not list(made.queries)


@pytest.mark.parametrize(("left", "positions_of"), [(False, (2, 3)), (True, (4, 5))])
def test_prompt_ends_move_with_their_row(left: bool, positions_of: tuple[int, int]) -> None:
    asking, longer = sequence(2, 1), sequence(2, 3)
    asking.prompt_ends = [0, 1]
    packed = TokenTree()
    packed.append(sequence(1, 1))
    packed.append(asking)
    longer.append(sequence(1, 1))
    assert packed.prompt_ends == [2, 3]
    longer.prompt_ends = [4]
    made = batch(longer, packed, left=left)
    assert made.prompt_ends == ((0, 4), (1, positions_of[0]), (1, positions_of[1]))


def test_all_tensors_move() -> None:
    made = batch(sequence(2, 2), sequence(1, 1), left=False)
    moved = made.to("meta")
    tensors = {name: value for name, value in vars(moved).items() if isinstance(value, torch.Tensor)}
    assert set(tensors) == {"frames", "input_ids", "visual_mask", "branch_end", "labels", "loss_weights"}
    assert {tensor.device.type for tensor in tensors.values()} == {"meta"}
    assert (moved.modalities, moved.num_frames, moved.row_media) == (made.modalities, made.num_frames, made.row_media)


@pytest.mark.parametrize("left", [False, True])
def test_one_sequence_is_not_padded(left: bool) -> None:
    assert batch(sequence(1, 2), left=left).input_ids.tolist() == [[1, 2, 3]]
