"""Change captions. A line of <split>.jsonl: {"id": …, "images": [before, after], "references": […], "category": …}"""

from pathlib import Path
from typing import Any

from unirs import Pair, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.metrics import CaptionMetrics
from unirs.tasks import field, read_json_lines, texts


def build(root: Path) -> Task:
    def sample(where: str, row: dict[str, Any]) -> Sample:
        key, category = texts(row, where, "id", "category")
        before, after = (root / path for path in field(row, "images", list, where))
        return Sample(
            key, Pair(before, after), (Turn(key, tuple(field(row, "references", list, where)), category=category),)
        )

    def samples(split: str) -> TaskSplit:
        return TaskSplit([sample(*line) for line in read_json_lines(root / f"{split}.jsonl")])

    return Task(
        modality="pair",
        load_split=samples,
        prompt=PromptTemplate("change", "What changed?"),
        metric=CaptionMetrics(),
        required_paths=tuple(root / f"{split}.jsonl" for split in ("train", "val", "test")),
        download_hint="(say where to get the data)",
    )
