"""Answers as text while they are generated."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import partial

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.errors import ModelError
from unirs.metrics.base import Prediction

OnText = Callable[[int, str], None]
"""Called with the index of a question, and the next piece of its answer."""

# A token of one byte in vocabularies with byte fallback: a run of them is decoded as a whole.
_BYTE = re.compile("<0x[0-9A-F]{2}>")


def decode_answer(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """The text of an answer, without special tokens and surrounding whitespace."""
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=True)).strip()


class TextStream:
    """Converts the token ids of one answer to pieces of its text, which are not empty.

    Whitespace at the end is held back, and so are the bytes of an incomplete character.

    Args:
        tokenizer: The language model's.
        emit: Called with each piece.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, emit: Callable[[str], None]) -> None:
        self._tokenizer, self._emit = tokenizer, emit
        self._token_ids: list[int] = []
        self._emitted = ""

    def add(self, token_id: int) -> None:
        """Adds a token, and emits the text that it completes."""
        self._token_ids.append(token_id)
        if not _BYTE.fullmatch(str(self._tokenizer.convert_ids_to_tokens(token_id))):
            text = decode_answer(self._tokenizer, self._token_ids)
            self._extend(text.rstrip("\N{REPLACEMENT CHARACTER}").rstrip())

    def finish(self, text: str) -> None:
        """Emits the rest of `text`, the whole answer.

        Raises:
            ModelError: The pieces are not its beginning.
        """
        self._extend(text)
        if self._emitted != text:
            raise ModelError(
                f"An answer began with {self._emitted!r}, and its tokens together decode to {text!r}. The tokenizer "
                "changes earlier text: do not stream the answers of this model."
            )

    def _extend(self, text: str) -> None:
        if len(text) > len(self._emitted) and text.startswith(self._emitted):
            piece, self._emitted = text[len(self._emitted) :], text
            self._emit(piece)


class TextStreams:
    """Text streams of the questions of a batch. An answer whose boxes are converted is one piece.

    Args:
        tokenizer: The language model's.
        queries: The questions.
        on_text: Called with the index of a question and a piece of text.
        first: Index of the first question.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, queries: Collection[Prediction], on_text: OnText, first: int
    ) -> None:
        self._streams = [TextStream(tokenizer, partial(on_text, first + index)) for index in range(len(queries))]
        self._is_converted = [query.box_frame is not None for query in queries]

    def add(self, question: int, token_id: int) -> None:
        """Adds a token to the answer to a question of the batch."""
        if not self._is_converted[question]:
            self._streams[question].add(token_id)

    def finish(self, question: int, text: str) -> None:
        """Emits the rest of `text`, the whole answer to a question of the batch."""
        self._streams[question].finish(text)
