import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from unirs_tasks.rsvqa import build_hr, build_lr, quantize_area, quantize_count

from unirs.errors import DataError, MediaError, PluginError
from unirs.tasks.media import Image
from unirs.tasks.sample import Turn
from unirs.tasks.task import Task

Rows = dict[str, list[dict[str, Any]]]


def rows() -> Rows:
    """Three images, ids far from positions, rows in no order, inactive rows that hold only an id."""
    questions: list[dict[str, Any]] = [
        {"id": 0, "active": False},
        {"id": 31, "img_id": 12, "type": "rural_urban", "question": "Is it rural or urban?", "answers_ids": [94]},
        {"id": 9, "img_id": 5, "type": "comp", "question": "Are there more roads than farms?", "answers_ids": [91]},
        {"id": 30, "img_id": 12, "type": "presence", "question": "Is a road {present}?", "answers_ids": [92]},
        {"id": 8, "img_id": 5, "type": "count", "question": "How many roads are there?", "answers_ids": [90]},
        {"id": 40, "img_id": 3, "type": "count", "question": "How many farms are there?", "answers_ids": [93]},
    ]
    answers: list[dict[str, Any]] = [
        {"id": 94, "question_id": 31, "answer": "urban"},
        {"id": 90, "question_id": 8, "answer": "14"},
        {"id": 1, "active": False},
        {"id": 93, "question_id": 40, "answer": "0"},
        {"id": 92, "question_id": 30, "answer": "yes"},
        {"id": 91, "question_id": 9, "answer": "no"},
    ]
    images: list[dict[str, Any]] = [{"id": 12}, {"id": 7, "active": False}, {"id": 5}, {"id": 3}]
    content = {"questions": questions, "answers": answers, "images": images}
    return {name: [{"active": True, "date_added": 1.5, **row} for row in content[name]] for name in content}


def write(root: Path, content: Rows, prefix: str = "LR_split_train") -> None:
    for name, entries in content.items():
        (root / f"{prefix}_{name}.json").write_text(json.dumps({name: entries}))


def summary(task: Task, split: str = "train") -> dict[str, list[tuple[str, str, tuple[str, ...]]]]:
    samples = task.load_split(split)  # type: ignore[arg-type]
    return {sample.id: [(turn.id, turn.category, turn.references) for turn in sample.turns] for sample in samples}


def test_joins_by_id_and_orders_by_id(tmp_path: Path) -> None:
    write(tmp_path, rows())
    split = build_lr(tmp_path).load_split("train")
    assert [sample.id for sample in split] == ["5", "12"]
    assert [[turn.id for turn in sample.turns] for sample in split] == [["9"], ["30", "31"]]
    turn = split[1].turns[0]
    assert turn.prompt_fields == {"question": "Is a road {present}?"}
    assert (turn.category, turn.references, turn.targets) == ("presence", ("yes",), ("yes",))
    assert split[1].media == Image(tmp_path / "Images_LR" / "12.tif")


def test_row_order_does_not_matter(tmp_path: Path) -> None:
    write(tmp_path, rows())
    before = summary(build_lr(tmp_path, "rsvqa"))
    write(tmp_path, {name: entries[::-1] for name, entries in rows().items()})
    assert summary(build_lr(tmp_path, "rsvqa")) == before


def test_many_rows_are_joined_as_dictionaries_join_them(tmp_path: Path) -> None:
    chooser = np.random.default_rng(0)
    questions, answers, images = (chooser.choice(2**40, size=count, replace=False) for count in (900, 900, 70))
    content: Rows = {"questions": [], "answers": [], "images": [{"id": int(key)} for key in images]}
    expected: dict[int, dict[int, tuple[str, str, str]]] = {}
    for key, answer in zip(questions.tolist(), answers.tolist(), strict=True):
        image, category = int(chooser.choice(images)), str(chooser.choice(["presence", "comp", "count", "area"]))
        # More different questions than a byte can number; answers to several types.
        question, text = f"Question {chooser.integers(400)}?", f"{chooser.integers(30)}m2"
        row = {"id": key, "img_id": image, "type": category, "question": question, "answers_ids": [answer]}
        content["questions"].append(row)
        content["answers"].append({"id": answer, "question_id": key, "answer": text})
        written = quantize_area(text) if category == "area" else text
        expected.setdefault(image, {})[key] = category, question, written
    chooser.shuffle(content["answers"])
    write(tmp_path, content, "USGS_split_train")
    split = build_hr(tmp_path, "rsvqa").load_split("train")
    assert [sample.id for sample in split] == [str(image) for image in sorted(expected)]
    for sample in split:
        assert sample.media == Image(tmp_path / "Data" / f"{sample.id}.tif")
        of_image = sorted(expected[int(sample.id)].items())
        assert sample.turns == tuple(
            Turn(str(key), (answer,), {"question": question}, category=category)
            for key, (category, question, answer) in of_image
        )


