"""CDVQA: questions about what changed between two aerial images."""

from collections import defaultdict
from pathlib import Path
from typing import TypedDict, TypeVar

from unirs import Pair, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import VqaAccuracy
from unirs.tasks import parse_row, pick, read_json_list

COVERS = ("NVG_surface", "buildings", "low_vegetation", "playgrounds", "trees", "water")
RATIOS = ("0", *(f"{low}_to_{low + 10}" for low in range(0, 100, 10)))
YES_NO: tuple[str, ...] = ("yes", "no")
CHOICES = dict.fromkeys(("change_or_not", "increase_or_not", "decrease_or_not"), YES_NO)
CHOICES |= dict.fromkeys(("change_to_what", "largest_change", "smallest_change"), COVERS)
CHOICES |= dict.fromkeys(("change_ratio", "change_ratio_types"), RATIOS)

Row = TypeVar("Row")
Question = TypedDict("Question", {"id": int, "img_id": int, "type": str, "question": str, "answers_ids": list[int]})
Answer = TypedDict("Answer", {"answer": str})
Image = TypedDict("Image", {"file_name": str})


def build(root: Path, test_split: str = "test") -> Task:
    test = pick("test_split", test_split, {"test": "Test", "test2": "Test2"})
    prefixes = {"train": "Train", "val": "Val", "test": test}

    def active_rows(split: str, name: str, schema: type[Row]) -> dict[int, Row]:
        path = root / f"{prefixes[split]}_{name}.json"
        rows = ((f"{path}, row {number}", row.value) for number, row in enumerate(read_json_list(path, name)))
        return {row["id"]: parse_row(row, schema, where) for where, row in rows if row.get("active", True)}

    def samples(split: str) -> TaskSplit:
        answers, images = active_rows(split, "answers", Answer), active_rows(split, "images", Image)
        files = {key: row["file_name"] for key, row in sorted(images.items())}
        turns: defaultdict[str, list[Turn]] = defaultdict(list)
        for key, row in sorted(active_rows(split, "questions", Question).items()):
            ids, fields = row["answers_ids"], {"question": row["question"]}
            if not ids or ids[0] not in answers or row["img_id"] not in files:
                raise DataError(f"{split}, question {key}: answer or image is not active. Download all files again.")
            text = in_words(answers[ids[0]]["answer"])
            turns[files[row["img_id"]]].append(Turn(str(key), (text,), fields, category=row["type"]))
        pairs = {file: Pair(root / "im1" / file, root / "im2" / file) for file in turns}
        # A pair is listed several times, with some of its questions each: all go to its lowest id.
        return TaskSplit([Sample(str(key), pairs[f], tuple(turns.pop(f))) for key, f in files.items() if f in turns])

    return Task(
        modality="pair",
        load_split=samples,
        prompt=PromptTemplate("vqa", "{question}\nAnswer the question using a single word or phrase."),
        metric=VqaAccuracy(),
        choices={category: tuple(map(in_words, choices)) for category, choices in CHOICES.items()},
        required_paths=(root / "im1", root / "im2"),
        download_hint="https://github.com/YZHJessica/CDVQA",
    )


def in_words(answer: str) -> str:
    return answer.replace("NVG", "non-vegetated ground").replace("_", " ")
