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
from unirs.data.processor import Processor
from unirs.data.prompt_encoder import PromptEncoder
from unirs.errors import ModelError
from unirs.inference.completion import complete
from unirs.inference.generation import decode
from unirs.metrics.base import Prediction
from unirs.models.builder import build_processor
from unirs.tasks.media import Image, Media, Pair, Video
from unirs.tasks.prompt import PromptTemplate, VisualFormat
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
def inputs() -> list[Media]:
    return [Image(Path("a.png")), Pair(Path("b.png"), Path("c.png")), Video(Path("d.mp4"), 3)]


def frames(media_item: Media, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (media_item.num_frames, 3, 64, 64), dtype=torch.uint8, generator=generator)


def sample(media_item: Media, question: str, *answers: str) -> Sample:
    return Sample("s", media_item, (Turn("t", answers, {"question": question}),))


def batch_of(model: "UniRSModel", renderer: PromptEncoder, inputs: list[Media]) -> Batch:
    sequences, rows = [], []
    for index, (media_item, question) in enumerate(zip(inputs, QUESTIONS, strict=False)):
        question_sample = sample(media_item, question)
        count = partial(num_image_slots, fused=True)(media_item)
        ((sequence, _),) = renderer.encode_prompts(ASK, question_sample, count, model.projector.num_tokens)
        sequences.append(sequence)
        rows.append(Prediction(str(index), "t", (), f"kind{index}", "", "", ()))
    media_frames = [frames(media_item, seed) for seed, media_item in enumerate(inputs)]
    row_media = [(index,) for index in range(len(inputs))]
    batch = collate(media_frames, [media_item.modality for media_item in inputs], sequences, row_media)
    return replace(batch, queries=tuple(rows))


def processor_of(model: "UniRSModel", renderer: PromptEncoder) -> Processor:
    return build_processor(model, renderer.tokenizer, VisualFormat())


def single_logprob(
    model: "UniRSModel", renderer: PromptEncoder, media_item: Media, seed: int, question: str, choice: str
) -> float:
    """The log-likelihood of one answer, by a separate training pass."""
    sequence = renderer.encode_train(
        ASK, sample(media_item, question, choice), num_image_slots(media_item, fused=True), model.projector.num_tokens
    )
    with torch.no_grad():
        return -float(model.loss(collate([frames(media_item, seed)], [media_item.modality], [sequence], [(0,)])))


def test_one_pass_equals_one_per_choice(model: "UniRSModel", renderer: PromptEncoder, inputs: list[Media]) -> None:
    tokens = [renderer.encode_choice(choice) for choice in CHOICES]
    batch = batch_of(model, renderer, inputs)
    decoded = decode(model, batch, [tokens, tokens[:2], tokens[2:]], end=128, max_new_tokens=1)
    together = [scores for _, scores in decoded]
    allowed = [CHOICES, CHOICES[:2], CHOICES[2:]]
    for seed, (media_item, question, options) in enumerate(zip(inputs, QUESTIONS, allowed, strict=True)):
        expected = [single_logprob(model, renderer, media_item, seed, question, choice) for choice in options]
        assert together[seed] == pytest.approx(expected, abs=1e-4)
    assert len(set(together[0])) == len(CHOICES)


def test_free_text_and_choices_in_one_batch(model: "UniRSModel", renderer: PromptEncoder, inputs: list[Media]) -> None:
    batch = batch_of(model, renderer, inputs)
    free = complete(model, processor_of(model, renderer), batch, max_new_tokens=4, logprobs=True)
    allowed = {"kind0": CHOICES, "kind1": (), "kind2": ("fire", "flood")}
    mixed = complete(
        model, processor_of(model, renderer), batch, max_new_tokens=4, choices=lambda row: allowed[row.category]
    )
    assert mixed[1].text == free[1].text
    assert mixed[1].choice_logprobs == {}
    for index in (0, 2):
        decoded = mixed[index]
        assert tuple(decoded.choice_logprobs) == allowed[f"kind{index}"]
        assert decoded.text == max(decoded.choice_logprobs, key=lambda choice: decoded.choice_logprobs[choice])
        assert decoded.logprobs == (decoded.choice_logprobs[decoded.text],)
    assert all(len(decoded.token_ids) == len(decoded.logprobs) for decoded in free)


def test_the_first_of_equal_choices(model: "UniRSModel", renderer: PromptEncoder, inputs: list[Media]) -> None:
    # All tokens are equally likely, so that texts of equal length are.
    model.llm.get_output_embeddings().weight.data.zero_()
    (decoded,) = complete(
        model,
        processor_of(model, renderer),
        batch_of(model, renderer, inputs[:1]),
        max_new_tokens=1,
        choices=lambda _: ("no", "do", "go"),
    )
    assert decoded.text == "no"
    assert len(set(decoded.choice_logprobs.values())) == 1


def test_flash_attention_takes_no_branches(model: "UniRSModel", renderer: PromptEncoder, inputs: list[Media]) -> None:
    model.llm.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ModelError, match=r"tree attention.*'sdpa'"):
        decode(model, batch_of(model, renderer, inputs[:1]), [[[5, 6]]], end=128, max_new_tokens=1)


def test_flat_sequences_have_the_same_loss(
    make_model: Callable[..., "UniRSModel"], renderer: PromptEncoder, inputs: list[Media]
) -> None:
    model: Any = make_model().eval()
    turns = tuple(Turn(str(n), ("yes", "no way"), {"question": text}) for n, text in enumerate(QUESTIONS))
    question_sample = Sample("s", inputs[0], turns)
    tokens = model.projector.num_tokens
    tree = collate([frames(inputs[0], 0)], ["image"], [renderer.encode_train(ASK, question_sample, 1, tokens)], [(0,)])
    plain = renderer.encode_train_flat(ASK, question_sample, 1, tokens)
    assert len(plain) == 6
    rows = collate([frames(inputs[0], 0)], ["image"], plain, [(0,)] * 6)
    expected = model.loss(tree)
    torch.testing.assert_close(model.loss(rows), expected)
    # The mask of flash attention: padding only.
    mask = rows.token_mask().long()
    out = model.llm(
        inputs_embeds=model.get_inputs_embeds(rows),
        attention_mask=mask,
        position_ids=tree_attention_mask(rows.branch_end).sum(2) - 1,
    )
    visible = rows.token_mask()
    torch.testing.assert_close(out.logits[visible], model(rows)[visible], atol=1e-4, rtol=1e-4)
