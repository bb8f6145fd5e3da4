"""The page on writing tasks: its code runs, and its commands work."""

import json
import re
from pathlib import Path

import PIL.Image
import yaml

from unirs import plugins
from unirs.evaluation.task_check import check_task
from unirs.tasks.task import Task

PAGE = (Path(__file__).parents[1] / "docs" / "tasks.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def build(tmp_path: Path, source: str, root: Path) -> Task:
    path = tmp_path / f"plugin_{len(source)}.py"
    path.write_text(source, encoding="utf-8")
    task: Task = plugins.create("unirs.tasks", {"name": str(path), "root": root})
    return task


def write_lines(root: Path) -> None:
    """Writes the page's JSON lines to each split, with different images per split."""
    (lines,) = blocks("json")
    for shade, split in enumerate(("train", "val", "test")):
        rows = [json.loads(line) for line in lines.splitlines()]
        for row in rows:
            row["image"] = row["image"].replace("images", f"images_{split}")
            (root / row["image"]).parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.new("RGB", (32, 32), (50 * shade, 90, 90)).save(root / row["image"])
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_config_of_a_task_without_code(tmp_path: Path) -> None:
    (config,) = blocks("yaml")
    (spec,) = yaml.safe_load(config)["data"]["tasks"]
    write_lines(tmp_path)
    label = spec.pop("label")
    task: Task = plugins.create("unirs.tasks", spec | {"root": tmp_path})
    assert label == "bridges"
    assert task.prompt(task.load_split("val")[1].turns[0].prompt_fields) == (
        "[vqa] Is there a harbour?\nAnswer the question using a single word or phrase."
    )
    assert check_task(task).problems == {}


def test_plugins_are_short() -> None:
    assert [len(source.splitlines()) <= 30 for source in blocks("python")] == [True] * 3


def test_class_folders(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for shade, name in enumerate(("field", "forest")):
            path = tmp_path / split / name / "a.jpg"
            path.parent.mkdir(parents=True)
            PIL.Image.new("RGB", (32, 32), (40 * len(split), 90 * shade, 90)).save(path)
    report = check_task(build(tmp_path, blocks("python")[1], tmp_path))
    assert report.problems == {}
    assert report.turns["test"] == {"field": 1, "forest": 1}


def test_levir_cc_equals_the_first_party_plugin(tmp_path: Path, synthetic: Path) -> None:
    bare = build(tmp_path, blocks("python")[2], synthetic / "levir_cc")
    full: Task = plugins.create("unirs.tasks", {"name": "levir_cc", "root": synthetic / "levir_cc"})
    for one, other in zip(bare.load_split("test"), full.load_split("test"), strict=True):
        assert one.media == other.media
        assert one.turns[0].references == other.turns[0].references


def test_all_first_party_tasks_are_listed() -> None:
    table = PAGE[PAGE.index("## First-party tasks") :]
    names = re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)
    listed = {name for cell in names for name in re.findall("`(.*?)`", cell)}
    ours = {
        name for name, entry in plugins.list_plugins("unirs.tasks").items() if entry.value.startswith("unirs_tasks.")
    }
    assert listed == ours
