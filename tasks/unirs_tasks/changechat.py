"""ChangeChat-105k: captions of changes and five types of questions about LEVIR-CC's pairs.

Source: "DeltaVLM: Interactive Remote Sensing Image Change Analysis via Instruction-guided Difference Perception", 2025.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from msgspec import Struct

from unirs import Pair, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.errors import DataError
from unirs.metrics import BinaryQuestions, ByCategory, CaptionMetrics, CountError, GridLocations, Prediction, Scorer
from unirs.tasks import SplitName, held_out, parse_row, pick, read_json_list
from unirs_tasks._shared import Utterance, utterance_texts

Questions = Literal["caption", "binary", "count", "location", "open", "conversation"]
_CLOSED: Mapping[str, Scorer] = {
    "binary": BinaryQuestions(),
    "count": CountError(("road", "building")),
    "location": GridLocations(),
}
_WORDING: Mapping[str, re.Pattern[str]] = {
    "caption": re.compile(r"briefly describe the changes", re.IGNORECASE),
    "binary": re.compile(r"answer (with )?yes or no", re.IGNORECASE),
    "count": re.compile(r"how many roads and buildings|count the number of roads? and buildings?", re.IGNORECASE),
    "location": re.compile(r"3 ?[x*] ?3 grid", re.IGNORECASE),
}


class _Row(Struct):
    image: tuple[str, str] | None = None
    image_A: str | None = None  # noqa: N815 (a name in the file)
    image_B: str | None = None  # noqa: N815
    changeflag: Literal[0, 1] | None = None
    captions: list[str] = []
    conversations: list[Utterance] = []


def build(root: Path, questions: Sequence[Questions] = get_args(Questions), meteor: bool = True) -> Task:
    """ChangeChat-105k: 87,935 training and 17,172 test questions about pairs of 256x256 pixels.

    All rows of a pair are one sample, and its captions one turn, scored against all of them. The wording of a question
    determines its type; those without a fixed one are `open`. Turns of a row with several are `conversation`s, with the
    row's earlier questions and answers in the prompt. `open` and `conversation` are scored as captions.

    Args:
        root: folder with `images/`, and JSON files in `annotations/` whose names have the split as a word, such as
            `changechat_105k_test_count.json` as published, or `train.json`. Without files of `val`, it is a tenth of
            the training pairs, selected by hash.
        questions: types to use; the others are excluded.
        meteor: whether tests compute METEOR, which takes Java and seconds.
    """
    captions = CaptionMetrics(meteor)
    scorers: Mapping[str, Scorer] = {"caption": captions, **_CLOSED, "open": captions, "conversation": captions}
    chosen = {str(name): pick("questions", name, scorers) for name in questions}
    return Task(
        modality="pair",
        load_split=partial(_read_split, root, frozenset(chosen)),
        prompt=PromptTemplate(task_tag="change", instruction="{question}"),
        metric=ByCategory(chosen),
        required_paths=(root / "annotations", root / "images"),
        download_hint="ChangeChat-105k, https://github.com/hanlinwu/DeltaVLM",
    )


def _read_split(root: Path, questions: Collection[str], split: SplitName) -> TaskSplit:
    pairs: dict[tuple[str, str], dict[str, Turn]] = {}
    excluded: Counter[str] = Counter()
    files = [(path, path.stem.split("_")) for path in sorted((root / "annotations").glob("*.json"))]
    holds_out = split != "test" and not any("val" in words for _, words in files)
    for path in (path for path, words in files if ("train" if holds_out else split) in words):
        for index, (value, _, _) in enumerate(read_json_list(path)):
            where = f"{path}, row {index}"
            row = parse_row(value, _Row, where)
            before, after = row.image or (row.image_A, row.image_B)
            if not before or not after:
                raise DataError(f"{where} has no 'image' with two paths, nor 'image_A' and 'image_B'. Correct the row.")
            own = pairs.setdefault((before, after), {})
            for turn in _turns(row, f"{path.stem}-{index}", where):
                name = turn.category.partition("/")[0]
                # Captions of a pair, which may be rows of their own, are references of one turn.
                key = turn.prompt_fields["question"] if name == "caption" else turn.id
                if name not in questions:
                    excluded[name] += 1
                else:
                    own[key] = replace(turn, references=own[key].references + turn.references) if key in own else turn
    val = held_out({before for before, _ in pairs}, 0.1) if holds_out else ()
    samples = [
        Sample(before, Pair(root / "images" / before, root / "images" / after), tuple(own.values()))
        for (before, after), own in pairs.items()
        if own and (not holds_out or (before in val) == (split == "val"))
    ]
    if not samples:
        raise DataError(f"{root / 'annotations'} has no question for the split '{split}'. Download it again.")
    return TaskSplit(samples, excluded)


def _turns(row: _Row, key: str, where: str) -> Iterator[Turn]:
    """The turns of a row; checks that the metric of a closed question can score its answer."""
    suffix = "" if row.changeflag is None else ("/unchanged", "/changed")[row.changeflag]
    texts = utterance_texts(row.conversations, where)
    if not (texts or row.captions) or "" in row.captions:
        raise DataError(f"{where} has neither 'conversations' nor 'captions' to score against. Correct the row.")
    if row.captions:
        fields = {"question": "Please briefly describe the changes in these two images."}
        yield Turn(key, tuple(row.captions), fields, category=f"caption{suffix}")
    for start in range(0, len(texts), 2):
        question, answer = texts[start : start + 2]
        worded = next((name for name, wording in _WORDING.items() if wording.search(question)), "open")
        name = "conversation" if len(texts) > 2 else worded
        if name in _CLOSED:
            _CLOSED[name].evaluate([Prediction(where, "", (), "", question, answer, (answer,))])
        prompt = "\n".join(texts[: start + 1])
        yield Turn(f"{key}-{start // 2}", (answer,), {"question": prompt}, category=name + suffix)
