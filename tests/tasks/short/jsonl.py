"""Change captions. A line of <split>.jsonl: {"id": …, "images": [before, after], "references": […], "kind": …}"""

from pathlib import Path
from typing import Any

from unirs import Pair, Prompt, Sample, Split, Task, Turn
from unirs.files import read_json_lines
from unirs.metrics.caption import CaptionMetrics
from unirs.rows import field, texts


def build(root: Path) -> Task:
    def sample(where: str, row: dict[str, Any]) -> Sample:
        key, kind = texts(row, where, "id", "kind")
        before, after = (root / path for path in field(row, "images", list, where))
        return Sample(key, Pair(before, after), (Turn(key, tuple(field(row, "references", list, where)), kind=kind),))

    def samples(split: str) -> Split:
        return Split([sample(*line) for line in read_json_lines(root / f"{split}.jsonl")])

    return Task(
        kind="pair",
        samples=samples,
        prompt=Prompt("change", "What changed?"),
        metric=CaptionMetrics(),
        needs=tuple(root / f"{split}.jsonl" for split in ("train", "val", "test")),
        source="(say where to get the data)",
    )