def test_vlm_protocol_excludes_and_counts_count_questions(tmp_path: Path) -> None:
    write(tmp_path, rows())
    split = build_lr(tmp_path).load_split("train")
    assert split.num_excluded == {"count": 2}
    assert {turn.category for sample in split for turn in sample.turns} == {"presence", "comp", "rural_urban"}


def test_rsvqa_protocol_has_counts_as_ranges(tmp_path: Path) -> None:
    write(tmp_path, rows())
    assert summary(build_lr(tmp_path, "rsvqa")) == {
        "3": [("40", "count", ("0",))],
        "5": [("8", "count", ("between 10 and 100",)), ("9", "comp", ("no",))],
        "12": [("30", "presence", ("yes",)), ("31", "rural_urban", ("urban",))],
    }
    assert build_lr(tmp_path, "rsvqa").load_split("train").num_excluded == {}
    assert build_lr(tmp_path, "rsvqa").prompt({"question": "Is it urban?"}) == "[vqa] Is it urban?"


def test_hr_has_counts_as_numbers_and_areas_as_ranges(tmp_path: Path) -> None:
    content = rows()
    content["questions"][1]["type"] = "area"
    content["answers"][0]["answer"] = "57m2"
    write(tmp_path, content, "USGS_split_val")
    assert summary(build_hr(tmp_path, "rsvqa"), "val") == {
        "3": [("40", "count", ("0",))],
        "5": [("8", "count", ("14",)), ("9", "comp", ("no",))],
        "12": [("30", "presence", ("yes",)), ("31", "area", ("between 10m2 and 100m2",))],
    }
    split = build_hr(tmp_path).load_split("val")
    assert split.num_excluded == {"count": 2, "area": 1}
    assert split[0].media == Image(tmp_path / "Data" / "5.tif")


def test_hr_test_split_is_chosen(tmp_path: Path) -> None:
    write(tmp_path, rows() | {"questions": rows()["questions"][2:3]}, "USGS_split_test")
    write(tmp_path, rows() | {"questions": rows()["questions"][3:4]}, "USGS_split_test_phili")
    assert list(summary(build_hr(tmp_path), "test")) == ["5"]
    assert list(summary(build_hr(tmp_path, test_split="test_phili"), "test")) == ["12"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "0"),
        (1, "between 0 and 10"),
        (10, "between 0 and 10"),
        (11, "between 10 and 100"),
        (100, "between 10 and 100"),
        (101, "between 100 and 1000"),
        (1000, "between 100 and 1000"),
        (1001, "more than 1000"),
    ],
)
def test_bounds_of_ranges(number: int, expected: str) -> None:
    assert quantize_count(str(number)) == expected
    assert quantize_area(f"{number}m2") == " ".join(f"{w}m2" if w.isdigit() else w for w in expected.split())


@given(st.text())
@settings(deadline=None)
def test_only_numbers_become_ranges(text: str) -> None:
    if not text.isascii() or not text.isdigit():
        assert quantize_count(text) == text
    if not text.endswith("m2"):
        assert quantize_area(text) == text


def change(name: str, index: int, **values: object) -> Callable[[Rows], None]:
    return lambda content: content[name][index].update(values)


def without(name: str, index: int, key: str) -> Callable[[Rows], None]:
    return lambda content: content[name][index].__delitem__(key)


def remove(name: str, index: int) -> Callable[[Rows], None]:
    return lambda content: content[name].__delitem__(index)


