"""Reads RSVQA's schema: three JSON files per split that hold questions, answers and images, joined by id.

RSVQA, CDVQA and data sets derived from them use it. RSVQA's high resolution set has a million questions: rows are read
one by one into columns of numbers, equal texts are stored once, and samples are made on access.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from msgspec import Meta, Struct

from unirs import Media, PromptTemplate, Sample, TaskSplit, Turn
from unirs.errors import DataError, did_you_mean
from unirs.tasks import LazySamples, SplitName, check_split, parse_row, read_json_list

if TYPE_CHECKING:
    import numpy as np

AnswerRule = Callable[[str], str] | None
"""How the answers of a question type are written; None excludes the type's questions."""

Prefixes = Mapping[SplitName, str]

BARE = PromptTemplate("vqa", "{question}")

SINGLE_WORD = PromptTemplate("vqa", "{question}\nAnswer the question using a single word or phrase.")
"""The usual prompt of vision-language models (LLaVA-1.5, arXiv 2310.03744)."""

_NO_QUESTION = -1


# Ids are stored in columns of 64 bits.
_Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class ImageRow(Struct):
    """A row of the images file."""

    id: _Id

    def media(self, root: Path) -> Media:
        """Makes the media of the row; `root` is the folder of the data set."""
        raise NotImplementedError


class _QuestionRow(Struct):
    id: _Id
    img_id: _Id
    type: str
    question: str
    # Each question has one answer; if there are more, RSVQA's public code reads the first.
    answers_ids: Annotated[list[_Id], Meta(min_length=1)]


class _AnswerRow(Struct):
    id: _Id
    answer: str
    question_id: _Id | None = None


_Row = TypeVar("_Row", bound=Struct)


