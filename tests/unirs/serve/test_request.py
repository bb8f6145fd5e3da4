import json
from typing import Any

import pytest

from tests.unirs.serve.conftest import data_url, png
from unirs.errors import UniRSError
from unirs.serve.request import RequestLimits, parse_request
from unirs.tasks.media import Image, Media, Pair, Video
from unirs.tasks.series import Series

RED, BLUE, LIMITS = png("red", 8), png("blue", 8), RequestLimits(max_images=4, max_new_tokens=32)


def parse(*parts: bytes | str, **fields: Any) -> Any:  # noqa: ANN401
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_url(part)}}
        for part in parts
    ]
    body = {"messages": [{"role": "user", "content": content}], **fields}
    return parse_request(json.dumps(body).encode(), "run", LIMITS)


@pytest.mark.parametrize(
    ("images", "fields", "expected"),
    [
        ([RED], {}, Image(RED)),
        ([RED, BLUE], {}, Pair(RED, BLUE)),
        ([RED, BLUE], {"modality": "series"}, Series([RED, BLUE])),
        ([RED, BLUE], {"dates": ["2016", "2017"]}, Series([RED, BLUE], ["2016", "2017"])),
        ([RED, BLUE, RED], {}, Series([RED, BLUE, RED])),
        ([RED, BLUE, RED], {"modality": "video"}, Video([RED, BLUE, RED])),
    ],
)
def test_modality(images: list[bytes], fields: dict[str, Any], expected: Media) -> None:
    assert parse("Is there a road?", *images, **fields).media == expected
    assert parse(*images, **fields).question is None


def test_a_video_file() -> None:
    part = {"type": "video_url", "video_url": {"url": data_url(b"content", "video/mp4")}}
    body = {"messages": [{"role": "user", "content": [part]}], "num_frames": 4}
    assert parse_request(json.dumps(body).encode(), "run", LIMITS).media == Video(b"content", 4)


def test_samples_without_a_seed_differ() -> None:
    seeds = {parse("q?", RED, temperature=1.0).options.generation.seed for _ in range(4)}
    assert len(seeds) > 1
    # Greedy answers are answered in one batch.
    assert parse("a?", RED).options == parse("b?", BLUE, temperature=0, n=1, frequency_penalty=0).options


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"max_token": 3}, r"'max_token' is not supported. Did you mean 'max_tokens'"),
    "type": ({"max_tokens": "3"}, r"Expected `int \| null`, got `str`"),
    "limit": ({"max_tokens": 33}, r"one number in 1\.\.32"),
    "two limits": ({"max_tokens": 3, "max_completion_tokens": 4}, r"one number in 1\.\.32, not \[3, 4\]"),
    "temperature": ({"temperature": -1}, "temperature"),
    "huge": ({"temperature": 1e308}, "temperature"),
    "huge seed": ({"temperature": 1, "seed": 2**70}, r"generation\.seed"),
    "seed": ({"temperature": 1.0, "seed": -1}, "seed"),
    "penalty": ({"presence_penalty": 0.5}, "'presence_penalty' can only be 0"),
    "streamed logprobs": ({"stream": True, "logprobs": True}, "'logprobs' are not sent with a stream"),
    "choices": ({"choices": []}, "choices"),
    "long choice": ({"choices": ["a" * 20_000]}, "more than 16,384"),
    "clue": ({"clue": "a\0b"}, "NUL"),
    "frames": ({"num_frames": 3}, "a video file"),
    "one date": ({"dates": ["2016"]}, "no series"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_fields(case: str) -> None:
    fields, match = WRONG[case]
    with pytest.raises(UniRSError, match=match):
        parse("Is there a road?", RED, **fields)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([], "no image"),
        ("", "no image"),
        ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,a#b"}}], "not base64"),
        ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,\ud800"}}], "surrogate"),
        ([{"type": "image_url", "image_url": {"url": data_url(RED), "detail": "high"}}], "'detail'"),
        ([{"type": "input_audio"}], "input_audio"),
        ([{"type": "image_url", "image_url": {"url": data_url(RED)}}] * 5, "at most 4 images"),
        ([{"type": "image_url", "image_url": {"url": data_url(RED)}}, *[{"type": "text", "text": "a"}] * 2], "several"),
        ([{"type": "video_url", "video_url": {"url": data_url(RED)}}], "data:video/TYPE"),
    ],
)
def test_wrong_content(content: object, match: str) -> None:
    with pytest.raises(UniRSError, match=match):
        parse_request(json.dumps({"messages": [{"role": "user", "content": content}]}).encode(), "run", LIMITS)


def test_a_history_is_refused() -> None:
    one = {"role": "user", "content": "q?"}
    body = {"messages": [one, {"role": "assistant", "content": "yes"}, one]}
    with pytest.raises(UniRSError, match=r"user, assistant, user.*without a history"):
        parse_request(json.dumps(body).encode(), "run", LIMITS)
