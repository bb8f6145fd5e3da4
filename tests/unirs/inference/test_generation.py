from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch

from tests.unirs.inference.questions import LENGTH, Asked, limit_context
from unirs.data.batch import Batch
from unirs.data.token_tree import NO_END
from unirs.errors import ModelError
from unirs.inference.generation import decode
from unirs.inference.search import Decoded
from unirs.models.llm import LLMConfig, build_llm
from unirs.models.unirs_model import UniRSModel


class Counting:
    """Stands for `UniRSModel.forward_masked`, and counts."""

    def __init__(self, model: UniRSModel) -> None:
        self.lengths: list[tuple[int, ...]] = []
        self._read: Callable[..., torch.Tensor] = model.forward_masked

    def __call__(self, embeddings: torch.Tensor, *rest: object) -> torch.Tensor:
        self.lengths.append(tuple(embeddings.shape[:2]))
        return self._read(embeddings, *rest)


@pytest.mark.parametrize("room", [None, 40, 0])
def test_batched_equals_single_equals_naive(asked: Asked, room: int | None) -> None:
    # An end token that some of the answers reach, so that they end at different lengths.
    end = asked.generate(asked.batch(), 129)[0][LENGTH // 2]
    together = asked.generate(asked.batch(room), end)
    alone = [asked.generate(asked.alone(index), end)[0] for index in range(asked.count)]
    assert together == alone == [asked.naive(index, end) for index in range(asked.count)]
    assert len({tuple(generated) for generated in together}) > 1
    assert len({len(generated) for generated in together}) > 1


def test_rows_that_are_done_drop_out(asked: Asked) -> None:
    free = asked.generate(asked.batch(), 129)
    # Each token in turn ends the answers that hold it, and leaves the others.
    for end in {token for generated in free for token in generated}:
        shorter = [generated[: generated.index(end)] if end in generated else generated for generated in free]
        assert asked.generate(asked.batch(), end) == shorter


@pytest.mark.parametrize("bound", ["_MAX_MASK_CELLS", "_MAX_LOGITS", "_MAX_CACHE_BYTES"])
@pytest.mark.parametrize("part", [0, 0.3, 0.7])
def test_little_memory(asked: Asked, bound: str, part: float, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = asked.batch(20)
    expected = asked.generate(batch, 129)
    rows, length = batch.input_ids.shape
    whole = {
        "_MAX_MASK_CELLS": rows * length**2 / 2,
        "_MAX_LOGITS": asked.count * 130,
        "_MAX_CACHE_BYTES": rows * length * 2 * 2 * 32 * 4,
    }
    monkeypatch.setattr(f"unirs.inference.generation.{bound}", part * whole[bound])
    reads = Counting(asked.model)
    monkeypatch.setattr(UniRSModel, "forward_masked", reads)
    assert asked.generate(batch, 129, 1) == [generated[:1] for generated in expected]
    # Two for each part: what rows share, and what is their own. A part may begin amid the rows of a medium.
    assert len(reads.lengths) == 2 * rows if part == 0 else 4 <= len(reads.lengths) < 2 * rows


def test_what_rows_share_is_read_once(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Counting(asked.model)
    monkeypatch.setattr(UniRSModel, "forward_masked", reads)
    batch = asked.batch(20)
    asked.generate(batch, 129, 1)
    (media, _), (rows, _) = reads.lengths
    assert (media, rows) == (len(asked.media), len(batch.row_media))
    assert media < rows


@pytest.mark.parametrize("room", [None, 20, 0])
def test_closed_and_free_questions_together(asked: Asked, room: int | None) -> None:
    options: dict[str, Any] = {"end": 129, "max_new_tokens": 3}
    # Every third is free; some choices begin alike, and one begins as another ends.
    choices = [
        [] if index % 3 == 0 else [[7, 8, 129], [7, 9, 129], [7, 129], [index, 129]] for index in range(asked.count)
    ]
    together = decode(asked.model, asked.batch(room), choices, **options)
    for index, (generated, allowed) in enumerate(zip(together, choices, strict=True)):
        (alone,) = decode(asked.model, asked.alone(index), [allowed], **options)
        assert generated[0] == alone[0]
        assert bool(generated[0]) != bool(allowed)
        for likelihood, choice in zip(generated[1], allowed, strict=True):
            # A training pass over the choice by itself.
            batch = asked.alone(index, *choice)
            batch.branch_end[0, batch.branch_end[0] == batch.input_ids.shape[1] - len(choice)] = NO_END
            with torch.no_grad():
                logits = asked.model(batch)[0, -len(choice) - 1 : -1].log_softmax(-1)
            expected = logits.gather(1, torch.tensor(choice).unsqueeze(1)).sum().item()
            assert likelihood == pytest.approx(expected, abs=1e-4)


def test_log_probabilities(asked: Asked) -> None:
    end = asked.generate(asked.batch(), 129)[0][LENGTH // 2]
    batch = asked.batch()
    generated = decode(asked.model, batch, [()] * asked.count, end=end, max_new_tokens=LENGTH, logprobs=True)
    for index, (token_ids, logprobs) in enumerate(generated):
        whole = [*token_ids, end][:LENGTH]
        # As choices, each in a pass of its own.
        (ranked,) = decode(asked.model, asked.alone(index), [[whole]], end=end, max_new_tokens=1)
        assert sum(logprobs) == pytest.approx(ranked[1][0], abs=1e-4)
        assert len(logprobs) == len(whole)


@pytest.mark.parametrize("logprobs", [False, True])
def test_models_that_know_no_branches_say_the_same(asked: Asked, logprobs: bool) -> None:
    options: dict[str, Any] = {"end": asked.generate(asked.batch(), 129)[0][LENGTH // 2], "max_new_tokens": LENGTH}
    no_choices: list[tuple[list[int], ...]] = [()] * asked.count

    def say(batch: Batch) -> list[Decoded]:
        return decode(asked.model, batch, no_choices, **options, logprobs=logprobs)

    expected = say(asked.batch())
    # Attention itself stays: flash attention needs a GPU.
    with patch.object(UniRSModel, "supports_tree_attention", False):
        generated = say(asked.batch(0, left=True))
    assert [token_ids for token_ids, _ in generated] == [token_ids for token_ids, _ in expected]
    for one, other in zip(generated, expected, strict=True):
        assert one[1] == pytest.approx(other[1], abs=1e-4)


def test_longest_answer(asked: Asked) -> None:
    (free,) = asked.generate(asked.alone(0), 129)
    assert len(free) == LENGTH
    for length in (1, 3):
        assert asked.generate(asked.alone(0), 129, length) == [free[:length]]


@pytest.fixture(params=["llama", "gpt2"])
def any_positions(asked: Asked, request: pytest.FixtureRequest) -> Asked:
    """With a language model whose positions are rotations, or the rows of a table."""
    if request.param == "gpt2":
        torch.manual_seed(0)
        config = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 200}
        asked.model.llm, _ = build_llm(LLMConfig(config=config, vocab_size=130))
        asked.model.llm.get_output_embeddings().weight.data.mul_(20)
        asked.model.eval()
    return asked


@pytest.mark.parametrize("branches", [True, False])
def test_answers_end_with_the_context(any_positions: Asked, branches: bool) -> None:
    asked = any_positions
    free = asked.generate(asked.batch(), 129)
    lengths = [asked.alone(index).input_ids.shape[1] for index in range(asked.count)]
    context = max(lengths) + 2
    limit_context(asked.model.llm, context)
    # The last token of an answer is predicted, but takes no position.
    expected = [answer[: context - length + 1] for answer, length in zip(free, lengths, strict=True)]
    assert {len(answer) for answer in expected} == {3, LENGTH}
    with patch.object(UniRSModel, "supports_tree_attention", branches):
        assert asked.generate(asked.batch(None if branches else 0, left=not branches), 129) == expected


def test_choices_that_do_not_fit_in_the_context(any_positions: Asked) -> None:
    asked = any_positions
    length = asked.alone(0).input_ids.shape[1]
    limit_context(asked.model.llm, length + 2)
    ((_, scores),) = decode(asked.model, asked.alone(0), [[[7, 8, 128]]], end=128, max_new_tokens=1)
    assert len(scores) == 1
    with pytest.raises(ModelError, match=rf"A prompt of {length} tokens and a choice of 4 do not fit in the"):
        decode(asked.model, asked.alone(0), [[[7, 8, 9, 128]]], end=128, max_new_tokens=1)


@pytest.mark.parametrize("branches", [True, False])
@pytest.mark.parametrize(
    "wishes",
    [
        {"do_sample": True, "temperature": 9.0, "top_k": 0, "top_p": 0.9},
        {"repetition_penalty": 50.0},
        {"no_repeat_ngram_size": 1},
        {"num_beams": 3},
        {"max_length": 2, "min_new_tokens": LENGTH},
        {"eos_token_id": list(range(128))},
        {"suppress_tokens": list(range(0, 130, 2))},
        {"use_cache": False},
    ],
    ids=lambda wishes: next(iter(wishes)),
)
def test_checkpoint_does_not_choose_the_decoding(asked: Asked, wishes: dict[str, object], branches: bool) -> None:
    end = asked.generate(asked.alone(0), 129)[0][-1]
    expected = asked.generate(asked.batch(), end)
    own = asked.model.llm.generation_config
    for name, value in wishes.items():
        setattr(own, name, value)
    with patch.object(UniRSModel, "supports_tree_attention", branches):
        assert asked.generate(asked.batch(None if branches else 0, left=not branches), end) == expected
    assert asked.model.llm.generation_config is own
