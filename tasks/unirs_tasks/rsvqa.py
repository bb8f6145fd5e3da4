"""RSVQA: questions about satellite (low resolution) and aerial (high resolution) pictures.

Source: "RSVQA: Visual Question Answering for Remote Sensing Data", IEEE TGRS 58(12), 2020. Three JSON files a split
hold questions, answers and images, joined by id. `read_split` reads them, and any data set of the same schema.
"""

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from unirs.errors import DataError, PluginError, nearest
from unirs.files import read_json
from unirs.media import Image, Media
from unirs.metrics.vqa import VqaAccuracy
from unirs.prompt import Prompt
from unirs.sample import Sample, Split, Turn
from unirs.task import SplitName, Task

Protocol = Literal["vlm", "rsvqa"]

AnswerRule = Callable[[str], str] | None
"""How the answers of a question type are written; None drops the type's questions."""

_T = TypeVar("_T")


class _Question(NamedTuple):
    id: int
    image: int
    kind: str
    text: str
    answer: int


class _Answer(NamedTuple):
    question: int | None
    text: str


_INSTRUCTIONS: Mapping[Protocol, str] = {
    "vlm": "{question}\nAnswer the question using a single word or phrase.",
    "rsvqa": "{question}",
}


def build_lr(root: Path, protocol: Protocol = "vlm") -> Task:
    """RSVQA, low resolution: Sentinel-2 pictures of 256x256 pixels at 10 m.

    Args:
        root: folder with `LR_split_{train,val,test}_{questions,answers,images}.json` and `Images_LR/<image id>.tif`.
        protocol: `vlm`, as vision-language models are usually scored, keeps the question types presence, comp and
            rural_urban, and asks for a single word or phrase; `rsvqa` keeps count as well, its numbers as ranges, and
            asks the bare question.

    Returns:
        The task.

    Raises:
        PluginError: the protocol is unknown.
    """
    rules: Mapping[Protocol, Mapping[str, AnswerRule]] = {
        "vlm": {"presence": str, "comp": str, "rural_urban": str, "count": None},
        "rsvqa": {"presence": str, "comp": str, "rural_urban": str, "count": quantize_count},
    }
    return _task(
        root=root,
        prefixes={split: f"LR_split_{split}" for split in ("train", "val", "test")},
        pictures="Images_LR",
        rules=_pick("protocol", protocol, rules),
        instruction=_INSTRUCTIONS[protocol],
        source="RSVQA low resolution, https://zenodo.org/records/6344334",
        synthesize=partial(_synthesize, root),
    )


def build_hr(root: Path, protocol: Protocol = "vlm", test_split: Literal["test", "test_phili"] = "test") -> Task:
    """RSVQA, high resolution: aerial pictures of 512x512 pixels at 15 cm.

    Args:
        root: folder with `USGS_split_{train,val,test,test_phili}_{questions,answers,images}.json` and
            `Data/<image id>.tif`.
        protocol: `vlm`, as vision-language models are usually scored, keeps the question types presence and comp, and
            asks for a single word or phrase; `rsvqa` keeps count and area as well, its areas as ranges, and asks the
            bare question.
        test_split: which of the two published test sets is `test`; `test_phili` shows a city that training does not.

    Returns:
        The task.

    Raises:
        PluginError: the protocol or the test split is unknown.
    """
    rules: Mapping[Protocol, Mapping[str, AnswerRule]] = {
        "vlm": {"presence": str, "comp": str, "count": None, "area": None},
        "rsvqa": {"presence": str, "comp": str, "count": str, "area": quantize_area},
    }
    tests = {"test": "USGS_split_test", "test_phili": "USGS_split_test_phili"}
    return _task(
        root=root,
        prefixes={
            "train": "USGS_split_train",
            "val": "USGS_split_val",
            "test": _pick("test_split", test_split, tests),
        },
        pictures="Data",
        rules=_pick("protocol", protocol, rules),
        instruction=_INSTRUCTIONS[protocol],
        source="RSVQA high resolution, https://zenodo.org/records/6344367",
        synthesize=None,
    )


