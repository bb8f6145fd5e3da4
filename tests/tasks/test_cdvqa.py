import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from unirs_tasks.cdvqa import build

from unirs.errors import DataError, PluginError
from unirs.tasks.media import Pair

CDVQA = Path(__file__).parents[3] / "shared" / "data" / "cdvqa"


def write(root: Path, prefix: str = "Val", **image: object) -> Path:
    """Two rows of one pair, each with a question."""
    questions = [
        {"id": 4, "img_id": 9, "type": "change_to_what", "question": "To what?", "answers_ids": [0], "active": True},
        {"id": 3, "img_id": 8, "type": "change_ratio", "question": "How much?", "answers_ids": [1], "active": True},
    ]
    answers = [{"id": 0, "question_id": 4, "answer": "NVG_surface"}, {"id": 1, "question_id": 3, "answer": "10_to_20"}]
    images = [{"id": 9, "file_name": "1.png", **image}, {"id": 8, "file_name": "1.png"}]
    for name, rows in {"questions": questions, "answers": answers, "images": images}.items():
        (root / f"{prefix}_{name}.json").write_text(json.dumps({name: rows}))
    return root


def test_all_questions_about_a_pair_are_one_sample(tmp_path: Path) -> None:
    task = build(write(tmp_path))
    (sample,) = task.load_split("val")
    assert sample.media == Pair(tmp_path / "im1" / "1.png", tmp_path / "im2" / "1.png")
    assert sample.id == "8"
    assert [(turn.id, turn.category, turn.references) for turn in sample.turns] == [
        ("3", "change_ratio", ("10 to 20",)),
        ("4", "change_to_what", ("non-vegetated ground surface",)),
    ]
    assert task.prompt(sample.turns[0].prompt_fields) == (
        "[vqa] How much?\nAnswer the question using a single word or phrase."
    )
    assert (task.modality, task.required_paths) == ("pair", (tmp_path / "im1", tmp_path / "im2"))


def test_own_protocol_writes_answers_as_the_files_do(tmp_path: Path) -> None:
    task = build(write(tmp_path), "cdvqa")
    (sample,) = task.load_split("val")
    assert [turn.references for turn in sample.turns] == [("10_to_20",), ("NVG_surface",)]
    assert task.prompt(sample.turns[0].prompt_fields) == "[vqa] How much?"
    assert [turn.references[0] in task.choices_for(turn.category) for turn in sample.turns] == [True, True]


def test_test_split_option(tmp_path: Path) -> None:
    write(tmp_path, "Test2")
    assert len(build(tmp_path, test_split="test2").load_split("test")) == 1
    with pytest.raises(DataError, match=r"Test_questions\.json does not exist"):
        build(tmp_path).load_split("test")


def test_wrong_options_and_rows(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"Unknown protocol 'rsvqa'\. Did you mean 'cdvqa'"):
        build(tmp_path, "rsvqa")  # type: ignore[arg-type]
    with pytest.raises(PluginError, match=r"Unknown test_split 'test3'"):
        build(tmp_path, test_split="test3")  # type: ignore[arg-type]
    write(tmp_path, file_name=3)
    with pytest.raises(DataError, match=r"Val_images\.json, row 0: Expected `str`, got `int` - at `\$\.file_name`"):
        build(tmp_path).load_split("val")


@pytest.mark.skipif(not CDVQA.is_dir(), reason="the CDVQA annotations are not beside the checkout")
@pytest.mark.parametrize("protocol", ["vlm", "cdvqa"])
def test_reads_all_real_rows(protocol: str) -> None:
    task = build(CDVQA, protocol)  # type: ignore[arg-type]
    split = task.load_split("val")
    turns = {turn.id: (sample, turn) for sample in split for turn in sample.turns}
    assert (len(split), len(turns), split.num_excluded) == (400, 16_441, {})
    rows: dict[str, list[dict[str, Any]]] = {
        name: json.loads((CDVQA / f"Val_{name}.json").read_text())[name] for name in ("questions", "answers", "images")
    }
    answers = {row["id"]: row["answer"] for row in rows["answers"]}
    files = {row["id"]: row["file_name"] for row in rows["images"]}
    for row in rows["questions"]:
        sample, turn = turns[str(row["id"])]
        assert sample.media.sources[0] == str(CDVQA / "im1" / files[row["img_id"]])
        assert (turn.prompt_fields["question"], turn.category) == (row["question"], row["type"])
        if protocol == "cdvqa":
            assert turn.references == (answers[row["answers_ids"][0]],)
        assert turn.references[0] in task.choices_for(turn.category)
    assert Counter(turn.category for _, turn in turns.values())["change_or_not"] == 5751
