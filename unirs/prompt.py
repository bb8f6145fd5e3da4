"""From a turn to token ids and labels: the one place where prompts are made, for training and evaluation.

A rendered prompt reads, in the tokenizer's chat template or a plain one: visual placeholders, task tag, instruction.
One sequence holds many turns of a sample, and what they begin with in common once (see `Sequence`).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from string import Formatter
from typing import TYPE_CHECKING, NamedTuple

from unirs.errors import DataError, ModelError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Sequence as List

    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from unirs.sample import Sample, Turn

VISUAL = "<|visual|>"
"""Stands for the visual tokens of one picture in rendered text."""

CLUE_START, CLUE_END = "<clue>", "</clue>"
"""What a clue stands between."""

IGNORE = -100
"""The label of tokens that are not learnt."""

PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{{ message.content }}{{ '\n' if message.role == 'user' else eos_token }}"
    "{% endfor %}"
)
"""The chat template of a tokenizer that has none."""


@dataclass(frozen=True)
class Prompt:
    """A task's prompt template.

    Attributes:
        tag: the task tag put before the instruction: `vqa` becomes `[vqa]` (paper, prompt augmentation); none where
            empty.
        instruction: a `str.format` template over the turn's fields.
    """

    tag: str
    instruction: str

    def __call__(self, fields: Mapping[str, str], clue: str = "") -> str:
        """The text after the visual placeholders: tag, clue between its markers where there is one, instruction.

        Raises:
            DataError: the instruction names a field that the turn does not have.
        """
        for _, name, _, _ in Formatter().parse(self.instruction):
            if name is not None and name not in fields:
                raise DataError(
                    f"The prompt names the field '{name}', which the turn does not have. {nearest(name, fields)}"
                )
        parts = [f"[{self.tag}]"] if self.tag else []
        parts += [f"{CLUE_START}{clue}{CLUE_END}"] if clue else []
        return " ".join([*parts, self.instruction.format(**fields)])


OPEN = 1 << 30
"""`Sequence.until` of tokens that all later ones see."""


@dataclass
class Sequence:
    """Token ids of one sequence that branches: what stands before is shared, and branches do not see each other.

    The prefix with the visual tokens is shared by all turns, the beginning of a question by those that begin alike, and
    a question by all its answers. Every answer is computed as if prefix, question and answer stood alone in the
    sequence.

    Attributes:
        ids: token ids; 0 where a visual token stands.
        visual: whether a visual token stands there.
        labels: the ids to learn, `IGNORE` elsewhere.
        until: the index from which on no token sees this one, `OPEN` where all do.
        weights: how much each label counts in the loss: 1 over the answers of its sample; 0 where nothing is learnt.
        asks: the index of the last token of each question whose answer is to be found.
    """

    ids: list[int] = field(default_factory=list)
    visual: list[bool] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    until: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    asks: list[int] = field(default_factory=list)

    def add(self, ids: list[int], *, learn: bool = False, visual: bool = False) -> None:
        """Appends tokens that see all tokens of branches that are not closed."""
        self.ids += ids
        self.visual += [visual] * len(ids)
        self.labels += ids if learn else [IGNORE] * len(ids)
        self.until += [OPEN] * len(ids)
        self.weights += [float(learn)] * len(ids)

    def close(self, start: int) -> None:
        """Ends the branch that began at index `start`: later tokens do not see it."""
        end = len(self.ids)
        self.until[start:] = [min(until, end) for until in self.until[start:]]

    def append(self, other: Sequence) -> None:
        """Appends another sequence that shares nothing with this one."""
        self.close(0)
        start = len(self.ids)
        self.ids += other.ids
        self.visual += other.visual
        self.labels += other.labels
        self.until += [min(until + start, OPEN) for until in other.until]
        self.weights += other.weights
        self.asks += [ask + start for ask in other.asks]


def _parts(texts: List[list[int]], room: int) -> list[list[int]]:
    """Parts texts so that those which begin alike stand together, sorted.

    Args:
        texts: token ids.
        room: tokens in a part, beginnings that its texts share counted once, and one at least for each text; one text
            alone may take more.

    Returns:
        Which texts each part has.
    """
    order = sorted(range(len(texts)), key=texts.__getitem__)
    ordered = [texts[index] for index in order]
    lengths = [(len(text), max(1, len(text) - _alike(before, text))) for before, text in pairwise([[], *ordered])]

    def starts(room: int) -> list[int]:
        found: list[int] = []
        left = 0
        for place, (alone, more) in enumerate(lengths):
            left -= more
            if left < 0 or not found:
                found.append(place)
                left = room - alone
        return found

    # As even as so few parts can be, since rows are padded to the longest.
    fewest = len(starts(room))
    even = bisect_left(range(room), True, key=lambda less: len(starts(less)) == fewest)
    return [order[start:end] for start, end in pairwise([*starts(even), len(order)])]


def _branches(sequence: Sequence, texts: List[list[int]]) -> Iterator[tuple[int, list[int]]]:
    """Appends texts, each a branch that shares what it begins with in common with the one before.

    Args:
        sequence: holds what all of them share.
        texts: token ids; sorted, so that much is shared.

    Yields:
        Which text has just been appended, and where in the sequence its tokens stand. What is appended now belongs to
        it.
    """
    start = len(sequence.ids)
    before: list[int] = []
    path: list[int] = []
    for index, text in enumerate(texts):
        shared = _alike(before, text)
        if shared < len(path):
            sequence.close(path[shared])
        path = path[:shared] + list(range(len(sequence.ids), len(sequence.ids) + len(text) - shared))
        sequence.add(text[shared:])
        before = text
        yield index, path
    sequence.close(start)


def _alike(one: list[int], other: list[int]) -> int:
    """How many tokens two texts begin with in common."""
    unlike = (place for place, (left, right) in enumerate(zip(one, other, strict=False)) if left != right)
    return next(unlike, min(len(one), len(other)))


class _Rendered(NamedTuple):
    head: str
    tail: str
    answer: str


class Renderer:
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

    def __reduce__(self) -> tuple[type[Renderer], tuple[PreTrainedTokenizerBase, int]]:
        # Caches do not pickle: a spawned worker of a DataLoader fills its own.
        return Renderer, (self.tokenizer, self.max_length)

    def text(self, prompt: Prompt, turn: Turn, grids: int, clue: str = "") -> str:
        """The prompt as text, with `VISUAL` once for each of its `grids` pictures; for people to read."""
        rendered = self._rendered(prompt(turn.fields, clue), None)
        return rendered.head + VISUAL * grids + rendered.tail

    def training(self, prompt: Prompt, sample: Sample, grids: int, tokens: int, clue: str = "") -> Sequence:
        """All turns and answers of a sample in one sequence.

        Args:
            prompt: the task's.
            sample: a turn with several texts to learn asks once and answers several times.
            grids: pictures the language model sees.
            tokens: visual tokens a picture.
            clue: what a base VLM says about the media.

        Raises:
            DataError: the sequence is longer than `max_length`, or a text holds what marks a prompt's parts.
            ModelError: the tokenizer's chat template cannot be trained.
        """
        turns = self._turns(prompt, sample, clue)
        return self._checked(self._tree(turns, grids, tokens, 1 / sum(map(len, turns))), sample)

    def unbranched(self, prompt: Prompt, sample: Sample, grids: int, tokens: int, clue: str = "") -> list[Sequence]:
        """The same as a plain sequence for each answer, for models that know no branches. `training` tells the rest."""
        turns = self._turns(prompt, sample, clue)
        weight = 1 / sum(map(len, turns))
        answers = [[[answer]] for turn in turns for answer in turn]
        return [self._checked(self._tree(answer, grids, tokens, weight), sample) for answer in answers]

    def _turns(self, prompt: Prompt, sample: Sample, clue: str) -> list[list[_Rendered]]:
        return [[self._rendered(prompt(turn.fields, clue), answer) for answer in turn.targets] for turn in sample.turns]

    def _tree(self, turns: list[list[_Rendered]], grids: int, tokens: int, weight: float) -> Sequence:
        sequence = self._start(turns[0][0].head, grids, tokens)
        tails = sorted((self._ids(rendered[0].tail), turn) for turn, rendered in enumerate(turns))
        for place, _ in _branches(sequence, [tail[:-1] for tail, _ in tails]):
            tail, turn = tails[place]
            for answer in turns[turn]:
                branch = len(sequence.ids)
                # The question's last token belongs to each branch, since it is what predicts the answer's first.
                sequence.add(tail[-1:])
                sequence.add(self._ids(answer.answer), learn=True)
                sequence.close(branch)
        sequence.weights = [weight * one for one in sequence.weights]
        return sequence

    def asking(
        self, prompt: Prompt, sample: Sample, grids: int, tokens: int, clue: str = "", room: int | None = None
    ) -> list[tuple[Sequence, list[int]]]:
        """All turns of a sample, each up to where its answer begins: see `Sequence.asks`.

        Args:
            prompt: the task's.
            sample: its answers do not matter.
            grids: pictures the language model sees.
            tokens: visual tokens a picture.
            clue: what a base VLM says about the media.
            room: tokens in a sequence after the visual ones, unless one turn alone takes more; None for all in one.

        Returns:
            Sequences, and which turns each asks, in the order of its `asks`; turns that begin alike stand together.

        Raises:
            DataError: a sequence is longer than `max_length`, or a question holds the visual placeholder.
        """
        turns = [self._rendered(prompt(turn.fields, clue), None) for turn in sample.turns]
        tails = [self._ids(turn.tail) for turn in turns]
        parts = _parts(tails, sum(map(len, tails)) if room is None else room)
        sequences = [self._start(turns[0].head, grids, tokens) for _ in parts]
        for sequence, part in zip(sequences, parts, strict=True):
            sequence.asks = [path[-1] for _, path in _branches(sequence, [tails[turn] for turn in part])]
        return [(self._checked(sequence, sample), part) for sequence, part in zip(sequences, parts, strict=True)]

    def choice(self, text: str) -> list[int]:
        """Token ids of an answer, as training has them: what the chat template makes of it, and the end token."""
        return self._ids(self._rendered("", text).answer)

    def _start(self, head: str, grids: int, tokens: int) -> Sequence:
        sequence = Sequence()
        sequence.add(self._ids(head))
        sequence.add([0] * (grids * tokens), visual=True)
        return sequence

    def _checked(self, sequence: Sequence, sample: Sample) -> Sequence:
        if len(sequence.ids) > self.max_length:
            raise DataError(
                f"Sample '{sample.id}' ({sample.media.paths[0]}) takes {len(sequence.ids)} tokens, "
                f"{sum(sequence.visual)} of them visual; max_length is {self.max_length}. Raise it, or lower max_turns "
                "or the number of frames."
            )
        return sequence

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
