from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL.Image
import pytest

from unirs.errors import DataError
from unirs.evaluation.contact_sheet import write_samples
from unirs.evaluation.task_check import check_task
from unirs.metrics.caption import CaptionMetrics
from unirs.metrics.classification import Top1
from unirs.metrics.vqa import VqaAccuracy
from unirs.tasks.media import Image, Media, Pair
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, TaskSplit, Turn
from unirs.tasks.task import SplitName, Task

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

Cli = Callable[..., int]


def image(root: Path, name: str, colour: int) -> Image:
    PIL.Image.new("RGB", (16, 16), (colour, 0, 0)).save(root / name)
    return Image(root / name)


def make_sample(key: str, media: Media, answer: str = "yes", **values: Any) -> Sample:  # noqa: ANN401
    return Sample(key, media, (Turn(key, (answer,), {"question": "Is it red?"}, **values),))


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """A valid task: one image per split."""
    samples = {
        split: TaskSplit(
            [make_sample("a", image(tmp_path, f"{split}.png", 50 * index), category="colour")], {"count": 2}
        )
        for index, split in enumerate(("train", "val", "test"))
    }
    return Task(
        modality="image",
        load_split=lambda split: samples[split],
        prompt=PromptTemplate("vqa", "{question}\nAnswer."),
        metric=VqaAccuracy(),
        required_paths=(tmp_path,),
        download_hint="nowhere",
        choices={"colour": ("yes", "no")},
    )


def with_test_samples(task: Task, *samples: Sample, **changes: Any) -> Task:  # noqa: ANN401
    """The task with other test samples."""

    def read(split: SplitName) -> TaskSplit:
        return TaskSplit(samples) if split == "test" else task.load_split(split)

    return replace(task, load_split=read, **changes)


def test_valid_task(task: Task) -> None:
    report = check_task(task)
    assert report.problems == {}
    assert report.samples == {"train": 1, "val": 1, "test": 1}
    assert report.turns["val"] == {"colour": 1}
    assert report.excluded["val"] == {"count": 2}
    assert report.prompts == {"colour": ("[vqa] Is it red?\nAnswer.", "yes")}
    assert (report.prompt_lengths, report.answer_lengths) == ({5: 3}, {1: 3})
    assert "\n".join(report.lines()).startswith(
        "train: 1 samples; 1 turns checked\n  categories: colour 1\n  excluded: count 2\nval:"
    )


def test_tokens_are_counted_with_a_tokenizer(task: Task, tokenizer: PreTrainedTokenizerBase) -> None:
    report = check_task(task, tokenizer=tokenizer)
    # "yes" and the end of the sequence: one token per character.
    assert report.answer_lengths == {4: 3}
    assert report.prompt_lengths == {len("\n[vqa] Is it red?\nAnswer.\n"): 3}
    assert report.prompts["colour"][0] == "<|visual|>\n[vqa] Is it red?\nAnswer.\n"
    assert "tokens of an answer: mean 4.0, max 4" in report.lines()


