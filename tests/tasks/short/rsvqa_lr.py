"""RSVQA, low resolution: questions about satellite images. Its own protocol has counts, as ranges."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from unirs import Image, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import VqaAccuracy
from unirs.tasks import field, pick, read_json_list, texts

RANGES = {"0": 0, "between 0 and 10": 10, "between 10 and 100": 100, "between 100 and 1000": 1000}
YES_NO = ("yes", "no")
CLOSED: dict[str, tuple[str, ...]] = {"presence": YES_NO, "comp": YES_NO, "rural_urban": ("rural", "urban")}
SINGLE_WORD = "{question}\nAnswer the question using a single word or phrase."


def build(root: Path, protocol: str = "vlm") -> Task:
    protocols = {"vlm": (SINGLE_WORD, CLOSED), "rsvqa": ("{question}", CLOSED | {"count": (*RANGES, "more than 1000")})}
    instruction, choices = pick("protocol", protocol, protocols)

    def samples(split: str) -> TaskSplit:
        answers, questions = (active_rows(root, split, name) for name in ("answers", "questions"))
        turns: defaultdict[int, list[Turn]] = defaultdict(list)
        dropped: Counter[str] = Counter()
        for key, (where, row) in sorted(questions.items()):
            category, question = texts(row, where, "type", "question")
            if category not in choices:
                dropped[category] += 1
                continue
            ids: list[int] = field(row, "answers_ids", list, where)
            if not ids or ids[0] not in answers:
                raise DataError(f"{where}: none of the answers {ids} is active. Download both files again.")
            there, answer = answers[ids[0]]
            text = in_words(field(answer, "answer", str, there))
            turn = Turn(str(key), (text,), {"question": question}, category=category)
            turns[field(row, "img_id", int, where)].append(turn)
        found = [Sample(str(key), Image(root / "Images_LR" / f"{key}.tif"), tuple(turns[key])) for key in sorted(turns)]
        return TaskSplit(found, dropped)

    return Task(
        modality="image",
        load_split=samples,
        prompt=PromptTemplate("vqa", instruction),
        metric=VqaAccuracy(),
        choices=choices,
        required_paths=(root / "Images_LR",),
        download_hint="https://zenodo.org/records/6344334",
    )


def active_rows(root: Path, split: str, name: str) -> dict[int, tuple[str, dict[str, Any]]]:
    path = root / f"LR_split_{split}_{name}.json"
    rows = ((f"{path}, row {number}", row.value) for number, row in enumerate(read_json_list(path, name)))
    return {field(row, "id", int, where): (where, row) for where, row in rows if row.get("active", True)}


def in_words(answer: str) -> str:
    ranges = (text for text, most in RANGES.items() if int(answer) <= most)
    return next(ranges, "more than 1000") if answer.isdecimal() else answer