@dataclass(frozen=True)
class SplitReader:
    """Reads a split from `<prefix>_{questions,answers,images}.json`: the `load_split` of a task.

    A sample is one input with all its questions, ordered by the (lowest) image id and by question id. Rows are joined
    by id, never by position; inactive rows are skipped, and media files are not opened.

    Attributes:
        root: folder of the JSON files.
        prefixes: start of the names of each split's files.
        image_row: schema of the images file.
        rules: every question type, and how its answers are written.
    """

    root: Path
    prefixes: Prefixes
    image_row: type[ImageRow]
    rules: Mapping[str, AnswerRule]

    def __call__(self, split: SplitName) -> TaskSplit:
        """Reads a split; a file or row that does not fit is a `DataError`."""
        check_split(split, self.prefixes)
        names = ("questions", "answers", "images")
        questions_path, answers_path, images_path = (
            self.root / f"{self.prefixes[split]}_{name}.json" for name in names
        )
        questions = _Questions(questions_path, self.rules)
        answers = _join_answers(questions, _Answers(answers_path), self.rules)
        media: dict[int, Media] = {}
        for row in _active_rows(images_path, "images", self.image_row):
            if row.id in media:
                raise _repeated(images_path, row.id)
            media[row.id] = row.media(self.root)
        return TaskSplit(_join_media(questions, answers, media, images_path), questions.excluded)

    def choices(self, choices: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """Selects the closed answers of the question types that are not excluded."""
        return {name: texts for name, texts in choices.items() if self.rules.get(name)}


def _active_rows(path: Path, name: str, schema: type[_Row]) -> Iterator[_Row]:
    where = f"{path}, row "
    for index, (row, _, _) in enumerate(read_json_list(path, name)):
        if not isinstance(row, dict) or row.get("active", True):
            yield parse_row(row, schema, f"{where}{index}")


class _Texts:
    """A column of texts that is being read: the code of each row's text, and the codes of all texts, from 0."""

    def __init__(self) -> None:
        self.rows = array("i")
        self.codes: dict[str, int] = {}

    def append(self, text: str) -> None:
        self.rows.append(self.codes.setdefault(text, len(self.codes)))

    def reordered(self, order: np.ndarray) -> _TextColumn:
        """The column with the rows of these indices."""
        import numpy as np

        codes = np.asarray(self.rows)[order].astype(np.min_scalar_type(len(self.codes)))
        return _TextColumn(list(self.codes), codes)


@dataclass(frozen=True)
class _TextColumn:
    """A column of texts: `codes` are indices of `texts`."""

    texts: list[str]
    codes: np.ndarray

    def __getitem__(self, rows: slice) -> list[str]:
        return [self.texts[code] for code in self.codes[rows].tolist()]


class _Questions:
    """The questions that are not excluded, one column per field."""

    def __init__(self, path: Path, rules: Mapping[str, AnswerRule]) -> None:
        self.path = path
        self.ids, self.images, self.answers = array("q"), array("q"), array("q")
        self.types, self.texts = _Texts(), _Texts()
        self.excluded: Counter[str] = Counter()
        for row in _active_rows(path, "questions", _QuestionRow):
            if row.type not in rules:
                hint = did_you_mean(row.type, rules)
                raise DataError(f"{path}, question {row.id}: unknown question type '{row.type}'. {hint}")
            if rules[row.type] is None:
                self.excluded[row.type] += 1
                continue
            self.ids.append(row.id)
            self.images.append(row.img_id)
            self.answers.append(row.answers_ids[0])
            self.types.append(row.type)
            self.texts.append(row.question)
        _check_unique(self.ids, path)

    def check(self, correct: np.ndarray, describe: Callable[[int], str]) -> None:
        """Raises the error that `describe` describes for the lowest id of the rows that are not correct."""
        import numpy as np

        if not correct.all():
            indices = np.flatnonzero(~correct)
            index = int(indices[np.asarray(self.ids)[indices].argmin()])
            raise DataError(f"{self.path}, question {self.ids[index]}: {describe(index)}. Download the files again.")


class _Answers:
    """All answers, one column per field."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids, self.questions = array("q"), array("q")
        self.texts = _Texts()
        for row in _active_rows(path, "answers", _AnswerRow):
            self.ids.append(row.id)
            self.questions.append(_NO_QUESTION if row.question_id is None else row.question_id)
            self.texts.append(row.answer)
        _check_unique(self.ids, path)


def _join_answers(questions: _Questions, answers: _Answers, rules: Mapping[str, AnswerRule]) -> _Texts:
    """The answer to each question, written as its type requires."""
    import numpy as np

    wanted, name = questions.answers, answers.path.name
    known, rows = _find(np.asarray(wanted), np.asarray(answers.ids))
    questions.check(known, lambda index: f"answer {wanted[index]} is not in {name}, or not active")
    owners = np.asarray(answers.questions)[rows]
    questions.check(
        (owners == _NO_QUESTION) | (owners == np.asarray(questions.ids)),
        lambda index: f"answer {wanted[index]} belongs to question {owners[index]} in {name}",
    )
    types, texts = list(questions.types.codes), list(answers.texts.codes)

    @cache
    def write(category: int, text: int) -> str:
        return (rules[types[category]] or str)(texts[text])

    written = _Texts()
    for category, text in zip(questions.types.rows, memoryview(np.asarray(answers.texts.rows)[rows]), strict=True):
        written.append(write(category, text))
    return written


def _join_media(questions: _Questions, answers: _Texts, media: Mapping[int, Media], path: Path) -> LazySamples:
    """Samples of questions, their answers, and the media by id, which are from the file `path`."""
    import numpy as np

    wanted = questions.images
    known, rows = _find(np.asarray(wanted), np.fromiter(media, np.int64, len(media)))
    questions.check(known, lambda index: f"image {wanted[index]} is not in {path.name}, or not active")
    # CDVQA lists each pair several times, with some of its questions each.
    lowest = {each: key for key, each in sorted(media.items(), reverse=True)}
    images = np.fromiter((lowest[each] for each in media.values()), np.int64, len(media))[rows]
    order = np.lexsort((questions.ids, images))
    images = images[order]
    starts = np.flatnonzero(np.diff(images, prepend=images[:1] - 1))
    make = _Samples(
        np.asarray(questions.ids)[order],
        questions.types.reordered(order),
        questions.texts.reordered(order),
        answers.reordered(order),
        [media[key] for key in images[starts].tolist()],
        images[starts],
        np.append(starts, len(order)),
    )
    return LazySamples(make, np.diff(make.bounds).tolist())


def _check_unique(ids: array[int], path: Path) -> None:
    import numpy as np

    ranked = np.sort(ids)
    repeated = ranked[1:][ranked[1:] == ranked[:-1]]
    if repeated.size:
        raise _repeated(path, int(repeated[0]))


def _find(keys: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each key is in a column, and its index there, which is meaningless if it is not."""
    import numpy as np

    if not column.size:
        return np.zeros(len(keys), bool), np.zeros(len(keys), np.int64)
    order = np.argsort(column)
    indices = order.take(np.searchsorted(column, keys, sorter=order), mode="clip")
    return column[indices] == keys, indices


@dataclass(frozen=True)
class _Samples:
    """Makes the sample of an index. One entry per question, and per image from `media` on; `bounds` index questions."""

    ids: np.ndarray
    types: _TextColumn
    questions: _TextColumn
    answers: _TextColumn
    media: list[Media]
    images: np.ndarray
    bounds: np.ndarray

    def __call__(self, index: int) -> Sample:
        rows = slice(self.bounds[index], self.bounds[index + 1])
        columns = (self.ids[rows].tolist(), self.types[rows], self.questions[rows], self.answers[rows])
        turns = tuple(
            Turn(str(key), (answer,), {"question": question}, category=category)
            for key, category, question, answer in zip(*columns, strict=True)
        )
        return Sample(id=str(self.images[index]), media=self.media[index], turns=turns)


def _repeated(path: Path, key: int) -> DataError:
    return DataError(f"{path} has two active rows with the id {key}. Ids must be unique: download the file again.")
