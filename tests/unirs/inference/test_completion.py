"""Ranking of closed answers: the same log-likelihoods as one pass for each choice."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from unirs.data.batch import Batch, num_image_slots, tree_attention_mask
from unirs.data.collator import collate
from unirs.data.prompt_encoder import PromptEncoder
from unirs.errors import ModelError
from unirs.inference.completion import complete
from unirs.inference.generation import decode
from unirs.metrics.base import Prediction
from unirs.tasks.media import Image, Media, Pair, Video
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, Turn

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from unirs.models.unirs_model import UniRSModel

ASK = PromptTemplate("vqa", "{question}")
CHOICES = ("yes", "no", "a very long answer", "y", "no, never")
QUESTIONS = ("Is there a road?", "Water?", "Which of all these events is seen in the video?")


@pytest.fixture
def model(make_model: Callable[..., "UniRSModel"]) -> "UniRSModel":
    return make_model().eval()


@pytest.fixture
def renderer(tokenizer: "PreTrainedTokenizerBase") -> PromptEncoder:
    return PromptEncoder(tokenizer)


@pytest.fixture
def shown() -> list[Media]:
    return [Image(Path("a.png")), Pair(Path("b.png"), Path("c.png")), Video(Path("d.mp4"), 3)]


def frames(one: Media, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (one.num_frames, 3, 64, 64), dtype=torch.uint8, generator=generator)


def sample(one: Media, question: str, *answers: str) -> Sample:
    return Sample("s", one, (Turn("t", answers, {"question": question}),))


def batch_of(model: "UniRSModel", renderer: PromptEncoder, shown: list[Media]) -> Batch:
    sequences, rows = [], []
    for index, (one, question) in enumerate(zip(shown, QUESTIONS, strict=False)):
        asked = sample(one, question)
        count = partial(num_image_slots, fused=True)(one)
        ((sequence, _),) = renderer.encode_prompts(ASK, asked, count, model.projector.num_tokens)
        sequences.append(sequence)
        rows.append(Prediction(str(index), "t", (), f"kind{index}", "", "", ()))
    pictures = [frames(one, seed) for seed, one in enumerate(shown)]
    owners = [(index,) for index in range(len(shown))]
    batch = collate(pictures, [one.modality for one in shown], sequences, owners)
    return replace(batch, queries=tuple(rows))


def alone(model: "UniRSModel", renderer: PromptEncoder, one: Media, seed: int, question: str, choice: str) -> float:
    """The log-likelihood of one answer, by a training pass of its own."""
    sequence = renderer.encode_train(
        ASK, sample(one, question, choice), num_image_slots(one, fused=True), model.projector.num_tokens
    )
    with torch.no_grad():
        return -float(model.loss(collate([frames(one, seed)], [one.modality], [sequence], [(0,)])))


def test_one_pass_is_as_good_as_one_for_each_choice(
    model: "UniRSModel", renderer: PromptEncoder, shown: list[Media]
) -> None:
    tokens = [renderer.encode_choice(choice) for choice in CHOICES]
    batch = batch_of(model, renderer, shown)
    said = decode(model, batch, [tokens, tokens[:2], tokens[2:]], end=128, max_new_tokens=1)
    together = [scores for _, scores in said]
    allowed = [CHOICES, CHOICES[:2], CHOICES[2:]]
    for seed, (one, question, options) in enumerate(zip(shown, QUESTIONS, allowed, strict=True)):
        expected = [alone(model, renderer, one, seed, question, choice) for choice in options]
        assert together[seed] == pytest.approx(expected, abs=1e-4)
    assert len(set(together[0])) == len(CHOICES)


def test_free_text_and_choices_in_one_batch(model: "UniRSModel", renderer: PromptEncoder, shown: list[Media]) -> None:
    batch = batch_of(model, renderer, shown)
    free = complete(model, renderer, batch, max_new_tokens=4, logprobs=True)
    allowed = {"kind0": CHOICES, "kind1": (), "kind2": ("fire", "flood")}
    mixed = complete(model, renderer, batch, max_new_tokens=4, choices=lambda row: allowed[row.category])
    assert mixed[1].text == free[1].text
    assert mixed[1].choice_logprobs == {}
    for index in (0, 2):
        said = mixed[index]
        assert tuple(said.choice_logprobs) == allowed[f"kind{index}"]
        assert said.text == max(said.choice_logprobs, key=lambda choice: said.choice_logprobs[choice])
        assert said.logprobs == (said.choice_logprobs[said.text],)
    assert all(len(said.token_ids) == len(said.logprobs) for said in free)


def test_the_first_of_equal_choices(model: "UniRSModel", renderer: PromptEncoder, shown: list[Media]) -> None:
    # All tokens are equally likely, so that texts of equal length are.
    model.llm.get_output_embeddings().weight.data.zero_()
    (said,) = complete(
        model, renderer, batch_of(model, renderer, shown[:1]), max_new_tokens=1, choices=lambda _: ("no", "do", "go")
    )
    assert said.text == "no"
    assert len(set(said.choice_logprobs.values())) == 1


def test_flash_attention_takes_no_branches(model: "UniRSModel", renderer: PromptEncoder, shown: list[Media]) -> None:
    model.llm.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ModelError, match=r"tree attention.*'sdpa'"):
        decode(model, batch_of(model, renderer, shown[:1]), [[[5, 6]]], end=128, max_new_tokens=1)


def test_unbranched_sequences_learn_the_same(
    make_model: Callable[..., "UniRSModel"], renderer: PromptEncoder, shown: list[Media]
) -> None:
    model: Any = make_model().eval()
    turns = tuple(Turn(str(n), ("yes", "no way"), {"question": text}) for n, text in enumerate(QUESTIONS))
    asked = Sample("s", shown[0], turns)
    tokens = model.projector.num_tokens
    tree = collate([frames(shown[0], 0)], ["image"], [renderer.encode_train(ASK, asked, 1, tokens)], [(0,)])
    plain = renderer.encode_train_flat(ASK, asked, 1, tokens)
    assert len(plain) == 6
    rows = collate([frames(shown[0], 0)], ["image"], plain, [(0,)] * 6)
    expected = model.loss(tree)
    torch.testing.assert_close(model.loss(rows), expected)
    # As flash attention sees it: padding alone.
    mask = rows.token_mask().long()
    out = model.llm(
        inputs_embeds=model.get_inputs_embeds(rows),
        attention_mask=mask,
        position_ids=tree_attention_mask(rows.branch_end).sum(2) - 1,
    )
    seen = rows.token_mask()
    torch.testing.assert_close(out.logits[seen], model(rows)[seen], atol=1e-4, rtol=1e-4)
