"""Change captions. A line of <split>.jsonl: {"id": …, "images": [before, after], "references": […], "category": …}"""

from pathlib import Path
from typing import TypedDict

from unirs import Pair, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.metrics import CaptionMetrics
from unirs.tasks import parse_row, read_json_lines

Line = TypedDict("Line", {"id": str, "images": tuple[str, str], "references": tuple[str, ...], "category": str})


def build(root: Path) -> Task:
    def sample(where: str, row: object) -> Sample:
        line = parse_row(row, Line, where)
        before, after = (root / path for path in line["images"])
        turn = Turn(line["id"], line["references"], category=line["category"])
        return Sample(line["id"], Pair(before, after), (turn,))

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