def test_media_that_do_not_decode(task: Task, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken = Image(tmp_path / "broken.png")
    report = check_task(with_test_samples(task, make_sample("a", broken), make_sample("b", broken)))
    (problem,) = report.problems["does not decode"]
    assert problem.startswith("test, a: ")
    assert "broken.png does not decode" in problem
    assert [split for split, _, _ in report.examples] == ["train", "val"]


def test_media_with_equal_pixels_in_two_splits(task: Task, tmp_path: Path) -> None:
    copy = tmp_path / "copy.tif"
    PIL.Image.open(tmp_path / "val.png").save(copy)
    assert check_task(with_test_samples(task, make_sample("a", Image(copy)))).problems == {
        "in two splits": [f"{copy} (test) has the pixels of {tmp_path / 'val.png'} (val)"]
    }
    twice = with_test_samples(
        task, make_sample("a", Image(tmp_path / "test.png")), make_sample("b", Image(tmp_path / "test.png"))
    )
    assert check_task(twice).problems == {}


def test_media_of_another_modality(task: Task, tmp_path: Path) -> None:
    pair = Pair(tmp_path / "test.png", tmp_path / "test.png")
    assert check_task(with_test_samples(task, make_sample("a", pair))).problems == {
        "another modality": ["test, a: pair; that of the task is image"]
    }


def test_target_answers(task: Task, tmp_path: Path) -> None:
    media = Image(tmp_path / "test.png")
    samples = [
        make_sample("a", media, "maybe", category="colour"),
        make_sample("b", media, "maybe", category="free"),
        make_sample("c", media, "yes", category="colour", train_answers=("no",)),
        make_sample("d", media, "yes", category="free", train_answers=(" ",)),
        make_sample("a", media, "yes", category="colour"),
    ]
    assert check_task(with_test_samples(task, *samples)).problems == {
        "none of the choices": ["test, a: 'maybe'"],
        "empty answer": ["test, d"],
        "repeated id": ["test: a"],
        "wrong target answer": [
            "test, c: 'no' is not right by exact",
            "test, d: ' ' is not right by exact",
        ],
    }


def test_samples_without_turns_and_turns_without_references(task: Task, tmp_path: Path) -> None:
    media = Image(tmp_path / "test.png")
    report = check_task(with_test_samples(task, Sample("a", media, ()), Sample("b", media, (Turn("b", ()),))))
    assert report.problems == {"no turns": ["test, a"], "no references": ["test, b"]}


def test_unknown_class_of_the_metric(task: Task, tmp_path: Path) -> None:
    scene = replace(task, metric=Top1(("pond",)), choices=(), splits=("test",))
    report = check_task(
        with_test_samples(scene, make_sample("a", Image(tmp_path / "test.png"), "lake", category="lake"))
    )
    assert report.problems == {"not scored": ["Row test, a is of class 'lake', which is unknown. Known: pond."]}
    assert list(report.prompts) == [""]


def test_captions_are_not_scored(task: Task, tmp_path: Path) -> None:
    captions = replace(task, metric=CaptionMetrics(), choices=())
    sample = make_sample("a", Image(tmp_path / "test.png"), "a road")
    assert check_task(with_test_samples(captions, sample)).problems == {}


def test_prompts_that_do_not_render(task: Task, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    report = check_task(replace(task, prompt=PromptTemplate("vqa", "{query}"), splits=("test",)))
    (problem,) = report.problems["no prompt"]
    assert problem.startswith("test, a: The prompt names the field 'query'")
    assert report.examples == []
    with pytest.raises(DataError, match="no samples to draw"):
        write_samples(tmp_path / "sheet.png", report.examples)
    ended = with_test_samples(task, make_sample("a", Image(tmp_path / "test.png"), "yes</s>"))
    assert list(check_task(ended, tokenizer=tokenizer).problems) == ["no prompt"]


def test_data_that_are_not_readable(task: Task, tmp_path: Path) -> None:
    def read(split: SplitName) -> TaskSplit:
        if split == "val":
            raise DataError("row 3 is wrong")
        return task.load_split(split) if split == "train" else TaskSplit([])

    report = check_task(replace(task, load_split=read))
    assert report.problems == {"not readable": ["row 3 is wrong", "split 'test' has no samples"]}
    assert report.samples == {"train": 1, "test": 0}
    absent = replace(task, required_paths=(tmp_path / "absent",))
    assert check_task(absent).problems == {"missing": [f"{tmp_path / 'absent'}. Get the data: nowhere"]}


def test_limit_spreads_over_the_split(task: Task, tmp_path: Path) -> None:
    media = Image(tmp_path / "test.png")
    many = with_test_samples(task, *(make_sample(str(index), media, category=str(index)) for index in range(100)))
    report = check_task(many, limit=10)
    assert sorted(map(int, report.turns["test"])) == list(range(0, 100, 10))
    assert report.samples["test"] == 100
    assert len(report.examples) <= 10
    lines = list(check_task(many).lines())
    assert any(line.endswith(" and 68 more") for line in lines)
    assert len(lines) < 50


def test_list_of_problems_is_limited(task: Task, tmp_path: Path) -> None:
    media = Image(tmp_path / "test.png")
    wrong = with_test_samples(
        task, *(make_sample(str(index), media, "maybe", category="colour") for index in range(20))
    )
    lines = list(check_task(wrong).lines())
    assert lines[-1] == "  and 12 more"
    assert "none of the choices: 20" in lines


# The command.


def write_lines(root: Path, answer: str = "yes") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for index, split in enumerate(("train", "val", "test")):
        image(root, f"{split}.png", 60 * index)
        row = {"image": f"{split}.png", "question": "Is it red?", "answer": answer}
        (root / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    return root


def test_command(tmp_path: Path, cli: Cli, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_lines(tmp_path / "data" / "jsonl")
    choices = 'choices=["yes", "no"]'
    assert cli("tasks", "check", "jsonl", "--option", choices, "--option", "tag=colour", "--limit", 5) == 0
    text = capfd.readouterr().out
    assert "| [colour] Is it red?" in text
    assert text.endswith("contact sheet: jsonl_sheet.png\nno problems found\n")
    with PIL.Image.open("jsonl_sheet.png") as sheet:
        assert sheet.width > 900
    write_lines(root, "maybe")
    assert cli("tasks", "check", "unirs_tasks.jsonl:build", "--root", root, "--option", choices) == 1
    captured = capfd.readouterr()
    assert "none of the choices: 3\n  train, 1: 'maybe'\n" in captured.out
    assert "unirs: error: Task 'jsonl' has 3 problems, listed above." in captured.err


def test_command_with_a_tokenizer(
    tmp_path: Path, cli: Cli, tokenizer: PreTrainedTokenizerBase, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    options = ("--root", write_lines(tmp_path), "--sheet", tmp_path / "sheet.png")
    assert cli("tasks", "check", "jsonl", *options, "--tokenizer", tmp_path / "tokenizer") == 0
    assert "tokens of an answer: mean 4.0, max 4" in capfd.readouterr().out
    assert cli("tasks", "check", "jsonl", *options, "--tokenizer", tmp_path / "absent") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["jsonls"], 1, "Did you mean 'jsonl'?"),
        (["jsonl", "--option", "modalty=image"], 1, "Did you mean 'modality'?"),
        (["jsonl", "--option", "modality"], 1, "--option needs KEY=VALUE, got 'modality'"),
        (["jsonl", "--option", "num_frames=0"], 1, "num_frames is 0"),
        (["jsonl", "--limit", "0"], 1, "--limit must be 1 or more, got 0"),
        (["absent.py"], 1, "absent.py does not exist"),
    ],
)
def test_invalid_commands(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cli: Cli,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("tasks", "check", *arguments) == code
    assert message in capfd.readouterr().err
    assert not list(tmp_path.iterdir())
