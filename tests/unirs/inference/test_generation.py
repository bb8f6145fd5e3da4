from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.data.batch import Batch, num_image_slots
from unirs.data.collator import collate
from unirs.data.prompt_encoder import PromptEncoder
from unirs.data.token_tree import NO_END, TokenTree
from unirs.errors import ModelError
from unirs.inference.generation import Decoded, decode
from unirs.models.llm import LLMConfig, build_llm
from unirs.models.unirs_model import UniRSModel
from unirs.tasks.media import Media
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, Turn

LENGTH = 8
QUESTIONS = ("a?", "how many roads are there in here?", "x", "how many roads?", "a?", "how many roads are there?")


class Asked:
    """All questions about each medium."""

    def __init__(self, model: UniRSModel, tokenizer: PreTrainedTokenizerBase, media: list[Media]) -> None:
        generator = torch.Generator().manual_seed(1)
        self.model = model
        self.renderer = PromptEncoder(tokenizer)
        self.media = media
        self.frames = [
            torch.randint(0, 256, (one.num_frames, 3, 64, 64), dtype=torch.uint8, generator=generator) for one in media
        ]
        self.count = len(media) * len(QUESTIONS)

    def sequences(self, one: Media, *questions: str, room: int | None = None) -> list[tuple[TokenTree, list[int]]]:
        sample = Sample("s", one, tuple(Turn("t", ("y",), {"question": question}) for question in questions))
        tokens = self.model.projector.num_tokens
        return self.renderer.encode_prompts(
            PromptTemplate("vqa", "{question}"),
            sample,
            num_image_slots(one, fused=self.model.change is not None),
            tokens,
            max_tokens=room,
        )

    def batch(self, room: int | None = None, *, left: bool = False) -> Batch:
        """All questions, those of a medium in rows of some tokens."""
        rows, owners, asked = [], [], []
        for owner, one in enumerate(self.media):
            for sequence, turns in self.sequences(one, *QUESTIONS, room=room):
                rows.append(sequence)
                owners.append((owner,))
                asked += [owner * len(QUESTIONS) + turn for turn in turns]
        batch = collate(self.frames, [one.modality for one in self.media], rows, owners, pad_left=left)
        asks = dict(zip(asked, batch.prompt_ends, strict=True))
        return replace(batch, prompt_ends=tuple(asks[question] for question in range(self.count)))

    def alone(self, index: int, *generated: int) -> Batch:
        """One question with the tokens generated so far."""
        owner, question = divmod(index, len(QUESTIONS))
        ((sequence, _),) = self.sequences(self.media[owner], QUESTIONS[question])
        sequence.add(list(generated))
        return collate([self.frames[owner]], [self.media[owner].modality], [sequence], [(0,)])

    def generate(self, batch: Batch, end: int, length: int = LENGTH) -> list[list[int]]:
        generated = decode(self.model, batch, [()] * len(batch.prompt_ends), end=end, max_new_tokens=length)
        return [token_ids for token_ids, _ in generated]

    @torch.no_grad()
    def naive(self, index: int, end: int) -> list[int]:
        """The most likely token, again and again, without a cache."""
        (row,) = self.alone(index).prompt_ends
        generated: list[int] = []
        while len(generated) < LENGTH:
            batch = self.alone(index, *generated)
            # Generated tokens belong to the question's branch.
            batch.branch_end[0, batch.branch_end[0] == row[1] + 1] = NO_END
            token = int(self.model(batch)[0, -1].argmax())
            if token == end:
                break
            generated.append(token)
        return generated


class Counting:
    """Stands for `UniRSModel.forward_masked`, and counts."""

    def __init__(self, model: UniRSModel) -> None:
        self.lengths: list[tuple[int, ...]] = []
        self._read: Callable[..., torch.Tensor] = model.forward_masked

    def __call__(self, embeddings: torch.Tensor, *rest: object) -> torch.Tensor:
        self.lengths.append(tuple(embeddings.shape[:2]))
        return self._read(embeddings, *rest)


@pytest.fixture
def asked(make_model: Callable[..., UniRSModel], tokenizer: PreTrainedTokenizerBase, media: dict[str, Media]) -> Asked:
    return Asked(make_model().eval(), tokenizer, list(media.values()))


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
    options = {"end": asked.generate(asked.batch(), 129)[0][LENGTH // 2], "max_new_tokens": LENGTH}
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


def limit_context(llm: Any, length: int) -> None:  # noqa: ANN401 - attributes that no type knows
    """Cuts a model's context, and its table of positions if it has one."""
    llm.config.max_position_embeddings = length
    if llm.config.model_type == "gpt2":
        llm.transformer.wpe = torch.nn.Embedding.from_pretrained(llm.transformer.wpe.weight[:length])


@pytest.fixture(params=["llama", "gpt2"])
def any_positions(asked: Asked, request: pytest.FixtureRequest) -> Asked:
    """With a language model whose positions are rotations, or the rows of a table."""
    if request.param == "gpt2":
        torch.manual_seed(0)
        config = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 100}
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
