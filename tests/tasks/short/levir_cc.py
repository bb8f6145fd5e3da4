"""LEVIR-CC: what changed between two aerial images, in one sentence."""

from pathlib import Path
from typing import TypedDict

from unirs import Pair, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.metrics import CaptionMetrics
from unirs.tasks import parse_row, read_json_list

Sentence = TypedDict("Sentence", {"tokens": list[str]})
Row = TypedDict("Row", {"split": str, "filepath": str, "filename": str, "changeflag": int, "sentences": list[Sentence]})


def build(root: Path) -> Task:
    file, images = root / "LevirCCcaptions.json", root / "images"

    def samples(split: str) -> TaskSplit:
        lines = enumerate(read_json_list(file, "images"))
        rows = [parse_row(line.value, Row, f"{file}, row {number}") for number, line in lines]
        return TaskSplit([sample(row) for row in rows if row["split"] == split])

    def sample(row: Row) -> Sample:
        folder, name = row["filepath"], row["filename"]
        before, after = (images / folder / time / name for time in "AB")
        captions = tuple(" ".join(sentence["tokens"]) for sentence in row["sentences"])
        category = "changed" if row["changeflag"] else "unchanged"
        return Sample(f"{folder}/{name}", Pair(before, after), (Turn(f"{folder}/{name}", captions, category=category),))

    return Task(
        modality="pair",
        load_split=samples,
        prompt=PromptTemplate(
            "change", "Please briefly describe the main changes between the above two remote sensing images."
        ),
        metric=CaptionMetrics(),
        required_paths=(file, images),
        download_hint="https://github.com/Chen-Yang-Liu/LEVIR-CC-Dataset",
    )
