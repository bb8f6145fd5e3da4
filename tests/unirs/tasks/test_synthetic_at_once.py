"""Two runs that find the same synthetic data missing."""

import multiprocessing
from pathlib import Path

import pytest

from unirs.errors import UniRSError
from unirs.tasks.config import TaskConfig


def _prepare(root: str, barrier: "multiprocessing.synchronize.Barrier", results: "multiprocessing.Queue[str]") -> None:
    task = TaskConfig.from_config({"name": "rsvqa_lr", "root": root, "synthetic": {"size": 6}})
    barrier.wait()
    try:
        task.prepare()
        results.put(f"{len(task.task.load_split('train'))}")
    except UniRSError as error:
        results.put(str(error))


def test_two_processes_that_make_one_folder_at_once_both_get_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    arguments = (str(tmp_path / "data" / "rsvqa"), barrier, results)
    processes = [context.Process(target=_prepare, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert found == ["6", "6"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    root = tmp_path / "file" / "rsvqa"
    with pytest.raises(UniRSError, match=r"file.* cannot be written"):
        TaskConfig.from_config({"name": "rsvqa_lr", "root": str(root), "synthetic": {"size": 6}}).prepare()
