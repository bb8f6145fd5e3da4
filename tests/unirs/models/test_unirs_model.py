from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.data.batch import PASS_TOKENS, Batch, group_by_length, num_image_slots
from unirs.data.collator import collate, pack_rows
from unirs.data.prompt_encoder import PromptEncoder
from unirs.data.token_tree import IGNORE, TokenTree
from unirs.errors import ModelError
from unirs.interfaces import as_module
from unirs.models.unirs_model import LossReduction, UniRSModel
from unirs.tasks.media import Media, Pair
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, Turn
from unirs.tasks.series import Series

MakeModel = Callable[..., UniRSModel]
ASK = PromptTemplate("vqa", "{question}")
TURNS = tuple(
    Turn(question, answers, {"question": question})
    for question, answers in [("a?", ("yes",)), ("how many are there?", ("no way", "n")), ("x", ("y",))]
)


def frames(media: Media, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (media.num_frames, 3, 64, 64), dtype=torch.uint8, generator=generator)


def encode(
    model: UniRSModel, tokenizer: PreTrainedTokenizerBase, media: Sequence[Media], turns: Sequence[Sequence[Turn]]
) -> list[TokenTree]:
    """The token tree of each of the media."""
    encoder, fused, tokens = PromptEncoder(tokenizer), model.change is not None, model.projector.num_tokens
    return [
        encoder.encode_train(ASK, Sample("s", one, tuple(own)), num_image_slots(one, fused=fused), tokens)
        for one, own in zip(media, turns, strict=True)
    ]


def training(
    model: UniRSModel, tokenizer: PreTrainedTokenizerBase, media: Sequence[Media], turns: Sequence[Turn] = TURNS
) -> Batch:
    trees = encode(model, tokenizer, media, [turns] * len(media))
    images = [frames(one, seed) for seed, one in enumerate(media)]
    return collate(images, [one.modality for one in media], trees, [(index,) for index in range(len(media))])


@pytest.fixture(params=[True, False], ids=["fused", "both"])
def model(request: pytest.FixtureRequest, make_model: MakeModel) -> UniRSModel:
    return make_model(change=request.param).eval()


