"""Every benchmark is one short file for somebody who has nothing but the public API (`short/`)."""

import ast
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from unirs import Task, Turn, plugins
from unirs.errors import DataError, PluginError

SHORT = Path(__file__).parent / "short"
CDVQA = Path(__file__).parents[3] / "shared" / "data" / "cdvqa"
# Of a JSON-lines file and of class folders 30, of any other benchmark 60.
LIMITS = {
    "cdvqa": 60,
    "crsvqa": 60,
    "era": 60,
    "geochat_instruct": 60,
    "jsonl": 30,
    "levir_cc": 60,
    "rsvqa_lr": 60,
    "scene_folder": 30,
}
FILES = sorted(SHORT.glob("*.py"))


def writer(name: str) -> dict[str, Any]:
    """The module of tests of the first-party plugin `name`, which writes its data."""
    return runpy.run_path(str(Path(__file__).with_name(f"test_{name}.py")))


def build(name: str, root: Path, **options: object) -> Task:
    task: Task = plugins.create("unirs.tasks", {"name": name, "root": root, **options})
    return task


def rendered(task: Task, turn: Turn) -> tuple[object, ...]:
    return turn.id, task.prompt(turn.prompt_fields), turn.references, turn.targets, turn.category


def content(task: Task) -> dict[str, object]:
    """By split: the samples, and the number of excluded turns."""
    splits = {name: task.load_split(name) for name in task.splits}
    assert all(splits.values()), "a comparison of nothing"
    return {
        name: ([(one.id, one.media, [rendered(task, turn) for turn in one.turns]) for one in split], split.num_excluded)
        for name, split in splits.items()
    }


def assert_equal(name: str, root: Path, own: dict[str, object] | None = None, **options: object) -> None:
    """Compares the short plugin with the first-party one; only the latter gets the options `own`."""
    short, full = build(str(SHORT / f"{name}.py"), root, **options), build(name, root, **options, **(own or {}))
    assert (short.modality, short.splits) == (full.modality, full.splits)
    assert (short.prompt, short.metric, short.choices) == (full.prompt, full.metric, full.choices)
    assert content(short) == content(full)


