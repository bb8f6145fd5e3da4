"""Reads RSVQA's schema: three JSON files a split that hold questions, answers and images, joined by id.

RSVQA, CDVQA and data sets made after them are written so. RSVQA's high resolution set has a million questions: rows are
read one by one into columns of numbers, equal texts are held once, and samples are made when they are asked for.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unirs import Media, Modality, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError, did_you_mean
from unirs.metrics import VqaAccuracy
from unirs.tasks import LazySamples, SplitName, check_split, field, read_json_list

if TYPE_CHECKING:
    import numpy as np

AnswerRule = Callable[[str], str] | None
"""How the answers of a question type are written; None drops the type's questions."""

SINGLE_WORD = "{question}\nAnswer the question using a single word or phrase."
"""What vision-language models are usually told (LLaVA-1.5, arXiv 2310.03744)."""

_NO_OWNER = -1


def vqa_task(
    *,
    root: Path,
    kind: Modality,
    prefixes: Mapping[SplitName, str],
    media: Callable[[Mapping[str, Any], str], Media],
    needs: tuple[Path, ...],
    rules: Mapping[str, AnswerRule],
    bare: bool,
    source: str,
    choices: Mapping[str, tuple[str, ...]],
    synthesize: Callable[[int, int], None] | None = None,
) -> Task:
    """A task of RSVQA's schema.

    Args:
        root: folder of the JSON files.
        kind: what its samples show.
        prefixes: what the names of a split's three files begin with.
        media: as in `read_split`.
        needs: folders of the media. The files of a split are asked for when it is read: who only tests need not have
            the training set.
        rules: as in `read_split`.
        bare: asks the bare question, and not for a single word or phrase.
        source: where a user gets the data.
        choices: closed answers by question type.
        synthesize: writes a synthetic data set.
    """

    def samples(split: SplitName) -> TaskSplit:
        check_split(split, prefixes)
        return read_split(root, prefixes[split], media, rules)

    return Task(
        modality=kind,
        load_split=samples,
        prompt=PromptTemplate(task_tag="vqa", instruction="{question}" if bare else SINGLE_WORD),
        metric=VqaAccuracy(),
        required_paths=needs,
        download_hint=source,
        synthesize=synthesize,
        choices={name: texts for name, texts in choices.items() if rules.get(name) is not None},
    )


def read_split(
    root: Path, prefix: str, media: Callable[[Mapping[str, Any], str], Media], rules: Mapping[str, AnswerRule]
) -> TaskSplit:
    """Reads a split: `<prefix>_{questions,answers,images}.json`.

    Rows are joined by id, never by position; inactive rows are skipped. Media files are not opened.

    Args:
        root: folder of the three files.
        prefix: what their names begin with.
        media: from a row of the images file, and where it stands, to what is shown.
        rules: for each question type there may be, how its answers are written, or None to drop its questions.

    Returns:
        One sample a medium, by its (lowest) image id, its questions as turns, by question id.

    Raises:
        DataError: a file does not read; a row lacks a key or repeats an id; a question is of unknown type, has no
            answer, or names an answer or image that does not exist.
    """
    paths = {name: root / f"{prefix}_{name}.json" for name in ("questions", "answers", "images")}
    questions = _Questions(paths["questions"], rules)
    answers = _Answers(paths["answers"])
    shown: dict[int, Media] = {}
    for key, row, where in _active_rows(paths["images"], "images"):
        if key in shown:
            raise _repeated(paths["images"], key)
        shown[key] = media(row, where)
    return TaskSplit(_join(questions, answers, shown, paths, rules), questions.dropped)


class _Questions:
    """The kept questions, a column a field, in the file's order."""

    def __init__(self, path: Path, rules: Mapping[str, AnswerRule]) -> None:
        self.ids, self.images, self.answers = array("q"), array("q"), array("q")
        self.kinds: list[str] = []
        self.texts: list[str] = []
        self.dropped: Counter[str] = Counter()
        for key, row, where in _active_rows(path, "questions"):
            kind = field(row, "type", str, where)
            if kind not in rules:
                raise DataError(f"{where}: unknown question type '{kind}'. {did_you_mean(kind, rules)}")
            if rules[kind] is None:
                self.dropped[kind] += 1
                continue
            self.ids.append(key)
            self.images.append(field(row, "img_id", int, where))
            self.answers.append(_only_answer(row, where))
            self.kinds.append(sys.intern(kind))
            self.texts.append(sys.intern(field(row, "question", str, where)))


class _Answers:
    """All answers, a column a field, in the file's order."""

    def __init__(self, path: Path) -> None:
        self.ids, self.owners = array("q"), array("q")
        self.texts: list[str] = []
        for key, row, where in _active_rows(path, "answers"):
            self.ids.append(key)
            owner = row.get("question_id")
            self.owners.append(_NO_OWNER if owner is None else field(row, "question_id", int, where))
            self.texts.append(sys.intern(field(row, "answer", str, where)))


