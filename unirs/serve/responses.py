"""Responses of chat completions, as JSON values."""

from __future__ import annotations

import time
import uuid
from typing import Any

import msgspec
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.inference.completion import Completion


class ResponseWriter:
    """Writes the response to one request.

    Args:
        model: Name of the model.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: str, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._shared = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def completion(self, answer: Completion, *, logprobs: bool) -> dict[str, Any]:
        """The whole response; with the logprobs of choices if there are some, else of tokens if `logprobs` is set."""
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(answer)}
        if logprobs and not answer.choice_logprobs:
            choice["logprobs"] = {"content": self._logprobs(answer), "refusal": None}
        if answer.choice_logprobs:
            choice["choice_logprobs"] = dict(answer.choice_logprobs)
        return {**self._shared, "object": "chat.completion", "choices": [choice], "usage": self._usage(answer)}

    def start(self) -> bytes:
        """The first event of a stream."""
        return self._chunk([_delta({"role": "assistant", "content": ""})])

    def piece(self, text: str) -> bytes:
        """The event of a piece of text."""
        return self._chunk([_delta({"content": text})])

    def end(self, answer: Completion, *, include_usage: bool) -> bytes:
        """The last events of a stream."""
        events = self._chunk([_delta({}, _reason(answer))])
        if include_usage:
            events += self._chunk([], usage=self._usage(answer))
        return events + b"data: [DONE]\n\n"

    def _chunk(self, choices: list[dict[str, Any]], **more: object) -> bytes:
        return event({**self._shared, "object": "chat.completion.chunk", "choices": choices, **more})

    def _usage(self, answer: Completion) -> dict[str, int]:
        prompt, answered = answer.num_prompt_tokens, num_answer_tokens(answer, self._tokenizer)
        return {"prompt_tokens": prompt, "completion_tokens": answered, "total_tokens": prompt + answered}

    def _logprobs(self, answer: Completion) -> list[dict[str, Any]]:
        ids = answer.token_ids[: num_answer_tokens(answer, self._tokenizer)]
        return [
            {"token": str(self._tokenizer.decode([one])), "bytes": None, "logprob": logprob, "top_logprobs": []}
            for one, logprob in zip(ids, answer.logprobs, strict=False)
        ]


def num_answer_tokens(answer: Completion, tokenizer: PreTrainedTokenizerBase) -> int:
    """Number of tokens of an answer, without the end token."""
    return len(answer.token_ids) - (answer.token_ids[-1:] == (tokenizer.eos_token_id,))


def event(content: object) -> bytes:
    """A server-sent event."""
    return b"data: " + msgspec.json.encode(content) + b"\n\n"


def _delta(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _reason(answer: Completion) -> str:
    return "length" if answer.is_cut else "stop"
