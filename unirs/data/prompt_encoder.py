"""Encodes turns as token ids and labels, for training and evaluation.

A prompt consists of visual placeholders, task tag, clue and instruction, in the tokenizer's chat template or a plain
one. One token tree contains many turns of a sample and their common prefixes once (see `TokenTree`).
"""

from __future__ import annotations

import re
import sys
from array import array
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import TemplateError

from unirs.data.token_tree import TokenTree, append_branches, partition
from unirs.errors import DataError, ModelError
from unirs.tasks.media import frame_labels
from unirs.tasks.prompt import VISUAL, PromptTemplate, VisualFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from unirs.tasks.sample import Sample, Turn


PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{{ message.content }}{{ '\n' if message.role == 'user' else eos_token }}"
    "{% endfor %}"
)
"""The chat template of a tokenizer without one."""

_PROBE = "<<answer>>"
"""An answer that no template alters, to find where the template writes answers."""

_OPEN_BLOCK = re.compile(r"<think>\s*\Z")


class _Rendered(NamedTuple):
    """A turn as text: before the images, after their visual tokens, and the answer with its end token."""

    prefix: str
    suffix: str
    answer: str


class PromptEncoder:
    """Encodes turns with a tokenizer.

    Args:
        tokenizer: its chat template is used if it has one, else `PLAIN_TEMPLATE`.
        max_length: maximum length of a sequence in tokens, visual ones included.
        context: number of positions of the language model; None if unlimited.
        visual_format: text around the visual tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int = 4096,
        context: int | None = None,
        visual_format: VisualFormat = VisualFormat(),  # noqa: B008 - immutable
    ) -> None:
        self.tokenizer = tokenizer
        self.visual_format = visual_format
        self.max_length, self.context = max_length, context
        self._tokenized = lru_cache(maxsize=100_000)(self._tokenize)
        self._rendered = lru_cache(maxsize=100_000)(self._render)
        self._prompt = lru_cache(maxsize=1_000)(self._render_prompt)

    def __reduce__(self) -> tuple[type[PromptEncoder], tuple[PreTrainedTokenizerBase, int, int | None, VisualFormat]]:
        # The caches do not pickle.
        return PromptEncoder, (self.tokenizer, self.max_length, self.context, self.visual_format)

    def render(
        self, prompt: PromptTemplate, turn: Turn, num_images: int, clue: str = "", labels: Sequence[str] = ()
    ) -> str:
        """The prompt as text, with `num_images` visual placeholders, and a label before each if there are `labels`."""
        prefix, suffix, _ = self._rendered(prompt(turn.prompt_fields, clue), None)
        return VISUAL.join([*self._before_images(prefix, num_images, labels), suffix])

    def encode_train(
        self, prompt: PromptTemplate, sample: Sample, num_images: int, tokens_per_image: int, clue: str = ""
    ) -> TokenTree:
        """Encodes all turns and answers of a sample as one tree, whose media take `num_images` images of visual tokens.

        If the media label their frames, the label precedes the visual tokens.

        Raises:
            DataError: the tree is longer than `max_length` or the model's context, a text contains a marker of the
                prompt, or there is no answer to train on.
            ModelError: the tokenizer's chat template cannot be trained.
        """
        turns = self._turns(prompt, sample, clue)
        start = self._start_tree(turns[0][0].prefix, sample, num_images, tokens_per_image)
        return self._checked(self._tree(start, turns, 1 / sum(map(len, turns))), sample)

    def encode_train_flat(
        self, prompt: PromptTemplate, sample: Sample, num_images: int, tokens_per_image: int, clue: str = ""
    ) -> list[TokenTree]:
        """Encodes each answer as a plain sequence, for models without tree attention; see `encode_train`."""
        answers = [answer for turn in self._turns(prompt, sample, clue) for answer in turn]
        trees = []
        for answer in answers:
            start = self._start_tree(answer.prefix, sample, num_images, tokens_per_image)
            trees.append(self._checked(self._tree(start, [[answer]], 1 / len(answers)), sample))
        return trees

    def _turns(self, prompt: PromptTemplate, sample: Sample, clue: str) -> list[list[_Rendered]]:
        for turn in sample.turns:
            if not turn.targets:
                raise DataError(
                    f"Sample '{sample.id}' ({', '.join(sample.media.sources)}), turn '{turn.id}' has no answer to "
                    "train on. Add one, or remove the row."
                )
        return [
            [self._rendered(prompt(turn.prompt_fields, clue), answer) for answer in turn.targets]
            for turn in sample.turns
        ]

    def _tree(self, tree: TokenTree, turns: list[list[_Rendered]], weight: float) -> TokenTree:
        suffixes = sorted((self._ids_after_image(rendered[0].suffix), turn) for turn, rendered in enumerate(turns))
        for index, _ in append_branches(tree, [suffix[:-1] for suffix, _ in suffixes]):
            suffix, turn = suffixes[index]
            for answer in turns[turn]:
                branch = len(tree.input_ids)
                # Each branch repeats the question's last token, which predicts the first token of the answer.
                tree.add(suffix[-1:])
                tree.add(self._token_ids(answer.answer), learn=True)
                tree.close(branch)
        tree.loss_weights = [weight * one for one in tree.loss_weights]
        return tree

    def encode_prompts(
        self,
        prompt: PromptTemplate,
        sample: Sample,
        num_images: int,
        tokens_per_image: int,
        clue: str = "",
        max_tokens: int | None = None,
    ) -> list[tuple[TokenTree, list[int]]]:
        """Encodes all turns of a sample up to their answers, in one or several trees; see `encode_train`.

        `max_tokens` is the budget of a tree after the visual tokens, which a single turn may exceed; None for one tree.
        Returns each tree, and the indices of its turns in the order of its `prompt_ends`.
        """
        turns = [self._rendered(prompt(turn.prompt_fields, clue), None) for turn in sample.turns]
        suffixes = [self._ids_after_image(turn.suffix) for turn in turns]
        encoded = []
        for chunk in partition(suffixes, sum(map(len, suffixes)) if max_tokens is None else max_tokens):
            tree = self._start_tree(turns[0].prefix, sample, num_images, tokens_per_image)
            tree.prompt_ends = [path[-1] for _, path in append_branches(tree, [suffixes[turn] for turn in chunk])]
            encoded.append((self._checked(tree, sample), chunk))
        return encoded

    def encode_choice(self, text: str) -> list[int]:
        """Token ids of an answer as in training: in the chat template, with the end token."""
        return self._token_ids(self._rendered("", text).answer)

    def _start_tree(self, prefix: str, sample: Sample, num_images: int, tokens_per_image: int) -> TokenTree:
        tree = TokenTree()
        for index, text in enumerate(self._before_images(prefix, num_images, frame_labels(sample.media))):
            tree.add(self._ids_after_image(text) if index else self._token_ids(text))
            tree.add([0] * tokens_per_image, visual=True)
        return tree

    def _before_images(self, prefix: str, num_images: int, labels: Sequence[str]) -> list[str]:
        """The text before the visual tokens of each image."""
        if any(VISUAL in label for label in labels):
            raise DataError(f"A label may not contain the visual placeholder {VISUAL}: {labels!r}. Remove it.")
        starts = [prefix, *[self.visual_format.after] * (num_images - 1)]
        # A fused pair is one image with two labels.
        own = labels if len(labels) == num_images else [" ".join(labels)] * num_images
        return [start + label + self.visual_format.before for start, label in zip(starts, own, strict=True)]

    def _checked(self, tree: TokenTree, sample: Sample) -> TokenTree:
        if len(tree.input_ids) > self.max_length:
            raise DataError(
                f"Sample '{sample.id}' ({', '.join(sample.media.sources)}) has {len(tree.input_ids)} tokens, "
                f"{sum(tree.visual_mask)} of them visual; max_length is {self.max_length}. Raise it, or lower "
                "max_turns or the number of frames."
            )
        if self.context is not None and len(tree.input_ids) > self.context and tree.depth() > self.context:
            raise DataError(
                f"Sample '{sample.id}' ({', '.join(sample.media.sources)}) takes {tree.depth()} positions, "
                f"{sum(tree.visual_mask)} of them visual; the language model has {self.context}. Lower the number of "
                "frames, shorten its texts, or choose another language model. A lower max_length finds more such "
                "samples."
            )
        return tree

    def _token_ids(self, text: str) -> list[int]:
        return self._tokenized(text).tolist()

    def _tokenize(self, text: str) -> array[int]:
        # Cached as an array, which takes a quarter of a list's memory.
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"A prompt or an answer is not Unicode text: {text!a}. Correct it.") from error
        return array("i", self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else [])

    def _ids_after_image(self, text: str) -> list[int]:
        # A special token stands for the image.
        special = str(self.tokenizer.eos_token) if self.visual_format.continued else ""
        return self._token_ids(special + text)[bool(special) :]

    def _render(self, content: str, answer: str | None) -> _Rendered:
        if VISUAL in content:
            raise DataError(f"A question may not contain the visual placeholder {VISUAL}: {content!r}. Remove it.")
        prompt = self._prompt(content)
        prefix, placeholder, suffix = prompt.partition(VISUAL)
        if not placeholder:
            raise ModelError("The tokenizer's chat template dropped the visual placeholder.")
        # Equal in all cached prompts.
        prefix = sys.intern(prefix)
        suffix = self.visual_format.after + suffix
        if answer is None:
            return _Rendered(prefix, suffix, "")
        end = str(self.tokenizer.eos_token)
        if end in answer:
            raise DataError(f"An answer may not contain the end-of-sequence token {end}: {answer!r}. Remove it.")
        conversation = self._chat(content, answer)
        if not conversation.startswith(prompt):
            raise ModelError(
                "The tokenizer's chat template renders the prompt differently with an answer: it cannot be trained."
            )
        rendered = conversation[len(prompt) :].split(end)[0]
        if answer.strip() and not rendered.strip():
            raise ModelError(f"The tokenizer's chat template drops the answer {answer!r}: it cannot be trained.")
        return _Rendered(prefix, suffix, rendered + end)

    def _render_prompt(self, content: str) -> str:
        """The conversation up to the answer.

        What the template writes before an answer, such as an empty block of reasoning, belongs to the prompt.
        """
        prompt = self._chat(content)
        before_answer, found, _ = self._chat(content, _PROBE).rpartition(_PROBE)
        # Some templates open a block of reasoning in the generation prompt, and close it, or have none, in answers.
        if not found or not before_answer.startswith(_OPEN_BLOCK.sub("", prompt)):
            return prompt
        # Space alone is part of the answer: it may be one token with the first word.
        return (
            prompt if before_answer.rstrip() == prompt.rstrip() and before_answer.startswith(prompt) else before_answer
        )

    def _chat(self, content: str, answer: str | None = None) -> str:
        messages = [{"role": "user", "content": f"{VISUAL}{self.visual_format.end}{content}"}]
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    chat_template=None if self.tokenizer.chat_template else PLAIN_TEMPLATE,
                    add_generation_prompt=answer is None,
                    tokenize=False,
                    # Names that templates have for this option; others ignore it.
                    enable_thinking=False,
                    thinking=False,
                )
            )
        except TemplateError as error:
            raise ModelError(f"The tokenizer's chat template does not render ({error}). Correct it.") from error