def _active_rows(path: Path, name: Literal["questions", "answers", "images"]) -> Iterator[tuple[int, Any, str]]:
    for index, (row, _, _) in enumerate(read_json_list(path, name)):
        if not isinstance(row, dict) or "id" not in row:
            raise DataError(f"{path}, row {index} of '{name}' has no 'id'. Download the file again.")
        where = f"{path}, {name.removesuffix('s')} {row['id']}"
        key = field(row, "id", int, where)
        if row.get("active", True):
            yield key, row, where


def _only_answer(row: Mapping[str, Any], where: str) -> int:
    answers: list[object] = field(row, "answers_ids", list, where)
    if not answers:
        raise DataError(f"{where} has no answer ('answers_ids' is empty). Add one, or set its 'active' to false.")
    # Each question has one answer; where there are more, RSVQA's public code reads the first.
    answer = answers[0]
    if not isinstance(answer, int):
        raise DataError(f"{where}: 'answers_ids' must hold numbers, it holds {answer!r}. Correct the row.")
    return answer


def _join(
    questions: _Questions,
    answers: _Answers,
    shown: Mapping[int, Media],
    paths: Mapping[str, Path],
    rules: Mapping[str, AnswerRule],
) -> LazySamples:
    import numpy as np

    ids, images, wanted = (np.asarray(column) for column in (questions.ids, questions.images, questions.answers))
    _check_distinct(ids, paths["questions"])
    unknown = ~np.isin(images, np.fromiter(shown, np.int64, len(shown)))
    if unknown.any():
        raise _misfit(paths, ids, unknown, f"image {images[_first(ids, unknown)]} is not in {paths['images'].name}")

    answer_ids = np.asarray(answers.ids)
    _check_distinct(answer_ids, paths["answers"])
    absent = ~np.isin(wanted, answer_ids)
    if absent.any():
        what = f"answer {wanted[_first(ids, absent)]} is not in {paths['answers'].name}, or not active"
        raise _misfit(paths, ids, absent, what)
    by_id = np.argsort(answer_ids)
    places = by_id[np.searchsorted(answer_ids, wanted, sorter=by_id)]
    owners = np.asarray(answers.owners)[places]
    foreign = (owners != _NO_OWNER) & (owners != ids)
    if foreign.any():
        index = _first(ids, foreign)
        what = f"answer {wanted[index]} belongs to question {owners[index]} in {paths['answers'].name}"
        raise _misfit(paths, ids, foreign, what)

    # CDVQA lists each pair several times, with some of its questions each.
    lowest = {media: key for key, media in sorted(shown.items(), reverse=True)}
    unique, inverse = np.unique(images, return_inverse=True)
    images = np.array([lowest[shown[key]] for key in unique.tolist()], np.int64)[inverse]
    order = np.lexsort((ids, images))
    image_ids, starts = np.unique(images[order], return_index=True)
    make = _Samples(questions, answers.texts, shown, rules, order, places, image_ids, np.append(starts, len(order)))
    return LazySamples(make, np.diff(make.bounds).tolist())


@dataclass(frozen=True)
class _Samples:
    """Makes the sample of a number.

    Attributes:
        questions: the kept ones.
        answers: all texts.
        shown: media by image id.
        rules: how answers are written.
        order: the questions by image and id.
        places: where in `answers` each question's is.
        images: the image id of each sample.
        bounds: where in `order` each sample begins, and the last one ends.
    """

    questions: _Questions
    answers: list[str]
    shown: Mapping[int, Media]
    rules: Mapping[str, AnswerRule]
    order: np.ndarray
    places: np.ndarray
    images: np.ndarray
    bounds: np.ndarray

    def __call__(self, number: int) -> Sample:
        image = int(self.images[number])
        turns = tuple(map(self._turn, self.order[self.bounds[number] : self.bounds[number + 1]]))
        return Sample(id=str(image), media=self.shown[image], turns=turns)

    def _turn(self, index: int) -> Turn:
        kind = self.questions.kinds[index]
        rule = self.rules[kind] or str
        return Turn(
            id=str(self.questions.ids[index]),
            prompt_fields={"question": self.questions.texts[index]},
            references=(rule(self.answers[self.places[index]]),),
            category=kind,
        )


def _check_distinct(ids: np.ndarray, path: Path) -> None:
    import numpy as np

    ranked = np.sort(ids)
    repeated = ranked[1:][ranked[1:] == ranked[:-1]]
    if repeated.size:
        raise _repeated(path, int(repeated[0]))


def _repeated(path: Path, key: int) -> DataError:
    return DataError(f"{path} has two active rows with the id {key}. Ids must be unique: download the file again.")


def _first(ids: np.ndarray, wrong: np.ndarray) -> int:
    """The index of the lowest id among those that are wrong."""
    import numpy as np

    indices = np.flatnonzero(wrong)
    return int(indices[ids[indices].argmin()])


def _misfit(paths: Mapping[str, Path], ids: np.ndarray, wrong: np.ndarray, what: str) -> DataError:
    return DataError(f"{paths['questions']}, question {ids[_first(ids, wrong)]}: {what}. Download both files again.")