def test_all_are_short() -> None:
    lines = {path.stem: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert list(lines) == list(LIMITS)
    assert {name: count for name, count in lines.items() if count > LIMITS[name]} == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_they_use_only_the_public_api(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [
        (node.module, alias.name) if isinstance(node, ast.ImportFrom) else (alias.name, "")
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    assert any(module == "unirs" for module, _ in names)
    for module, name in names:
        top = (module or "").partition(".")[0]
        assert top == "unirs" or top in sys.stdlib_module_names
        assert not name.startswith("_")
        assert "._" not in (module or "")


@pytest.mark.parametrize("protocol", ["vlm", "rsvqa"])
def test_rsvqa_lr(protocol: str, tmp_path: Path, synthetic: Path) -> None:
    assert_equal("rsvqa_lr", synthetic / "rsvqa_lr", protocol=protocol)
    # Ids far from positions, rows in no order, inactive rows.
    tests = writer("rsvqa")
    for split in ("train", "val", "test"):
        tests["write"](tmp_path, tests["rows"](), f"LR_split_{split}")
    assert_equal("rsvqa_lr", tmp_path, protocol=protocol)


def test_rsvqa_lr_formats_counts_like_the_first_party_plugin(tmp_path: Path) -> None:
    tests = writer("rsvqa")
    counts = ("0", "1", "10", "11", "100", "101", "1000", "1001", "many")
    rows = {
        "questions": [
            {"id": n, "img_id": 0, "type": "count", "question": "How many?", "answers_ids": [n]}
            for n, _ in enumerate(counts)
        ],
        "answers": [{"id": n, "question_id": n, "answer": count} for n, count in enumerate(counts)],
        "images": [{"id": 0}],
    }
    for split in ("train", "val", "test"):
        tests["write"](tmp_path, rows, f"LR_split_{split}")
    assert_equal("rsvqa_lr", tmp_path, protocol="rsvqa")


def test_levir_cc(synthetic: Path) -> None:
    assert_equal("levir_cc", synthetic / "levir_cc")


def test_era(tmp_path: Path, synthetic: Path) -> None:
    assert_equal("era", synthetic / "era", num_frames=4)
    videos = [f"Train/{name}/{i}.mp4" for name in ("PoliceChase", "Fire", "parade-protest") for i in range(12)]
    writer("era")["touch"](tmp_path, *videos, "Test/Non-Event/b.mp4", "Test/CarRacing/a.MP4")
    assert_equal("era", tmp_path)


@pytest.mark.parametrize("test_split", ["test", "test2"])
def test_cdvqa(test_split: str, tmp_path: Path) -> None:
    for prefix in ("Train", "Val", test_split.capitalize()):
        writer("cdvqa")["write"](tmp_path, prefix)
    assert_equal("cdvqa", tmp_path, test_split=test_split)


@pytest.mark.skipif(not CDVQA.is_dir(), reason="the CDVQA annotations are not beside the checkout")
def test_cdvqa_reads_all_real_rows() -> None:
    short = build(str(SHORT / "cdvqa.py"), CDVQA).load_split("val")
    assert list(short) == list(build("cdvqa", CDVQA).load_split("val"))
    assert sum(len(sample.turns) for sample in short) == 16_441


def test_crsvqa(tmp_path: Path) -> None:
    questions = (
        "What is the theme of it?",
        "How many Planes are there\N{FULLWIDTH QUESTION MARK}",
        "What is beside it",
    )
    text = "".join(f"{question}\r\nA Pond \r\n" for question in questions)
    writer("crsvqa")["write"](tmp_path, **{f"n{i}": text for i in range(40)})
    assert_equal("crsvqa", tmp_path)
    assert_equal("crsvqa", tmp_path, seed=1)
    named = tmp_path / "splits.csv"
    named.write_text("file,split\nn3,test\nn1,val\nn2,train\n")
    assert_equal("crsvqa", tmp_path, split_file=str(named))


def test_scene_folder(tmp_path: Path) -> None:
    images = [f"{name}/{i}.png" for name in ("River_Lake", "Forest") for i in range(20)]
    writer("scene_folder")["touch"](tmp_path, *images)
    assert_equal("scene_folder", tmp_path)
    assert_equal("scene_folder", tmp_path, seed=1)
    named = tmp_path / "splits.csv"
    named.write_text("file,split\nForest/3.png,test\nRiver_Lake/1.png,val\nRiver_Lake/2.png,train\n")
    assert_equal("scene_folder", tmp_path, split_file=str(named))


def test_geochat_instruct(tmp_path: Path) -> None:
    tests = writer("geochat_instruct")
    # Bytes and characters differ, and a tag inside of a question does not count.
    other = tests["row"]("<image>\nWhat?\n[refer] is no tag here", "\N{SNOWMAN}")
    tests["write"](tmp_path, [tests["GOOD"], other, tests["GOOD"]])
    assert_equal("geochat_instruct", tmp_path)
    assert_equal("geochat_instruct", tmp_path, images="pictures")


def test_jsonl(tmp_path: Path) -> None:
    rows = [
        {
            "id": f"p{i}",
            "images": [f"{i}a.png", f"{i}b.png"],
            "references": ["a road", f"{i} roads"],
            "category": category,
        }
        for i, category in enumerate(("changed", "unchanged"))
    ]
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own: dict[str, object] = {"modality": "pair", "metric": "caption", "tag": "change", "instruction": "What changed?"}
    assert_equal("jsonl", tmp_path, own)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"answers_ids": [1]}, r"none of the answers \[1\] is active"),
        ({"question": None}, r"row 2: Expected `str`, got `null` - at `\$\.question`"),
    ],
)
def test_a_bad_row_is_an_error(values: dict[str, object], message: str, tmp_path: Path) -> None:
    tests = writer("rsvqa")
    rows = tests["rows"]()
    rows["questions"][2] |= values
    tests["write"](tmp_path, rows)
    with pytest.raises(DataError, match=message):
        build(str(SHORT / "rsvqa_lr.py"), tmp_path).load_split("train")


def test_mistyped_option_is_an_error() -> None:
    with pytest.raises(PluginError, match=r"has no option 'protocl'\. Did you mean 'protocol'"):
        build(str(SHORT / "rsvqa_lr.py"), Path(), protocl="vlm")