def repeat(name: str, index: int) -> Callable[[Rows], None]:
    return lambda content: content[name].append(copy.deepcopy(content[name][index]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            change("questions", 1, answers_ids=[]),
            r"train_questions\.json, row 1: Expected `array` of length >= 1 - at `\$\.answers_ids`",
        ),
        (change("questions", 1, answers_ids=["94"]), r"row 1: Expected `int`, got `str` - at `\$\.answers_ids\[0\]`"),
        (change("questions", 1, answers_ids=94), r"row 1: Expected `array`, got `int` - at `\$\.answers_ids`"),
        (remove("answers", 0), r"question 31: answer 94 is not in LR_split_train_answers\.json"),
        (change("answers", 0, active=False), "question 31: answer 94 is not in .* not active"),
        (change("answers", 0, question_id=8), "question 31: answer 94 belongs to question 8"),
        (remove("images", 0), r"question 30: image 12 is not in LR_split_train_images\.json"),
        (change("images", 0, active=False), "question 30: image 12 is not in"),
        (change("questions", 1, type="rural_urbn"), "question 31: unknown question type 'rural_urbn'. Did you mean"),
        (without("questions", 1, "type"), "row 1: Object missing required field `type`"),
        (without("questions", 1, "question"), "row 1: Object missing required field `question`"),
        (without("questions", 1, "img_id"), "row 1: Object missing required field `img_id`"),
        (without("questions", 1, "answers_ids"), "row 1: Object missing required field `answers_ids`"),
        (without("questions", 1, "id"), r"train_questions\.json, row 1: Object missing required field `id`"),
        (without("answers", 0, "answer"), r"train_answers\.json, row 0: Object missing required field `answer`"),
        (without("answers", 0, "id"), r"train_answers\.json, row 0: Object missing required field `id`"),
        (change("answers", 0, answer=14), r"answers\.json, row 0: Expected `str`, got `int` - at `\$\.answer`"),
        (change("questions", 1, id="31"), r"row 1: Expected `int`, got `str` - at `\$\.id`"),
        (change("questions", 1, id=2**63), r"row 1: Expected `int` <= 9223372036854775807 - at `\$\.id`"),
        (change("images", 0, id=-(10**20)), r"images\.json, row 0: Expected `int` >= -9223372036854775808"),
        (change("questions", 1, img_id=10**20), r"row 1: Expected `int` <= 9223372036854775807 - at `\$\.img_id`"),
        (change("questions", 1, question="a \ud800?"), "train_questions.json, value in line 1: .* a lone surrogate"),
        (change("questions", 1, id=True), r"row 1: Expected `int`, got `bool` - at `\$\.id`"),
        (repeat("questions", 1), r"train_questions\.json has two active rows with the id 31"),
        (repeat("answers", 0), r"train_answers\.json has two active rows with the id 94"),
        (repeat("images", 0), r"train_images\.json has two active rows with the id 12"),
    ],
)
def test_a_bad_row_is_an_error_that_names_file_and_row(
    tmp_path: Path, damage: Callable[[Rows], None], message: str
) -> None:
    content = rows()
    damage(content)
    write(tmp_path, content)
    with pytest.raises(DataError, match=message):
        build_lr(tmp_path).load_split("train")


@pytest.mark.parametrize("text", ['{"rows": []}', "[]", '{"questions": {"rows": 1}}', "3"])
def test_a_file_without_its_list_is_an_error(tmp_path: Path, text: str) -> None:
    write(tmp_path, rows())
    (tmp_path / "LR_split_train_questions.json").write_text(text)
    with pytest.raises(DataError, match=r"train_questions\.json has no list 'questions'"):
        build_lr(tmp_path).load_split("train")


