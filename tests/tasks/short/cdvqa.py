"""CDVQA: questions about changes between two aerial images."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from unirs import Pair, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import VqaAccuracy
from unirs.tasks import field, pick, read_json_list, texts

COVERS = ("NVG_surface", "buildings", "low_vegetation", "playgrounds", "trees", "water")
RATIOS = ("0", *(f"{low}_to_{low + 10}" for low in range(0, 100, 10)))
YES_NO: tuple[str, ...] = ("yes", "no")
CHOICES = dict.fromkeys(("change_or_not", "increase_or_not", "decrease_or_not"), YES_NO)
CHOICES |= dict.fromkeys(("change_to_what", "largest_change", "smallest_change"), COVERS)
CHOICES |= dict.fromkeys(("change_ratio", "change_ratio_types"), RATIOS)


def build(root: Path, test_split: str = "test") -> Task:
    test = pick("test_split", test_split, {"test": "Test", "test2": "Test2"})
    prefixes = {"train": "Train", "val": "Val", "test": test}

    def active_rows(split: str, name: str) -> dict[int, tuple[str, dict[str, Any]]]:
        path = root / f"{prefixes[split]}_{name}.json"
        rows = ((f"{path}, row {number}", row.value) for number, row in enumerate(read_json_list(path, name)))
        return {field(row, "id", int, where): (where, row) for where, row in rows if row.get("active", True)}

    def samples(split: str) -> TaskSplit:
        answers, images = active_rows(split, "answers"), active_rows(split, "images")
        files = {key: field(row, "file_name", str, where) for key, (where, row) in sorted(images.items())}
        turns: defaultdict[str, list[Turn]] = defaultdict(list)
        for key, (where, row) in sorted(active_rows(split, "questions").items()):
            category, question = texts(row, where, "type", "question")
            ids: list[int] = field(row, "answers_ids", list, where)
            if not ids or ids[0] not in answers or row.get("img_id") not in files:
                raise DataError(f"{where}: its answer or its image is not active. Download all files again.")
            there, answer = answers[ids[0]]
            text = in_words(field(answer, "answer", str, there))
            turns[files[row["img_id"]]].append(Turn(str(key), (text,), {"question": question}, category=category))
        pairs = {file: Pair(root / "im1" / file, root / "im2" / file) for file in turns}
        # A pair is listed several times with some of its questions: its lowest id gets all of them.
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
