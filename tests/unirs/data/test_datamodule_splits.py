"""Tasks without some splits, and samples that are created on access."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from unirs.data.datamodule import UniRSDataModule
from unirs.data.dataset import Example, TaskDataset
from unirs.data.processor import Processor
from unirs.errors import DataError
from unirs.models.llm import train_tokenizer
from unirs.tasks.media import Image, ResizeSpec
from unirs.tasks.perturbation import PerturbedMedia
from unirs.tasks.sample import LazySamples, Sample, TaskSplit, Turn


def write(root: Path, *splits: str) -> dict[str, Any]:
    root.mkdir()
    PIL.Image.new("RGB", (64, 64), (90, 20, 20)).save(root / "a.png")
    row = {"image": "a.png", "question": "Is it red?", "answer": "yes"}
    for split in splits:
        (root / f"{split}.jsonl").write_text(f"{json.dumps(row)}\n" * 4)
    return {"name": "jsonl", "root": str(root), "label": root.name, "splits": list(splits)}


@pytest.fixture
def specs(tmp_path: Path) -> list[dict[str, Any]]:
    """Tasks with all splits, only for training, and only for testing."""
    splits = {"whole": ("train", "val", "test"), "mix": ("train",), "zero": ("test",)}
    return [write(tmp_path / name, *names) for name, names in splits.items()]


def data_of(specs: list[dict[str, Any]]) -> UniRSDataModule:
    processor = Processor(train_tokenizer([], 300), (16, 16), ResizeSpec(), (1, 1), 1, fuse_pairs=True)
    return UniRSDataModule(specs, blank_media=True, processor=processor)


def examples_of(loader: Any) -> list[Example]:  # noqa: ANN401 - its dataset has a length
    return [loader.dataset[index][0] for index in loader.sampler]


def tasks_of(loader: Any) -> list[str]:  # noqa: ANN401
    return sorted(example.task for example in examples_of(loader))


def test_tasks_without_a_split_are_omitted(specs: list[dict[str, Any]]) -> None:
    data = data_of(specs)
    assert tasks_of(data.train_dataloader()) == ["mix"] * 4 + ["whole"] * 4
    assert [tasks_of(loader) for loader in data.val_dataloader()] == [["whole"] * 4]
    assert [tasks_of(loader)[0] for loader in data.test_dataloader()] == ["whole", "zero"] * 2
    blank = [isinstance(examples_of(loader)[0].sample.media, PerturbedMedia) for loader in data.test_dataloader()]
    assert blank == [False, False, True, True]
    assert [tasks_of(loader)[0] for loader in data.predict_dataloader()] == ["whole", "zero"]
    assert len(list(data.texts())) == 2 * 8


def test_splits_are_read_once_unless_they_are_not_kept(specs: list[dict[str, Any]]) -> None:
    data = data_of(specs)
    assert data.split("mix", "train", keep=False) is not data.split("mix", "train", keep=False)
    kept = data.split("mix", "train")
    assert data.split("mix", "train") is data.split("mix", "train", keep=False) is kept


@pytest.mark.parametrize("split", ["train", "val"])
def test_split_that_no_task_has(specs: list[dict[str, Any]], split: str) -> None:
    data = data_of(specs[2:])
    with pytest.raises(DataError, match=f"No task has the split '{split}'"):
        data.train_dataloader() if split == "train" else data.val_dataloader()


def test_run_with_tasks_without_some_splits(
    specs: list[dict[str, Any]], tmp_path: Path, cli: Callable[..., int], write_config: Callable[..., Path]
) -> None:
    config = write_config(tmp_path / "out", specs)
    assert cli("fit", "--config", config) == 0
    assert cli("test", "--config", config) == 0
    document = json.loads((tmp_path / "out" / "run" / "test" / "metrics.json").read_text())
    assert list(document["tasks"]) == ["whole", "zero"]
    # The most frequent answer is computed from the training split.
    assert list(document["baselines"]["most_frequent"]) == ["whole"]
    assert list(document["baselines"]["blank"]) == ["whole", "zero"]


def make(index: int) -> Sample:
    return Sample(str(index), Image("a.png"), tuple(Turn(f"{index}-{turn}", ("yes",)) for turn in range(index + 1)))


def test_examples_are_created_on_access() -> None:
    examples = TaskDataset("mine", TaskSplit(LazySamples(make, [1, 2, 3])), [2, 0], max_turns=2, augment=True)
    assert len(examples) == 3
    assert [[turn.id for turn in examples[index].sample.turns] for index in range(3)] == [
        ["2-0", "2-2"],
        ["2-1"],
        ["0-0"],
    ]
    with_clues = TaskDataset("mine", examples.samples, [0], 2, clues={Image("a.png"): "red"})
    assert with_clues[0] == Example("mine", make(0), clue="red")
    assert examples[2] == Example("mine", make(0), augment=True)
    copy = pickle.loads(pickle.dumps(examples))  # noqa: S301 - our own
    assert [copy[index] for index in range(3)] == [examples[index] for index in range(3)]
    assert len(TaskDataset("mine", TaskSplit([]), [], 2)) == 0