@pytest.mark.parametrize("name", ["questions", "answers", "images"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, rows())
    (tmp_path / f"LR_split_train_{name}.json").unlink()
    with pytest.raises(DataError, match=rf"LR_split_train_{name}\.json does not exist"):
        build_lr(tmp_path).load_split("train")


def test_row_that_is_no_object(tmp_path: Path) -> None:
    write(tmp_path, rows())
    (tmp_path / "LR_split_train_images.json").write_text('{"images": [5]}')
    with pytest.raises(DataError, match=r"train_images\.json, row 0: Expected `object`, got `int`"):
        build_lr(tmp_path).load_split("train")


def test_unknown_split_and_options(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Unknown split 'trian'\. Did you mean 'train'"):
        build_lr(tmp_path).load_split("trian")  # type: ignore[arg-type]
    with pytest.raises(PluginError, match=r"Unknown protocol 'vml'\. Did you mean 'vlm'"):
        build_lr(tmp_path, "vml")  # type: ignore[arg-type]
    with pytest.raises(PluginError, match=r"Unknown test_split 'test_phil'\. Did you mean 'test_phili'"):
        build_hr(tmp_path, test_split="test_phil")  # type: ignore[arg-type]


def test_images_are_read_only_by_load_frames(tmp_path: Path) -> None:
    write(tmp_path, rows())
    (tmp_path / "Images_LR").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(tmp_path / "Images_LR" / "5.tif")
    first, second = build_lr(tmp_path).load_split("train")
    assert np.array_equal(first.media.load_frames((256, 256))[0].permute(1, 2, 0).numpy(), pixels)
    with pytest.raises(MediaError, match=r"12\.tif does not exist"):
        second.media.load_frames((256, 256))


def test_required_paths_and_download_hint(tmp_path: Path) -> None:
    task = build_lr(tmp_path)
    assert (task.modality, task.required_paths) == ("image", (tmp_path / "Images_LR",))
    assert "zenodo.org/records/6344334" in task.download_hint
    assert "zenodo.org/records/6344367" in build_hr(tmp_path).download_hint
    assert task.prompt.task_tag == "vqa"
    assert (
        task.prompt.instruction.format(question="Is it {rural}?")
        == "Is it {rural}?\nAnswer the question using a single word or phrase."
    )


def test_reads_its_synthetic_data(tmp_path: Path) -> None:
    task = build_lr(tmp_path, "rsvqa")
    assert task.synthesize is not None
    task.synthesize(2, 0)
    assert all(path.exists() for path in task.required_paths)
    splits = [task.load_split("train"), task.load_split("val"), task.load_split("test")]
    assert [len(split) for split in splits] == [2, 8, 8]
    assert {turn.category for split in splits for sample in split for turn in sample.turns} == {
        "presence",
        "comp",
        "rural_urban",
        "count",
    }
    assert all(sample.media.load_frames((256, 256)).shape == (1, 3, 256, 256) for sample in splits[0])


def test_building_tasks_imports_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from unirs import plugins; group = 'unirs.tasks';"
        "[plugins.create(group, {'name': name, 'root': Path('x')}) for name in plugins.list_plugins(group)];"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_large_files_are_read_with_little_memory(tmp_path: Path) -> None:
    count, num_images = 100_000, 2_000
    rows: dict[str, Callable[[int], dict[str, Any]]] = {
        "questions": lambda i: {
            "id": i,
            "img_id": i % num_images,
            "type": "presence",
            "question": f"Is there road number {i % 500}?",
            "answers_ids": [i],
        },
        "answers": lambda i: {"id": i, "question_id": i, "answer": "yes" if i % 3 else "no"},
        "images": lambda i: {"id": i},
    }
    for name, row in rows.items():
        with (tmp_path / f"USGS_split_train_{name}.json").open("w") as file:
            lines = (json.dumps(row(i)) for i in range(num_images if name == "images" else count))
            file.write(f'{{"{name}": [' + next(lines))
            file.writelines(f", {line}" for line in lines)
            file.write("]}")
    code = (
        "import sys, numpy; from pathlib import Path; from unirs_tasks.rsvqa import build_hr;"
        # Not ru_maxrss, which starts from that of the parent process.
        "peak = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]); before = peak();"
        "split = build_hr(Path(sys.argv[1])).load_split('train');"
        "print(sum(len(sample.turns) for sample in split), (peak() - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    turns, megabytes = map(int, done.stdout.split())
    assert turns == count
    # As dictionaries, the rows would take about 100.
    assert megabytes < 40, megabytes


def test_split_is_picklable(tmp_path: Path) -> None:
    write(tmp_path, rows())
    split = build_lr(tmp_path, "rsvqa").load_split("train")
    assert list(pickle.loads(pickle.dumps(split))) == list(split)  # noqa: S301 - our own


def test_choices_are_those_of_evaluated_types(tmp_path: Path) -> None:
    assert build_lr(tmp_path).choices_for("rural_urban") == ("rural", "urban")
    assert build_lr(tmp_path).choices_for("count") == ()
    assert build_lr(tmp_path, "rsvqa").choices_for("count") == tuple(
        map(quantize_count, ("0", "5", "50", "500", "5000"))
    )
    assert build_hr(tmp_path, "rsvqa").choices_for("count") == ()
    assert build_hr(tmp_path, "rsvqa").choices_for("area")[1] == "between 0m2 and 10m2"
