"""RSVQA, low resolution: questions about satellite images. Its own protocol evaluates counts, as ranges."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import TypedDict, TypeVar

from unirs import Image, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import VqaAccuracy
from unirs.tasks import parse_row, pick, read_json_list

RANGES = {"0": 0, "between 0 and 10": 10, "between 10 and 100": 100, "between 100 and 1000": 1000}
YES_NO = ("yes", "no")
CLOSED: dict[str, tuple[str, ...]] = {"presence": YES_NO, "comp": YES_NO, "rural_urban": ("rural", "urban")}
SINGLE_WORD = "{question}\nAnswer the question using a single word or phrase."
Row = TypeVar("Row")
Question = TypedDict("Question", {"img_id": int, "type": str, "question": str, "answers_ids": list[int]})
Answer = TypedDict("Answer", {"answer": str})


def build(root: Path, protocol: str = "vlm") -> Task:
    protocols = {"vlm": (SINGLE_WORD, CLOSED), "rsvqa": ("{question}", CLOSED | {"count": (*RANGES, "more than 1000")})}
    instruction, choices = pick("protocol", protocol, protocols)

    def samples(split: str) -> TaskSplit:
        answers = active_rows(root, split, "answers", Answer)
        turns: defaultdict[int, list[Turn]] = defaultdict(list)
        excluded: Counter[str] = Counter()
        for key, row in sorted(active_rows(root, split, "questions", Question).items()):
            if row["type"] not in choices:
                excluded[row["type"]] += 1
                continue
            ids, fields = row["answers_ids"], {"question": row["question"]}
            if not ids or ids[0] not in answers:
                raise DataError(f"{split}, question {key}: none of the answers {ids} is active. Download both files.")
            answer = in_words(answers[ids[0]]["answer"])
            turns[row["img_id"]].append(Turn(str(key), (answer,), fields, category=row["type"]))
        found = [Sample(str(key), Image(root / "Images_LR" / f"{key}.tif"), tuple(turns[key])) for key in sorted(turns)]
        return TaskSplit(found, excluded)

    return Task(
        modality="image",
        load_split=samples,
        prompt=PromptTemplate("vqa", instruction),
        metric=VqaAccuracy(),
        choices=choices,
        required_paths=(root / "Images_LR",),
        download_hint="https://zenodo.org/records/6344334",
    )


def active_rows(root: Path, split: str, name: str, schema: type[Row]) -> dict[int, Row]:
    path = root / f"LR_split_{split}_{name}.json"
    rows = ((f"{path}, row {number}", row.value) for number, row in enumerate(read_json_list(path, name)))
    return {row["id"]: parse_row(row, schema, where) for where, row in rows if row.get("active", True)}


def in_words(answer: str) -> str:
    ranges = (text for text, most in RANGES.items() if int(answer) <= most)
    return next(ranges, "more than 1000") if answer.isdecimal() else answer
