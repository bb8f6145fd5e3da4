"""What several task plugins share: schemas of rows, samples that stay in their file, and synthetic data."""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from msgspec import field as name_of

from unirs import Media, Sample, Turn
from unirs.errors import DataError
from unirs.metrics import tokenize
from unirs.tasks import parse_row, read_row


class Utterance(Struct):
    """An utterance of a conversation in LLaVA's schema."""

    speaker: Literal["human", "gpt"] = name_of(name="from")
    value: str


class _Conversation(Struct):
    conversations: Annotated[list[Utterance], Meta(min_length=2)]
    image: str


def read_conversation(value: object, where: str) -> tuple[str, list[str]]:
    """The image of a row in LLaVA's schema, and its questions and answers, see `utterance_texts`.

    Raises:
        DataError: the row has another schema or an empty text; `where` is its file and row.
    """
    row = parse_row(value, _Conversation, where)
    return row.image, utterance_texts(row.conversations, where)


def utterance_texts(utterances: Sequence[Utterance], where: str) -> list[str]:
    """Questions and answers in turn, without `<image>`.

    Raises:
        DataError: they are not in turn, or one is empty; `where` is the file and row.
    """
    if [utterance.speaker for utterance in utterances] != ["human", "gpt"] * (len(utterances) // 2):
        raise DataError(f"{where}: 'conversations' does not alternate between 'human' and 'gpt'. Correct the row.")
    texts = [utterance.value.replace("<image>", "").strip() for utterance in utterances]
    if "" in texts:
        raise DataError(f"{where}: the text of 'conversations' {texts.index('')} is empty. Correct the row.")
    return texts


class Sentence(Struct):
    """A sentence in Karpathy's schema of captions."""

    tokens: list[str] = []
    raw: str | None = None


def sentence_texts(sentences: Sequence[Sentence], where: str) -> tuple[str, ...]:
    """Sentences as the literature scores them, which is the words of `tokens`, or of `raw` without punctuation.

    Raises:
        DataError: a sentence has no words; `where` is its file and row.
    """
    texts = tuple(" ".join(each.tokens) if each.tokens else tokenize(each.raw or "") for each in sentences)
    for index, text in enumerate(texts):
        if not text.strip():
            raise DataError(f"{where}, sentence {index} is empty. Add 'tokens' or 'raw', or remove the sentence.")
    return texts


def group_turns(rows: Iterable[tuple[str, Turn]], to_media: Callable[[str], Media]) -> list[Sample]:
    """One sample for each file name, with all turns about it, in the order in which the names first occur."""
    turns: dict[str, list[Turn]] = {}
    for name, turn in rows:
        turns.setdefault(name, []).append(turn)
    return [Sample(name, to_media(name), tuple(of_name)) for name, of_name in turns.items()]


def check_not_empty(samples: Sequence[Sample], where: Path, split: str) -> None:
    """Raises a `DataError` if a split has no samples."""
    if not samples:
        raise DataError(f"{where} has no rows of the split '{split}'. Download the data again.")


@dataclass(frozen=True)
class FileRows:
    """Makes the sample of an index from its row in a file, which is parsed again on each access.

    `make` takes a row's value and its number; `ranges` are the number, start and end in bytes of each row.
    """

    path: Path
    make: Callable[[Any, int], Sample]
    ranges: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, number: int, value: object, start: int, end: int) -> Sample:
        """Adds a row, unless `make` raises."""
        sample = self.make(value, number)
        self.ranges.extend((number, start, end))
        return sample

    def __call__(self, index: int) -> Sample:
        number, start, end = self.ranges[3 * index : 3 * index + 3]
        return self.make(read_row(self.path, start, end), number)


def synthesize(module: str, root: Path, size: int, seed: int) -> None:
    """Writes the synthetic data set of `unirs_tasks.synth.<module>`, which is imported only here."""
    import_module(f"unirs_tasks.synth.{module}").write(root, size, seed)
