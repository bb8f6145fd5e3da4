"""Reads RSVQA's schema: three JSON files per split that hold questions, answers and images, joined by id.

RSVQA, CDVQA and data sets derived from them use it. RSVQA's high resolution set has a million questions: rows are read
one by one into columns of numbers, equal texts are stored once, and samples are made on access.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
        paths = {name: self.root / f"{self.prefixes[split]}_{name}.json" for name in names}
        questions = _Questions(paths["questions"], self.rules)
        answers = _Answers(paths["answers"])
        media: dict[int, Media] = {}
        for row in _active_rows(paths["images"], "images", self.image_row):
            if row.id in media:
                raise _repeated(paths["images"], row.id)
            media[row.id] = row.media(self.root)
        return TaskSplit(_join(questions, answers, media, paths, self.rules), questions.excluded)

    def choices(self, choices: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """Selects the closed answers of the question types that are not excluded."""
        return {name: texts for name, texts in choices.items() if self.rules.get(name)}


def _active_rows(path: Path, name: str, schema: type[_Row]) -> Iterator[_Row]:
    for index, (row, _, _) in enumerate(read_json_list(path, name)):
        if not isinstance(row, dict) or row.get("active", True):
            yield parse_row(row, schema, f"{path}, row {index}")


class _Questions:
    """The questions that are not excluded, one column per field."""

    def __init__(self, path: Path, rules: Mapping[str, AnswerRule]) -> None:
        self.ids, self.images, self.answers = array("q"), array("q"), array("q")
        self.types: list[str] = []
        self.texts: list[str] = []
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
            self.types.append(sys.intern(row.type))
            self.texts.append(sys.intern(row.question))


class _Answers:
    """All answers, one column per field."""

    def __init__(self, path: Path) -> None:
        self.ids, self.questions = array("q"), array("q")
        self.texts: list[str] = []
        for row in _active_rows(path, "answers", _AnswerRow):
            self.ids.append(row.id)
            self.questions.append(_NO_QUESTION if row.question_id is None else row.question_id)
            self.texts.append(sys.intern(row.answer))


def _join(
    questions: _Questions,
    answers: _Answers,
    media: Mapping[int, Media],
    paths: Mapping[str, Path],
    rules: Mapping[str, AnswerRule],
) -> LazySamples:
    import numpy as np

    ids, images, wanted = (np.asarray(column) for column in (questions.ids, questions.images, questions.answers))
    answer_ids = np.asarray(answers.ids)

    def check(correct: np.ndarray, describe: Callable[[int], str]) -> None:
        if not correct.all():
            indices = np.flatnonzero(~correct)
            index = int(indices[ids[indices].argmin()])
            where = f"{paths['questions']}, question {ids[index]}"
            raise DataError(f"{where}: {describe(index)}. Download the files again.")

    for column, path in ((ids, paths["questions"]), (answer_ids, paths["answers"])):
        ranked = np.sort(column)
        repeated = ranked[1:][ranked[1:] == ranked[:-1]]
        if repeated.size:
            raise _repeated(path, int(repeated[0]))
    known = np.isin(images, np.fromiter(media, np.int64, len(media)))
    check(known, lambda index: f"image {images[index]} is not in {paths['images'].name}, or not active")
    known = np.isin(wanted, answer_ids)
    check(known, lambda index: f"answer {wanted[index]} is not in {paths['answers'].name}, or not active")
    by_id = np.argsort(answer_ids)
    positions = by_id[np.searchsorted(answer_ids, wanted, sorter=by_id)]
    question_of = np.asarray(answers.questions)[positions]
    check(
        (question_of == _NO_QUESTION) | (question_of == ids),
        lambda index: f"answer {wanted[index]} belongs to question {question_of[index]} in {paths['answers'].name}",
    )

    # CDVQA lists each pair several times, with some of its questions each.
    lowest = {each: key for key, each in sorted(media.items(), reverse=True)}
    unique, inverse = np.unique(images, return_inverse=True)
    images = np.array([lowest[media[key]] for key in unique.tolist()], np.int64)[inverse]
    order = np.lexsort((ids, images))
    image_ids, starts = np.unique(images[order], return_index=True)
    make = _Samples(
        ids[order],
        types := [questions.types[index] for index in order],
        [questions.texts[index] for index in order],
        [
            sys.intern((rules[name] or str)(answers.texts[index]))
            for name, index in zip(types, positions[order], strict=True)
        ],
        [media[key] for key in image_ids.tolist()],
        image_ids,
        np.append(starts, len(order)),
    )
    return LazySamples(make, np.diff(make.bounds).tolist())


@dataclass(frozen=True)
class _Samples:
    """Makes the sample of an index. One entry per question, and per image from `media` on; `bounds` index questions."""

    ids: np.ndarray
    types: list[str]
    questions: list[str]
    answers: list[str]
    media: list[Media]
    images: np.ndarray
    bounds: np.ndarray

    def __call__(self, index: int) -> Sample:
        turns = tuple(map(self._turn, range(self.bounds[index], self.bounds[index + 1])))
        return Sample(id=str(self.images[index]), media=self.media[index], turns=turns)

    def _turn(self, index: int) -> Turn:
        fields = {"question": self.questions[index]}
        return Turn(str(self.ids[index]), (self.answers[index],), fields, category=self.types[index])


def _repeated(path: Path, key: int) -> DataError:
    return DataError(f"{path} has two active rows with the id {key}. Ids must be unique: download the file again.")
