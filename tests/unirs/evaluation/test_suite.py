from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from unirs.errors import DataError
from unirs.evaluation.suite import Suite
from unirs.utils.typed_yaml import read_yaml

GOOD: dict[str, Any] = {
    "title": "Two tasks",
    "sources": {"ours": "A paper, 2020"},
    "tasks": [
        {
            "title": "LR",
            "task": {"name": "rsvqa_lr", "root": "data/lr", "protocol": "rsvqa", "synthetic": {"size": 8, "seed": 1}},
            "columns": {"accuracy": "Micro", "accuracy_macro": "Macro"},
            "published": [
                {"model": "M", "source": "ours", "numbers": {"accuracy": "90.50"}, "zero_shot": True},
                {
                    "model": "N",
                    "source": "ours",
                    "numbers": {"accuracy": "91", "accuracy_macro": "1.0"},
                    "unclear": ["accuracy"],
                },
            ],
        },
        {"title": "HR", "task": {"name": "tasks/rsvqa_lr.py:build", "label": "hr"}, "columns": {"accuracy": "Micro"}},
    ],
}


def write(folder: Path, content: object) -> Path:
    path = folder / "suite.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def changed(*keys: str | int, value: object) -> dict[str, Any]:
    content = deepcopy(GOOD)
    part: Any = content
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    return content


def test_a_suite_is_read_as_written(tmp_path: Path) -> None:
    suite = read_yaml(write(tmp_path, GOOD), Suite)
    assert (suite.title, suite.sources) == ("Two tasks", {"ours": "A paper, 2020"})
    first, second = suite.tasks
    assert (first.label, first.title, first.task) == ("rsvqa_lr", "LR", GOOD["tasks"][0]["task"])
    assert list(first.columns.items()) == [("accuracy", "Micro"), ("accuracy_macro", "Macro")]
    assert [(entry.model, entry.source, entry.zero_shot, entry.unclear) for entry in first.published] == [
        ("M", "ours", True, ()),
        ("N", "ours", None, ("accuracy",)),
    ]
    assert first.published[0].numbers == {"accuracy": "90.50"}
    assert (second.label, second.published) == ("hr", ())


ENTRY = ("tasks", 0, "published", 0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (changed("titel", value="x"), "titel: unknown key. Did you mean 'title'?"),
        (changed("tasks", 0, "colums", value={}), "tasks[0].colums: unknown key. Did you mean 'columns'?"),
        (
            changed(*ENTRY, "zeroshot", value=True),
            "tasks[0].published[0].zeroshot: unknown key. Did you mean 'zero_shot'?",
        ),
        (changed("title", value=""), "title: Expected `str` of length >= 1"),
        (changed("tasks", value=[]), "tasks: Expected `array` of length >= 1"),
        (changed("tasks", value={"a": 1}), "tasks: Expected `array`, got `object`"),
        (changed("tasks", 1, value=["rsvqa_lr"]), "tasks[1]: Expected `object`"),
        (changed("tasks", 1, "task", value={"root": "x"}), "tasks[1]: task.name: must name a task plugin"),
        (changed("tasks", 1, "columns", value={}), "tasks[1].columns: Expected `object` of length >= 1"),
        (changed("tasks", 1, "task", value={"name": "rsvqa_lr"}), "2 tasks are named 'rsvqa_lr'. Give each a 'label'"),
        (
            changed(*ENTRY, "source", value="our"),
            "published[0].source: 'our' is not among the sources. Did you mean 'ours'?",
        ),
        (
            changed(*ENTRY, "numbers", "acuracy", value="1"),
            "numbers.acuracy: not a column of the task. Did you mean 'accuracy'?",
        ),
        (changed(*ENTRY, "numbers", "accuracy", value=90.5), "numbers[...]: Expected `str`, got `float`"),
        (
            changed(*ENTRY, "numbers", "accuracy", value="90,5"),
            "published[0]: numbers.accuracy: '90,5' is not a number",
        ),
        (changed(*ENTRY, "numbers", "accuracy", value="nan"), "published[0]: numbers.accuracy: 'nan' is not a number"),
        (changed(*ENTRY, "numbers", value={}), "published[0].numbers: Expected `object` of length >= 1"),
        (
            changed(*ENTRY, "unclear", value=["accuracy_macro"]),
            "published[0]: unclear: 'accuracy_macro' is not among the numbers",
        ),
        (changed(*ENTRY, "zero_shot", value="yes"), "published[0].zero_shot: Expected `bool | null`"),
        ([], "Expected `object`, got `array`"),
        ("title: x\ntitle: y\n", "is not valid YAML: duplicate key"),
        ("title: [", "is not valid YAML"),
        ("title: " + "[" * 100_000, "is not valid YAML: brackets are nested deeper than 100 levels"),
        ('"\\udcff": 1', "lone surrogate"),
    ],
)
def test_a_wrong_suite_is_an_error_that_names_file_and_key(tmp_path: Path, content: object, says: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_yaml(path, Suite)
    assert str(caught.value).startswith(str(path))
    assert says in str(caught.value)


@pytest.mark.parametrize("key", ["title", "tasks"])
def test_what_is_missing_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(DataError, match=key):
        read_yaml(write(tmp_path, {name: value for name, value in GOOD.items() if name != key}), Suite)


def test_a_missing_file_and_bytes_that_are_no_text_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"suite\.yaml does not exist"):
        read_yaml(tmp_path / "suite.yaml", Suite)
    (tmp_path / "suite.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match=r"suite\.yaml cannot be read"):
        read_yaml(tmp_path / "suite.yaml", Suite)
