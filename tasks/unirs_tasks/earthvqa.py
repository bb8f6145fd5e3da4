"""EarthVQA: questions for city planning, about objects and their relations.

Source: "EarthVQA: Towards Queryable Earth via Relational Reasoning-Based Remote Sensing Visual Question Answering",
AAAI 2024.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from msgspec import Struct

from unirs import Image, Task, TaskSplit, Turn
from unirs.errors import DataError, did_you_mean
from unirs.metrics import CountError, Evaluation, Prediction, Scorer, VqaAccuracy
from unirs.tasks import SplitName, check_split, parse_row, pick, read_json_lists
from unirs_tasks._shared import check_not_empty, group_turns
from unirs_tasks.rsvqa_schema import BARE

CATEGORIES = (
    "Basic Judging",
    "Reasoning-based Judging",
    "Basic Counting",
    "Reasoning-based Counting",
    "Object Situation Analysis",
    "Comprehensive Analysis",
)
"""The six types of questions, in the paper's order."""


class _Row(Struct):
    type: str
    question: str
    answer: str | int | None = None


@dataclass(frozen=True)
class EarthVqaScores(Scorer):
    """Exact match, overall and by type of question, and `mae` and `rmse` of the questions whose answer is a number.

    `rmse` is in units of the count. The public code computes it over indices in its list of answers, which also holds
    ranges of percent, so that its numbers differ.
    """

    name = "earthvqa"
    category_is_given = True
    is_exact = True

    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:
        """Scores rows; `slow` has no effect."""
        import numpy as np

        evaluation = VqaAccuracy(CATEGORIES).evaluate(rows, slow=slow)
        counts = [index for index, row in enumerate(rows) if row.references[0].isdecimal()]
        statistics = dict(evaluation.statistics)
        if counts:
            errors = CountError().evaluate([rows[index] for index in counts]).statistics
            for name in ("mae", "rmse"):
                sums = np.zeros((len(rows), errors[name].row_sums.shape[1]))
                sums[counts] = errors[name].row_sums
                statistics[name] = replace(errors[name], row_sums=sums)
        return replace(evaluation, statistics=statistics)


def build(root: Path, test_split: Literal["test", "val"] = "test") -> Task:
    """EarthVQA: 6,000 images of 1024x1024 pixels at 0.3 m, 208,593 questions of six types.

    Args:
        root: folder with `{Train,Val,Test}_QA.json` and `{Train,Val,Test}/images_png/`.
        test_split: the split to test on; `val` if the answers of the test set, which belong to a challenge, are
            missing. There is no validation then.

    Raises:
        PluginError: the split is unknown.
    """
    names: Mapping[SplitName, str] = pick(
        "test_split",
        test_split,
        {"test": {"train": "Train", "val": "Val", "test": "Test"}, "val": {"train": "Train", "test": "Val"}},
    )
    return Task(
        modality="image",
        load_split=partial(_read_split, root, names),
        prompt=BARE,
        metric=EarthVqaScores(),
        required_paths=tuple(
            path for name in names.values() for path in (root / f"{name}_QA.json", root / name / "images_png")
        ),
        download_hint="EarthVQA, https://github.com/Junjue-Wang/EarthVQA",
        splits=tuple(names),
    )


def _read_split(root: Path, names: Mapping[SplitName, str], split: SplitName) -> TaskSplit:
    check_split(split, names)
    path = root / f"{names[split]}_QA.json"
    samples = group_turns(_turns(path), lambda name: Image(root / names[split] / "images_png" / name))
    check_not_empty(samples, path, split)
    return TaskSplit(samples)


def _turns(path: Path) -> Iterator[tuple[str, Turn]]:
    for index, (image, (value, _, _)) in enumerate(read_json_lists(path)):
        where = f"{path}, row {index} ({image})"
        # The public code reads the values by position, so that the keys may be capitalized.
        fields = {key.lower(): each for key, each in value.items()} if isinstance(value, dict) else value
        row = parse_row(fields, _Row, where)
        if row.type not in CATEGORIES:
            raise DataError(f"{where}: '{row.type}' is no type of question. {did_you_mean(row.type, CATEGORIES)}")
        if row.answer is None:
            raise DataError(f"{where} has no answer. Set 'test_split: val' if the test set's answers are withheld.")
        answer = str(row.answer)
        yield image, Turn(str(index), (answer,), {"question": row.question}, category=row.type)