def quantize_count(answer: str) -> str:
    """Writes a count as RSVQA's range; an answer that is no whole number stays as it is.

    The ranges, their names and their bounds (0 < n <= 10 is "between 0 and 10") are those of `VocabEncoder.py` in
    RSVQA's public code, which applies them to the low resolution set only.
    """
    return _range(int(answer), unit="") if re.fullmatch(r"[0-9]+", answer) else answer


def quantize_area(answer: str) -> str:
    """Writes an area such as `57m2` as RSVQA's range; an answer that is no area stays as it is.

    The ranges are those of `VocabEncoder.py` in RSVQA's public code, as for `quantize_count`.
    """
    return _range(int(answer[:-2]), unit="m2") if re.fullmatch(r"[0-9]+m2", answer) else answer


def _range(number: int, unit: str) -> str:
    if number == 0:
        return f"0{unit}"
    for low, high in ((0, 10), (10, 100), (100, 1000)):
        if number <= high:
            return f"between {low}{unit} and {high}{unit}"
    return f"more than 1000{unit}"


def read_split(
    root: Path, prefix: str, media: Callable[[Mapping[str, Any]], Media], rules: Mapping[str, AnswerRule]
) -> Split:
    """Reads a split in RSVQA's schema: `<prefix>_{questions,answers,images}.json`.

    Rows are joined by id; inactive rows are skipped. Media files are not opened. The high resolution set has a million
    questions: a JSON row becomes a small tuple, or nothing, as soon as it is parsed, and equal texts are held once.

    Args:
        root: folder of the three files.
        prefix: what their names begin with.
        media: from a row of the images file to what is shown.
        rules: for each question type there may be, how its answers are written, or None to drop its questions.

    Returns:
        One sample a picture, by image id, its questions as turns, by question id.

    Raises:
        DataError: a file does not read; a row lacks a key or repeats an id; a question is of unknown type, has no
            answer, or names an answer or image that does not exist.
    """
    dropped: Counter[str] = Counter()
    question_path = root / f"{prefix}_questions.json"
    questions = _read_rows(question_path, "questions", partial(_parse_question, rules=rules, dropped=dropped))
    answers = _read_rows(root / f"{prefix}_answers.json", "answers", _parse_answer)
    images = _read_rows(root / f"{prefix}_images.json", "images", lambda row, _: row)

    fields: dict[str, Mapping[str, str]] = {}
    references: dict[tuple[str, str], tuple[str, ...]] = {}
    turns: defaultdict[int, list[Turn]] = defaultdict(list)
    for key in sorted(questions):
        question = questions[key]
        where = f"{question_path}, question {question.id}"
        if question.image not in images:
            raise DataError(
                f"{where}: image {question.image} is not in {prefix}_images.json. Download both files again."
            )
        text = _answer_of(question, answers, where, f"{prefix}_answers.json")
        rule = rules[question.kind] or str
        turns[question.image].append(
            Turn(
                id=str(question.id),
                fields=fields.setdefault(question.text, {"question": question.text}),
                references=references.setdefault((question.kind, text), (rule(text),)),
                kind=question.kind,
            )
        )
    samples = [Sample(id=str(image), media=media(images[image]), turns=tuple(turns[image])) for image in sorted(turns)]
    return Split(samples, dropped)


