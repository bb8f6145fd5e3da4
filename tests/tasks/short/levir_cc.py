"""LEVIR-CC: one sentence about the changes between two aerial images."""

from pathlib import Path
from typing import Any

from unirs import Pair, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.metrics import CaptionMetrics
from unirs.tasks import field, read_json_list, texts


def build(root: Path) -> Task:
    file, images = root / "LevirCCcaptions.json", root / "images"

    def samples(split: str) -> TaskSplit:
        rows = ((f"{file}, row {number}", row.value) for number, row in enumerate(read_json_list(file, "images")))
        return TaskSplit([sample(row, where) for where, row in rows if field(row, "split", str, where) == split])

    def sample(row: dict[str, Any], where: str) -> Sample:
        folder, name = texts(row, where, "filepath", "filename")
        before, after = (images / folder / time / name for time in "AB")
        sentences: list[dict[str, Any]] = field(row, "sentences", list, where)
        captions = tuple(" ".join(field(sentence, "tokens", list, where)) for sentence in sentences)
        category = "changed" if field(row, "changeflag", int, where) else "unchanged"
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
