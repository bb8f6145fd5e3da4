"""Requests: JSON to what `UniRS.predict` takes. A field that the model cannot honour is an error, never ignored."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from unirs.errors import UniRSError, nearest
from unirs.inference.generation_options import GenerationOptions
from unirs.inference.options import check_choices
from unirs.serve.errors import RequestError
from unirs.serve.media import make_media, read_data_url
from unirs.tasks.media import Media, Modality

MAX_TEXT = 16_384
"""Maximum length of a question, a clue or a choice in characters."""

_MAX_CHOICES = 1_000
_UNKNOWN = re.compile(r"unknown field `(.{1,64})`", re.DOTALL)
_PATH = re.compile(r"`\$\.?([^`]{1,64})`")


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    """An object without other fields."""


class _ImageURL(_Strict):
    url: str
    detail: str = "auto"


class _VideoURL(_Strict):
    url: str


class _Text(_Strict, tag_field="type", tag="text"):
    text: str


class _Image(_Strict, tag_field="type", tag="image_url"):
    image_url: _ImageURL


class _Video(_Strict, tag_field="type", tag="video_url"):
    video_url: _VideoURL


class _Message(_Strict):
    role: str
    content: str | list[_Text | _Image | _Video]


class _StreamOptions(_Strict):
    include_usage: bool = False


class _Body(_Strict):
    messages: list[_Message]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    logprobs: bool | None = None
    # With the only value that has no effect, since clients send it.
    n: int | None = None
    top_logprobs: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    user: str | None = None
    # Not OpenAI's.
    modality: Modality | None = None
    task: str | None = None
    choices: list[str] | None = None
    clue: bool | str | None = None
    dates: list[str] | None = None
    num_frames: int | None = None


_NEUTRAL = {"n": 1, "top_logprobs": 0, "presence_penalty": 0, "frequency_penalty": 0}


@dataclass(frozen=True)
class DecodingOptions:
    """What requests share that are answered in one batch: arguments of `UniRS.predict`."""

    task: str | None
    clue: bool | str | None
    choices: tuple[str, ...] | None
    max_new_tokens: int | None
    generation: GenerationOptions
    details: bool


@dataclass(frozen=True)
class ChatRequest:
    """A question about media.

    Attributes:
        media: The input.
        question: None for the task's own instruction.
        options: How it is answered.
        stream: Whether the answer is sent piece by piece.
        include_usage: Whether a stream ends with the number of tokens.
    """

    media: Media
    question: str | None
    options: DecodingOptions
    stream: bool
    include_usage: bool


@dataclass(frozen=True)
class RequestLimits:
    """Limits of one request.

    Attributes:
        max_images: Maximum number of images.
        max_new_tokens: Maximum of `max_tokens`.
    """

    max_images: int = 16
    max_new_tokens: int = 1024


def parse_request(body: bytes, model: str, limits: RequestLimits) -> ChatRequest:
    """Reads the body of a request to `/v1/chat/completions`.

    Args:
        body: JSON.
        model: Name of the served model.
        limits: Limits of the request.

    Raises:
        UniRSError: The body is not JSON, or a field is unknown, wrong or cannot be honoured.
    """
    fields = _decode(body)
    if fields.model not in (None, model):
        raise RequestError(
            f"There is no model {fields.model!r}. The service has '{model}'.",
            404,
            param="model",
            code="model_not_found",
        )
    for name, neutral in _NEUTRAL.items():
        if getattr(fields, name) not in (None, neutral):
            raise RequestError(f"'{name}' can only be {neutral}. Omit it.", param=name)
    if fields.logprobs and fields.stream:
        raise RequestError("'logprobs' are not sent with a stream. Set one of them.", param="logprobs")
    question, images, video = _content(fields.messages, limits.max_images)
    check_choices(fields.choices)
    for text in (question, fields.task, fields.clue, *(fields.choices or ()), *(fields.dates or ())):
        if isinstance(text, str):
            _check_text(text)
    if len(fields.choices or ()) > _MAX_CHOICES:
        raise RequestError(f"There are more than {_MAX_CHOICES} choices.", param="choices")
    options = DecodingOptions(
        task=fields.task,
        clue=fields.clue,
        choices=None if fields.choices is None else tuple(fields.choices),
        max_new_tokens=_max_new_tokens(fields, limits.max_new_tokens),
        generation=_generation(fields),
        details=bool(fields.logprobs),
    )
    return ChatRequest(
        media=make_media(images, video, fields.modality, dates=fields.dates, num_frames=fields.num_frames),
        question=question,
        options=options,
        stream=bool(fields.stream),
        include_usage=fields.stream_options is not None and fields.stream_options.include_usage,
    )


def _decode(body: bytes) -> _Body:
    try:
        return msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        message = str(error)
        unknown, path = _UNKNOWN.search(message), _PATH.search(message)
        if unknown is not None:
            name = unknown[1]
            hint = nearest(name, _Body.__struct_fields__)
            raise RequestError(f"'{name}' is not supported. {hint}Omit it.", param=name, code="unsupported") from error
        param = None if path is None else path[1]
        raise RequestError(f"The body is no request of a chat completion: {message}.", param=param) from error


def _content(messages: Sequence[_Message], max_images: int) -> tuple[str | None, list[bytes], bytes | None]:
    """The question, the images and the video of the one message."""
    if len(messages) != 1 or messages[0].role != "user":
        roles = ", ".join(one.role[:16] for one in messages[:8])
        raise RequestError(
            f"The messages have the roles: {roles or 'none'}. The model answers one question without a history: send "
            "one message of the role 'user'.",
            param="messages",
        )
    content = messages[0].content
    parts = [_Text(content)] if isinstance(content, str) else content
    texts = [part.text for part in parts if isinstance(part, _Text)]
    if len(texts) > 1:
        raise RequestError("The message has several texts. Join them: the images precede the text.", param="messages")
    urls = [part.image_url for part in parts if isinstance(part, _Image)]
    videos = [part.video_url for part in parts if isinstance(part, _Video)]
    if not urls and not videos:
        raise RequestError("The message has no image. Send one as a part 'image_url'.", param="messages")
    if len(urls) > max_images or len(videos) > 1:
        raise RequestError(f"A message has at most {max_images} images, or one video.", param="messages")
    if any(url.detail != "auto" for url in urls):
        raise RequestError("'detail' can only be 'auto'. Omit it.", param="messages")
    images = [read_data_url(url.url, "image", "messages") for url in urls]
    video = read_data_url(videos[0].url, "video", "messages") if videos else None
    return texts[0] if texts else None, images, video


def _check_text(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise RequestError(f"A text has {len(text):,} characters, more than {MAX_TEXT:,}. Shorten it.")
    if "\0" in text:
        raise RequestError("A text contains a NUL character. Remove it.")


def _max_new_tokens(fields: _Body, limit: int) -> int | None:
    given = [one for one in (fields.max_tokens, fields.max_completion_tokens) if one is not None]
    if any(not 1 <= one <= limit for one in given) or len(set(given)) > 1:
        raise RequestError(f"'max_tokens' is one number in 1..{limit}, not {given}.", param="max_tokens")
    return given[0] if given else None


def _generation(fields: _Body) -> GenerationOptions:
    temperature = fields.temperature or 0.0
    given = {"top_p": fields.top_p, "repetition_penalty": fields.repetition_penalty, "seed": fields.seed}
    options = {name: value for name, value in given.items() if value is not None}
    if temperature > 0 and fields.seed is None:
        # OpenAI's meaning: without a seed, samples of equal requests differ.
        options["seed"] = secrets.randbelow(2**31)
    try:
        return GenerationOptions(temperature, **options)  # type: ignore[arg-type]
    except UniRSError as error:
        raise RequestError(str(error)) from error
