"""CRSVQA: questions that people wrote about scenes. A tenth of the images is test, or a file defines the splits."""

import re
from pathlib import Path

from unirs import Image, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import VqaAccuracy
from unirs.tasks import FileSplits, files_of

WORDS = {"scene": {"scene", "theme"}, "object": {"many", "object", "shape"}}


def build(root: Path, split_file: Path | None = None, seed: int = 0) -> Task:
    def samples(split: str) -> TaskSplit:
        names = [path.stem for path in files_of(root / "text", {".txt"}, "a .txt file")]
        return TaskSplit([sample(name) for name in FileSplits(split_file, 0.1, 0.1, seed).select(split, [names])])

    def sample(name: str) -> Sample:
        path = root / "text" / f"{name}.txt"
        lines = path.read_text(encoding="utf-8-sig").lower().rstrip().splitlines()
        if not lines or len(lines) % 2:
            raise DataError(f"{path} holds {len(lines)} lines. It must hold a question and an answer in turn.")
        pairs = enumerate(zip(lines[::2], lines[1::2], strict=True))
        turns = tuple(turn(f"{name}-{number}", question, answer) for number, (question, answer) in pairs)
        return Sample(name, Image(root / "image" / f"{name}.png"), turns)

    return Task(
        modality="image",
        load_split=samples,
        prompt=PromptTemplate("vqa", "{question}\nAnswer the question using a single word or phrase."),
        metric=VqaAccuracy(),
        required_paths=(root / "image", root / "text"),
        download_hint="https://github.com/MeimeiZhang-data/MQVQA",
    )


def turn(key: str, question: str, answer: str) -> Turn:
    # Some questions end with a full-width question mark, some with none.
    question = re.split(r"[?\N{FULLWIDTH QUESTION MARK}]", question)[0].strip()
    category = next((name for name, words in WORDS.items() if words.intersection(question.split())), "relation")
    return Turn(key, (answer.strip(),), {"question": f"{question}?"}, category=category)