@torch.no_grad()
def test_packed_turns_equal_single_ones(
    model: UniRSModel, tokenizer: PreTrainedTokenizerBase, media: dict[str, Media]
) -> None:
    packed = training(model, tokenizer, list(media.values()))
    together = model(packed)
    assert together.shape == (4, packed.input_ids.shape[1], 130)
    single = [replace(turn, train_answers=(answer,)) for turn in TURNS for answer in turn.targets]
    alone = [training(model, tokenizer, list(media.values()), [turn]) for turn in single]
    logits = [model(batch) for batch in alone]
    for row in range(len(media)):
        # The logits of the answers' tokens, answer by answer.
        one_by_one = torch.cat(
            [one[row, :-1][batch.labels[row, 1:] != IGNORE] for one, batch in zip(logits, alone, strict=True)]
        )
        logits_of_labels = together[row, :-1][packed.labels[row, 1:] != IGNORE]
        torch.testing.assert_close(logits_of_labels, one_by_one, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("short", [8, 512])
@pytest.mark.parametrize("reduction", ["sample_mean", "token_mean"])
def test_loss_of_packed_and_single_rows_is_equal(
    model: UniRSModel,
    tokenizer: PreTrainedTokenizerBase,
    media: dict[str, Media],
    monkeypatch: pytest.MonkeyPatch,
    short: int,
    reduction: LossReduction,
) -> None:
    monkeypatch.setitem(PASS_TOKENS, "cpu", 0 if short == 8 else 10_000)
    monkeypatch.setattr("unirs.data.collator.SHORT_ROW", short)
    shown = [media["image"], media["pair"], media["video"], media["image"]]
    turns = [TURNS[:1], TURNS[1:], TURNS, TURNS[:1]]
    trees = encode(model, tokenizer, shown, turns)
    images, modalities = [frames(one, seed) for seed, one in enumerate(shown)], [one.modality for one in shown]
    rows, row_media = pack_rows(trees)
    assert (len(rows) < len(trees)) == (short == 512)
    packed = collate(images, modalities, rows, row_media)
    assert (len(group_by_length(packed.branch_end)) > 1) == (short == 8)
    alone = collate(images, modalities, trees, [(index,) for index in range(len(shown))])
    # The logits of all rows at once.
    logits_of_labels = model.logits(alone, F.pad(alone.labels[:, 1:], (0, 1), value=IGNORE) != IGNORE)
    labels, weights = (values[:, 1:][alone.labels[:, 1:] != IGNORE] for values in (alone.labels, alone.loss_weights))
    losses = F.cross_entropy(logits_of_labels, labels, reduction="none")
    expected = losses.mean() if reduction == "token_mean" else (losses * weights).sum() / len(shown)
    for batch in (packed, alone):
        torch.testing.assert_close(model.loss(batch, reduction), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_logits_do_not_depend_on_the_rest_of_the_batch(
    model: UniRSModel, tokenizer: PreTrainedTokenizerBase, media: dict[str, Media]
) -> None:
    mixed = [media["video"], media["pair"], media["image"], media["series"], media["pair"], media["image"]]
    together = training(model, tokenizer, mixed)
    logits = model(together)
    for row, one in enumerate(mixed):
        alone = training(model, tokenizer, [one])
        alone.frames = frames(one, row)
        mask = together.token_mask()[row]
        torch.testing.assert_close(logits[row, mask], model(alone)[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_number_of_visual_tokens(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, media: dict[str, Media]
) -> None:
    for change, expected in ((True, [1, 1, 3, 3]), (False, [1, 2, 3, 3])):
        model = make_model(change=change).eval()
        assert [num_image_slots(one, fused=change) for one in media.values()] == expected
        embeds = model.get_visual_embeds(training(model, tokenizer, list(media.values())))
        assert [tuple(tokens.shape) for tokens in embeds] == [(grids, 4, 32) for grids in expected]


@torch.no_grad()
def test_visual_tokens_are_those_of_the_components(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, media: dict[str, Media]
) -> None:
    model = make_model().eval()
    batch = training(model, tokenizer, [media["pair"], media["video"], media["pair"], media["image"]])
    assert model.change is not None
    features = model.encoder(batch.frames)
    fused = model.change(features[[0, 5]], features[[1, 6]])
    expected = model.projector(torch.cat([fused[:1], features[2:5], fused[1:], features[7:]]))
    torch.testing.assert_close(torch.cat(model.get_visual_embeds(batch)), expected)
    embeddings = model.get_inputs_embeds(batch)
    torch.testing.assert_close(embeddings[batch.visual_mask], expected.flatten(0, 1))
    text = model.llm.get_input_embeddings()(batch.input_ids)
    assert torch.equal(embeddings[~batch.visual_mask], text[~batch.visual_mask])


@torch.no_grad()
def test_order_of_a_pair_matters(
    model: UniRSModel, tokenizer: PreTrainedTokenizerBase, media: dict[str, Media]
) -> None:
    batch = training(model, tokenizer, [media["pair"]])
    swapped = replace(batch, frames=batch.frames.flip(0))
    assert (model(batch) - model(swapped)).abs().max() > 1e-3


@torch.no_grad()
def test_an_unfused_pair_is_a_series_of_two_without_labels(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    model, media = make_model(change=False).eval(), (Pair("a.png", "b.png"), Series(["a.png", "b.png"]))
    pair, series = (training(model, tokenizer, [one]) for one in media)
    assert torch.equal(model.get_visual_embeds(pair)[0], model.get_visual_embeds(series)[0])
    labels = len("Image 1:Image 2:")
    assert series.input_ids.shape[1] == pair.input_ids.shape[1] + labels
    assert series.visual_mask.sum() == pair.visual_mask.sum() == 2 * model.projector.num_tokens
    fused = make_model().eval()
    assert len(fused.get_visual_embeds(training(fused, tokenizer, media[1:]))[0]) == 2


@torch.no_grad()
def test_several_rows_share_an_image(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, media: dict[str, Media]
) -> None:
    model = make_model().eval()
    batch = training(model, tokenizer, [media["image"], media["image"]])
    first = batch.frames[:1]
    shared = replace(
        batch, frames=first, vision_features=(None,), modalities=("image",), num_frames=(1,), row_media=((0,), (0,))
    )
    twice = replace(batch, frames=first.repeat(2, 1, 1, 1))
    torch.testing.assert_close(model(shared), model(twice))


def test_placeholders_are_counted(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, media: dict[str, Media]
) -> None:
    model = make_model().eval()
    batch = training(model, tokenizer, [media["image"], media["video"]])
    batch.row_media = ((1,), (0,))
    with pytest.raises(ModelError, match="Row 0 has 4 visual placeholders for 12 visual tokens"):
        model(batch)


@torch.no_grad()
def test_loss_averages_negative_log_likelihoods_over_answers_then_samples(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, media: dict[str, Media]
) -> None:
    model = make_model().eval()
    shown, turns = [media["image"], media["video"]], [TURNS[:1], TURNS]
    trees = encode(model, tokenizer, shown, turns)
    batch = collate([frames(one) for one in shown], [one.modality for one in shown], trees, [(0,), (1,)])
    log_probabilities = model(batch).log_softmax(-1)
    means = []
    for row, labels in enumerate(batch.labels):
        label_positions = (labels != IGNORE).nonzero().flatten().tolist()
        # The letters and the end token of each answer.
        assert len(label_positions) == sum(len(answer) + 1 for turn in turns[row] for answer in turn.targets)
        total = torch.stack(
            [-log_probabilities[row, position - 1, labels[position]] for position in label_positions]
        ).sum()
        means.append(total / sum(len(turn.targets) for turn in turns[row]))
    torch.testing.assert_close(model.loss(batch), torch.stack(means).mean())
    assert model(batch).shape[1] == batch.input_ids.shape[1], "the hook of the loss is still registered"


@pytest.mark.parametrize("modalities", [["image", "pair", "video"], ["pair", "pair"], ["image", "image"]])
def test_every_component_gets_gradients(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, media: dict[str, Media], modalities: list[str]
) -> None:
    model = make_model().train()
    model.loss(training(model, tokenizer, [media[modality] for modality in modalities])).backward()
    # Also the parameters that this batch does not use, as data parallel training needs it.
    assert all(parameter.grad is not None for parameter in model.parameters())
    components = [model.encoder, model.projector, model.llm, *([model.change] if "pair" in modalities else [])]
    for component in components:
        assert component is not None
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in component.parameters())


def test_component_that_is_no_module(make_model: MakeModel) -> None:
    model = make_model()
    with pytest.raises(TypeError, match=r"object must be a torch\.nn\.Module"):
        as_module(object())
    with pytest.raises(TypeError, match=r"function must be a torch\.nn\.Module"):
        UniRSModel(model.encoder, lambda before, after: after - before, model.llm)  # type: ignore[arg-type]


@pytest.mark.parametrize("trained", [False, True])
def test_frames_are_encoded_in_small_passes_unless_the_encoder_is_trained(
    trained: bool, make_model: MakeModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = make_model(change=False).eval()
    encoder = as_module(model.encoder).train(trained)
    passes: list[int] = []
    encoder.register_forward_pre_hook(lambda _, arguments: passes.append(len(arguments[0])))
    batch = training(model, tokenizer, [Pair("a", "b")] * 20)
    features = model.encode_frames(batch)
    assert passes == ([40] if trained else [16, 16, 8])
    with torch.no_grad():
        assert torch.allclose(torch.cat(features), encoder(batch.frames), atol=1e-5)


def test_equal_frames_are_encoded_once(make_model: MakeModel, tokenizer: PreTrainedTokenizerBase) -> None:
    model = make_model(change=False).eval()
    batch = training(model, tokenizer, [Pair("a", "b")] * 3)
    repeated = replace(batch, frames=batch.frames[[0, 1, 0, 4, 4, 1]])
    passes: list[int] = []
    handle = as_module(model.encoder).register_forward_pre_hook(lambda _, arguments: passes.append(len(arguments[0])))
    features = model.encode_frames(repeated)
    handle.remove()
    assert passes == [3]
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(features), as_module(model.encoder)(repeated.frames), atol=1e-5, rtol=0)