def _read_rows(path: Path, name: str, parse: Callable[[Mapping[str, Any], str], _T | None]) -> dict[int, _T]:
    """Reads the active rows of the list `name` by id, each parsed while the file is read; None leaves a row out."""

    def hook(node: dict[str, Any]) -> object:
        if "id" not in node:
            return node
        key = node["id"]
        where = f"{path}, {name.removesuffix('s')} {key}"
        _field(node, "id", int, where)
        return (key, parse(node, where) if node.get("active", True) else None)

    content = read_json(path, object_hook=hook)
    rows = content.get(name) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise DataError(f"{path} has no list '{name}'. It must be RSVQA's {name} file: download it again.")
    parsed: dict[int, _T] = {}
    for index, row in enumerate(rows):
        if not isinstance(row, tuple):
            raise DataError(f"{path}, row {index} of '{name}' has no 'id'. Download the file again.")
        key, value = row
        if value is None:
            continue
        if key in parsed:
            raise DataError(
                f"{path} has two active rows with the id {key}. Ids must be unique: download the file again."
            )
        parsed[key] = value
    return parsed


def _parse_question(
    row: Mapping[str, Any], where: str, *, rules: Mapping[str, AnswerRule], dropped: Counter[str]
) -> _Question | None:
    kind = _field(row, "type", str, where)
    if kind not in rules:
        raise DataError(f"{where}: unknown question type '{kind}'. {nearest(kind, rules)}")
    if rules[kind] is None:
        dropped[kind] += 1
        return None
    answers: list[object] = _field(row, "answers_ids", list, where)
    if not answers:
        raise DataError(f"{where} has no answer ('answers_ids' is empty). Add one, or set its 'active' to false.")
    # Each question has one answer; where there are more, RSVQA's public code reads the first.
    answer = answers[0]
    if not isinstance(answer, int):
        raise DataError(f"{where}: 'answers_ids' must hold numbers, it holds {answer!r}. Correct the row.")
    return _Question(
        id=row["id"],
        image=_field(row, "img_id", int, where),
        kind=sys.intern(kind),
        text=sys.intern(_field(row, "question", str, where)),
        answer=answer,
    )


def _parse_answer(row: Mapping[str, Any], where: str) -> _Answer:
    return _Answer(question=row.get("question_id"), text=sys.intern(_field(row, "answer", str, where)))


def _answer_of(question: _Question, answers: Mapping[int, _Answer], where: str, file: str) -> str:
    answer = answers.get(question.answer)
    if answer is None:
        raise DataError(
            f"{where}: answer {question.answer} is not in {file}, or not active. Download both files again."
        )
    if answer.question not in (None, question.id):
        raise DataError(
            f"{where}: answer {question.answer} belongs to question {answer.question} in {file}. "
            "Download both files again."
        )
    return answer.text


def _field(row: Mapping[str, Any], name: str, kind: type[_T], where: str) -> _T:
    if name not in row:
        raise DataError(f"{where} lacks '{name}'. Correct the row, or download the file again.")
    value = row[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{where}: '{name}' must be of type {kind.__name__}, it is {value!r}. Correct the row.")
    return value


def _task(
    *,
    root: Path,
    prefixes: Mapping[SplitName, str],
    pictures: str,
    rules: Mapping[str, AnswerRule],
    instruction: str,
    source: str,
    synthesize: Callable[[int, int], None] | None,
) -> Task:
    def samples(split: SplitName) -> Split:
        if split not in prefixes:
            raise DataError(f"Unknown split '{split}'. {nearest(split, prefixes)}")
        return read_split(root, prefixes[split], lambda row: Image(root / pictures / f"{row['id']}.tif"), rules)

    return Task(
        kind="image",
        samples=samples,
        prompt=Prompt(tag="vqa", instruction=instruction),
        metric=VqaAccuracy(),
        # The files of a split are asked for when it is read: who only tests need not have the training set.
        needs=(root / pictures,),
        source=source,
        synthesize=synthesize,
    )


def _pick(option: str, value: str, choices: Mapping[Any, _T]) -> _T:
    if value not in choices:
        raise PluginError(f"Unknown {option} '{value}'. {nearest(value, choices)}")
    return choices[value]


def _synthesize(root: Path, size: int, seed: int) -> None:
    from unirs_tasks.synth.rsvqa import write

    write(root, size, seed)
