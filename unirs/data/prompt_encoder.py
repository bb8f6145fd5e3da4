"""From a turn to token ids and labels: the one place where prompts are made, for training and evaluation.

A rendered prompt reads, in the tokenizer's chat template or a plain one: visual placeholders, task tag, instruction.
One sequence holds many turns of a sample, and what they begin with in common once (see `TokenTree`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from unirs.data.token_tree import TokenTree, _append_branches, _partition
from unirs.errors import DataError, ModelError
from unirs.tasks.prompt import VISUAL, PromptTemplate

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from unirs.tasks.sample import Sample, Turn


PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{{ message.content }}{{ '\n' if message.role == 'user' else eos_token }}"
    "{% endfor %}"
)
"""The chat template of a tokenizer that has none."""


class _Rendered(NamedTuple):
    prefix: str
    suffix: str
    answer: str


class PromptEncoder:
    """Renders turns with a tokenizer.

    Args:
        tokenizer: its chat template is used where it has one, `PLAIN_TEMPLATE` otherwise.
        max_length: the longest sequence in tokens, visual ones included.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int = 4096) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._template = None if tokenizer.chat_template else PLAIN_TEMPLATE
        self._ids = lru_cache(maxsize=100_000)(self._tokenize)
        self._rendered = lru_cache(maxsize=100_000)(self._render)

    def __reduce__(self) -> tuple[type[PromptEncoder], tuple[PreTrainedTokenizerBase, int]]:
        # Caches do not pickle: a spawned worker of a DataLoader fills its own.
        return PromptEncoder, (self.tokenizer, self.max_length)

    def render(self, prompt: PromptTemplate, turn: Turn, num_images: int, clue: str = "") -> str:
        """The prompt as text, with `VISUAL` once for each of its `grids` pictures; for people to read."""
        rendered = self._rendered(prompt(turn.prompt_fields, clue), None)
        return rendered.prefix + VISUAL * num_images + rendered.suffix

    def encode_train(
        self, prompt: PromptTemplate, sample: Sample, num_images: int, tokens_per_image: int, clue: str = ""
    ) -> TokenTree:
        """All turns and answers of a sample in one sequence.

        Args:
            prompt: the task's.
            sample: a turn with several texts to learn asks once and answers several times.
            num_images: pictures the language model sees.
            tokens_per_image: visual tokens a picture.
            clue: what a base VLM says about the media.

        Raises:
            DataError: the sequence is longer than `max_length`, or a text holds what marks a prompt's parts.
            ModelError: the tokenizer's chat template cannot be trained.
        """
        turns = self._turns(prompt, sample, clue)
        return self._checked(self._tree(turns, num_images, tokens_per_image, 1 / sum(map(len, turns))), sample)

    def encode_train_flat(
        self, prompt: PromptTemplate, sample: Sample, num_images: int, tokens_per_image: int, clue: str = ""
    ) -> list[TokenTree]:
        """The same as a plain sequence for each answer, for models that know no branches. `training` tells the rest."""
        turns = self._turns(prompt, sample, clue)
        weight = 1 / sum(map(len, turns))
        answers = [[[answer]] for turn in turns for answer in turn]
        return [self._checked(self._tree(answer, num_images, tokens_per_image, weight), sample) for answer in answers]

    def _turns(self, prompt: PromptTemplate, sample: Sample, clue: str) -> list[list[_Rendered]]:
        return [
            [self._rendered(prompt(turn.prompt_fields, clue), answer) for answer in turn.targets]
            for turn in sample.turns
        ]

    def _tree(self, turns: list[list[_Rendered]], num_images: int, tokens_per_image: int, weight: float) -> TokenTree:
        sequence = self._start_tree(turns[0][0].prefix, num_images, tokens_per_image)
        tails = sorted((self._ids(rendered[0].suffix), turn) for turn, rendered in enumerate(turns))
        for place, _ in _append_branches(sequence, [tail[:-1] for tail, _ in tails]):
            tail, turn = tails[place]
            for answer in turns[turn]:
                branch = len(sequence.input_ids)
                # The question's last token belongs to each branch, since it is what predicts the answer's first.
                sequence.add(tail[-1:])
                sequence.add(self._ids(answer.answer), learn=True)
                sequence.close(branch)
        sequence.loss_weights = [weight * one for one in sequence.loss_weights]
        return sequence

    def encode_prompts(
        self,
        prompt: PromptTemplate,
        sample: Sample,
        num_images: int,
        tokens_per_image: int,
        clue: str = "",
        max_tokens: int | None = None,
    ) -> list[tuple[TokenTree, list[int]]]:
        """All turns of a sample, each up to where its answer begins: see `TokenTree.asks`.

        Args:
            prompt: the task's.
            sample: its answers do not matter.
            num_images: pictures the language model sees.
            tokens_per_image: visual tokens a picture.
            clue: what a base VLM says about the media.
            max_tokens: tokens in a sequence after the visual ones, unless one turn alone takes more; None for all in
                one.

        Returns:
            Sequences, and which turns each asks, in the order of its `asks`; turns that begin alike stand together.

        Raises:
            DataError: a sequence is longer than `max_length`, or a question holds the visual placeholder.
        """
        turns = [self._rendered(prompt(turn.prompt_fields, clue), None) for turn in sample.turns]
        tails = [self._ids(turn.suffix) for turn in turns]
        parts = _partition(tails, sum(map(len, tails)) if max_tokens is None else max_tokens)
        sequences = [self._start_tree(turns[0].prefix, num_images, tokens_per_image) for _ in parts]
        for sequence, part in zip(sequences, parts, strict=True):
            sequence.prompt_ends = [path[-1] for _, path in _append_branches(sequence, [tails[turn] for turn in part])]
        return [(self._checked(sequence, sample), part) for sequence, part in zip(sequences, parts, strict=True)]

    def encode_choice(self, text: str) -> list[int]:
        """Token ids of an answer, as training has them: what the chat template makes of it, and the end token."""
        return self._ids(self._rendered("", text).answer)

    def _start_tree(self, prefix: str, num_images: int, tokens_per_image: int) -> TokenTree:
        sequence = TokenTree()
        sequence.add(self._ids(prefix))
        sequence.add([0] * (num_images * tokens_per_image), visual=True)
        return sequence

    def _checked(self, tree: TokenTree, sample: Sample) -> TokenTree:
        if len(tree.input_ids) > self.max_length:
            raise DataError(
                f"Sample '{sample.id}' ({sample.media.paths[0]}) takes {len(tree.input_ids)} tokens, "
                f"{sum(tree.visual_mask)} of them visual; max_length is {self.max_length}. Raise it, or lower "
                "max_turns or the number of frames."
            )
        return tree

    def _tokenize(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _render(self, content: str, answer: str | None) -> _Rendered:
        if VISUAL in content:
            raise DataError(f"A question may not hold the visual placeholder {VISUAL}: {content!r}. Remove it.")
        user = {"role": "user", "content": f"{VISUAL}\n{content}"}
        asked = self._chat([user], add_generation_prompt=True)
        head, found, tail = asked.partition(VISUAL)
        if not found:
            raise ModelError("The tokenizer's chat template dropped the visual placeholder.")
        if answer is None:
            return _Rendered(head, tail, "")
        end = str(self.tokenizer.eos_token)
        if end in answer:
            raise DataError(f"An answer may not hold the end-of-sequence token {end}: {answer!r}. Remove it.")
        answered = self._chat([user, {"role": "assistant", "content": answer}], add_generation_prompt=False)
        if not answered.startswith(asked):
            raise ModelError(
                "The tokenizer's chat template writes another prompt with an answer than without: it cannot be trained."
            )
        said = answered[len(asked) :].split(end)[0]
        return _Rendered(head, tail, said + end)

    def _chat(self, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages, chat_template=self._template, add_generation_prompt=add_generation_prompt, tokenize=False
            )
        )
