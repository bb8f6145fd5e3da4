import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from unirs_tasks.lrs_vqa import build

from unirs.errors import DataError
from unirs.metrics.base import Prediction
from unirs.tasks.media import Image

REAL = Path(__file__).parents[3] / "shared" / "data" / "answers" / "lrs_vqa_merged.jsonl"
SUFFIX = "Answer the question using a single word or phrase."


def row(number: int, **fields: object) -> dict[str, Any]:
    return {
        "question_id": f"FAIR_{number}",
        "image": f"LRS_VQA/image/{number // 2}.tif",
        "category": ("count", "reasoning")[number % 2],
        "text": f"Is it {number}?\n {SUFFIX}",
        "ground_truth": "yes",
        "hbox": [1, 2, 3, 4],
        "image_size": [64, 64],
        **fields,
    }


def write(root: Path, rows: list[dict[str, Any]]) -> Path:
    (root / "LRS_VQA" / "image").mkdir(parents=True)
    (root / "LRS_VQA_merged.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    for number in range(2):
        PIL.Image.new("RGB", (64, 64), (90 * number, 90, 120)).save(root / "LRS_VQA" / "image" / f"{number}.tif")
    return root


def test_questions_by_image(tmp_path: Path) -> None:
    task = build(write(tmp_path, [row(number) for number in range(4)]))
    split = task.load_split("test")
    assert [(sample.media, len(sample.turns)) for sample in split] == [
        (Image(tmp_path / "LRS_VQA" / "image" / f"{number}.tif"), 2) for number in range(2)
    ]
    assert task.prompt(split[0].turns[1].prompt_fields) == f"[vqa] Is it 1?\n{SUFFIX}"
    assert split[0].turns[1].category == "reasoning"
    with pytest.raises(DataError, match="Unknown split 'train'"):
        task.load_split("train")


def test_check_and_scores(tmp_path: Path, cli: Callable[..., int]) -> None:
    write(tmp_path, [row(number) for number in range(4)])
    assert cli("tasks", "check", "lrs_vqa", "--root", tmp_path, "--sheet", tmp_path / "sheet.png") == 0
    task = build(tmp_path, "exact")
    rows = [
        Prediction(turn.id, "", sample.media.sources, turn.category, "", "Yes.", turn.references)
        for sample in task.load_split("test")
        for turn in sample.turns
    ]
    assert list(task.scorer.evaluate(rows).scores) == [1] * 4
    # The published rule keeps punctuation; equal answers need no WordNet.
    rows = [Prediction(one.id, "", one.media, one.category, "", "YES", one.references) for one in rows]
    assert list(build(tmp_path).scorer.evaluate(rows).scores) == [1] * 4


def test_bad_rows_are_named(tmp_path: Path) -> None:
    write(tmp_path, [row(0), row(1, ground_truth=3)])
    with pytest.raises(DataError, match=r"LRS_VQA_merged\.jsonl, line 2: Expected `str`, got `int`"):
        build(tmp_path).load_split("test")
    (tmp_path / "LRS_VQA_merged.jsonl").write_text("")
    with pytest.raises(DataError, match=r"LRS_VQA_merged\.jsonl has no rows of the split 'test'"):
        build(tmp_path).load_split("test")


def test_published_questions(tmp_path: Path) -> None:
    if not REAL.exists():
        pytest.skip("shared data are not present")
    (tmp_path / "LRS_VQA_merged.jsonl").write_bytes(REAL.read_bytes())
    split = build(tmp_path).load_split("test")
    turns = [turn for sample in split for turn in sample.turns]
    assert (len(split), len(turns)) == (1228, 7333)
    assert Counter(turn.category for turn in turns)["rural or urban"] == 1252
    assert {turn.prompt_fields["question"].rpartition("\n")[2] for turn in turns} == {SUFFIX}
