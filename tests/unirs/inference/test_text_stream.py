"""Answers while they are generated."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from tests.unirs.inference.questions import LENGTH, Asked
from unirs import GenerationOptions, Image, UniRS
from unirs.errors import ModelError
from unirs.inference.generation import decode
from unirs.inference.text_stream import TextStream, decode_answer
from unirs.models.unirs_model import UniRSModel


class StopError(Exception):
    pass


def stop(*_: object) -> None:
    raise StopError


@pytest.fixture(scope="module")
def model(joint_run: Path) -> UniRS:
    return UniRS.from_pretrained(joint_run, device="cpu", trust_remote_code=True)


def stream(asked: Asked, options: GenerationOptions, end: int, **more: Any) -> tuple[list[list[int]], list[list[int]]]:  # noqa: ANN401
    """The tokens of all answers, and those that the callback was called with."""
    streamed: list[list[int]] = [[] for _ in range(asked.count)]
    batch = asked.batch(0 if more.pop("flat", False) else None, left=more.pop("left", False))
    decoded = decode(
        asked.model,
        batch,
        [()] * asked.count,
        end=end,
        max_new_tokens=LENGTH,
        options=options,
        seeds=[options.question_seed(index) for index in range(asked.count)],
        on_token=lambda question, token_id: streamed[question].append(token_id),
    )
    return [token_ids for token_ids, _ in decoded], streamed


SAMPLING = GenerationOptions(temperature=1.5, top_p=0.9)


@pytest.mark.parametrize("branches", [True, False])
@pytest.mark.parametrize("options", [GenerationOptions(), SAMPLING], ids=["greedy", "sampling"])
def test_tokens_are_those_of_the_answers(asked: Asked, branches: bool, options: GenerationOptions) -> None:
    flat = {} if branches else {"flat": True, "left": True}
    with patch.object(UniRSModel, "supports_tree_attention", branches):
        free, _ = stream(asked, options, 129, **flat)
        # An end token that some of the answers reach, so that they end at different lengths.
        answers, streamed = stream(asked, options, free[0][LENGTH // 2], **flat)
    assert streamed == answers
    assert len({len(answer) for answer in answers}) > 1


def test_beams_call_nothing(asked: Asked) -> None:
    _, streamed = stream(asked, GenerationOptions(num_beams=2), 129)
    assert not any(streamed)


@pytest.mark.parametrize("branches", [True, False])
def test_an_exception_ends_the_generation(asked: Asked, branches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []

    def stop_later(question: int, token_id: int) -> None:
        steps.append((question, token_id))
        if len(steps) == asked.count + 1:
            raise StopError

    monkeypatch.setattr(UniRSModel, "supports_tree_attention", branches)
    batch = asked.batch(None if branches else 0, left=not branches)
    with pytest.raises(StopError):
        decode(asked.model, batch, [()] * asked.count, end=129, max_new_tokens=LENGTH, on_token=stop_later)
    assert len(steps) == asked.count + 1


@pytest.mark.parametrize("batch_size", [1, 16])
def test_pieces_are_the_answers(model: UniRS, batch_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (Image(torch.rand(3, 64, 64, generator=generator)) for _ in range(2))
    media = [first, second, first, second, first]
    questions = ["Is there a road?", "Is there a road?", "How many roads?", "é?", "Is there water?"]
    expected = model.predict(media, questions, batch_size=batch_size)
    pieces: list[list[str]] = [[] for _ in media]
    answers = model.predict(
        media, questions, batch_size=batch_size, on_text=lambda index, piece: pieces[index].append(piece)
    )
    assert [answer.text for answer in answers] == ["".join(one) for one in pieces]
    assert [(one.text, one.token_ids, one.prompt) for one in answers] == [
        (one.text, one.token_ids, one.prompt) for one in expected
    ]
    assert [one.logprobs for one in answers] == [one.logprobs for one in expected]
    assert all(all(one) for one in pieces)


@pytest.mark.parametrize("options", [{"choices": ["yes", "no"]}, {"generation": GenerationOptions(num_beams=2)}])
def test_choices_and_beams_are_one_piece(model: UniRS, options: dict[str, Any]) -> None:
    pieces: list[tuple[int, str]] = []
    image = Image(torch.zeros(3, 64, 64))
    answers = model.predict([image] * 2, ["Road?", "Water?"], on_text=lambda *piece: pieces.append(piece), **options)
    assert pieces == [(index, answer.text) for index, answer in enumerate(answers)]


def test_a_stopped_model_answers_again(model: UniRS) -> None:
    image = Image(torch.zeros(3, 64, 64))
    expected = model.answer(image, "Is there a road?")
    model.model.train()
    with pytest.raises(StopError):
        model.predict([image], "Is there a road?", on_text=stop)
    assert model.model.training
    assert model.answer(image, "Is there a road?") == expected


def check_pieces(tokenizer: PreTrainedTokenizerFast, token_ids: list[int]) -> list[str]:
    pieces: list[str] = []
    one = TextStream(tokenizer, pieces.append)
    for token_id in token_ids:
        one.add(token_id)
    one.finish(decode_answer(tokenizer, token_ids))
    assert "".join(pieces) == decode_answer(tokenizer, token_ids)
    return pieces


@pytest.mark.parametrize("text", ["  une forêt, 森林 🛰️  end \n ", "<think>\na road\n</think>\n\n yes ", "   ", ""])
def test_bytes_of_a_character_are_held_back(model: UniRS, text: str) -> None:
    pieces = check_pieces(model.tokenizer, model.tokenizer.encode(text, add_special_tokens=False))  # type: ignore[arg-type]
    assert "".join(pieces) == text.strip()
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


def test_bytes_that_are_no_text(model: UniRS) -> None:
    # A generated text need not be valid UTF-8: every order of the bytes of some characters.
    token_ids = model.tokenizer.encode("森é🛰 a", add_special_tokens=False)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        order = torch.randint(len(token_ids), (12,), generator=generator)
        check_pieces(model.tokenizer, [token_ids[index] for index in order.tolist()])  # type: ignore[arg-type]


def test_byte_fallback() -> None:
    """Of a run of bytes that is no text, each byte is a replacement character, also those of complete characters."""
    vocab = {"<unk>": 0, "▁a": 1, "b": 2} | {f"<0x{byte:02X}>": byte + 3 for byte in range(256)}
    llama = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))  # noqa: S106 - a token of text
    llama.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=llama)
    valid = [byte + 3 for byte in "é".encode()]
    assert check_pieces(tokenizer, [1, *valid, 2, 1]) == ["a", "éb", " a"]
    assert check_pieces(tokenizer, [1, *valid, 0xFF + 3, 2]) == ["a", "\N{REPLACEMENT CHARACTER}" * 3 + "b"]


def test_a_tokenizer_that_changes_earlier_text() -> None:
    words = Tokenizer(models.WordLevel({"do": 0, "go": 1}))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    assert check_pieces(tokenizer, [0, 1]) == ["do", " go"]
    one = TextStream(tokenizer, print)
    one.add(0)
    with pytest.raises(ModelError, match=r"began with 'do'.*decode to 'go do'"):
        one.finish("go do")
