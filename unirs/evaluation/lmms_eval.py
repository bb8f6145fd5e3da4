"""Suites as tasks of lmms-eval: files that name the functions here, which score by the metrics of the suite's tasks.

https://github.com/EvolvingLMMs-Lab/lmms-eval is not imported: its files refer to functions by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from unirs.errors import UniRSError
from unirs.evaluation.suite import Suite, SuiteTask
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import point_estimate
from unirs.tasks.config import TaskConfig
from unirs.tasks.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, media_files
from unirs.utils.io import check_writable, replacing_file, write_atomically, writing
from unirs.utils.progress import progress_bar

_MODULE = "unirs.evaluation.lmms_eval"


class _Function(str):
    """The dotted path of a function, in lmms-eval's YAML."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))


def export_suite(suite: Suite, name: str, out: Path, limit: int | None = None) -> list[str]:
    """Writes each task of a suite as `<out>/unirs_<label>.yaml`, with its questions as JSON lines beside it.

    The tag `unirs_<name>` stands for all of them. Media stay where they are: the files hold absolute paths.

    Args:
        suite: its columns are the metrics.
        name: of the suite.
        out: a folder for `lmms_eval --include_path`.
        limit: samples of each task, the first ones; all if None.

    Returns:
        The names of the tasks.

    Raises:
        UniRSError: data are missing, or media have no file that other programs can read.
    """
    check_writable(out, "Name another folder with '--out'.")
    names = []
    for entry in suite.tasks:
        config = TaskConfig.from_config(entry.task)
        config.prepare()
        spec = entry.task | {"root": str(config.root.resolve())}
        names.append(f"unirs_{config.name}")
        questions = (out / f"{names[-1]}.jsonl").resolve()
        with writing(out), replacing_file(questions) as file:
            for line in _documents(config, entry, json.dumps(spec), limit):
                file.write(line)
        document = {
            "task": names[-1],
            "tag": f"unirs_{name}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(questions)}},
            "test_split": "test",
            "output_type": "generate_until",
            "generation_kwargs": {"max_new_tokens": 64, "temperature": 0, "do_sample": False},
            "doc_to_visual": _Function(f"{_MODULE}.doc_to_visual"),
            "doc_to_text": "question",
            "doc_to_target": "target",
            "process_results": _Function(f"{_MODULE}.process_results"),
            "metric_list": [
                {"metric": metric, "aggregation": _Function(f"{_MODULE}.aggregate"), "higher_is_better": True}
                for metric in entry.columns
            ],
            "metadata": {"version": 1},
        }
        text = yaml.dump(document, Dumper=_Dumper, sort_keys=False)
        write_atomically(out / f"{names[-1]}.yaml", text.encode())
    return names


def _documents(config: TaskConfig, entry: SuiteTask, spec: str, limit: int | None) -> Iterator[bytes]:
    # Models of other programs know no task tags.
    prompt = replace(config.task.prompt, task_tag="")
    split = config.task.load_split("test")
    count = len(split) if limit is None else min(limit, len(split))
    with progress_bar(config.name, count, unit="samples") as advance:
        for index in range(count):
            sample = split[index]
            files = [str(Path(path).resolve()) for path in media_files(sample.media)]
            if not files or any(Path(file).suffix.lower() not in IMAGE_SUFFIXES | VIDEO_SUFFIXES for file in files):
                raise UniRSError(f"Sample '{sample.id}' of task '{config.name}' has no files that lmms-eval can read.")
            for turn in sample.turns:
                text = prompt(turn.prompt_fields)
                row = Prediction(turn.id, config.name, tuple(files), turn.category, text, "", turn.references)
                document = {
                    "question": text,
                    "target": turn.references[0],
                    "media": files,
                    "row": row.to_json().decode(),
                    "sample": index,
                    "turn": turn.id,
                    "task": spec,
                    "metrics": list(entry.columns),
                }
                yield json.dumps(document).encode() + b"\n"
            advance()


def doc_to_visual(document: Mapping[str, Any]) -> list[Any]:
    """The media of a question: PIL images, or paths of videos."""
    import PIL.Image

    files = [Path(file) for file in document["media"]]
    return [
        str(file) if file.suffix.lower() in VIDEO_SUFFIXES else PIL.Image.open(file).convert("RGB") for file in files
    ]


def process_results(document: Mapping[str, Any], results: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """What `aggregate` needs of one answer, for each metric: its name, the task's config, and the row."""
    row = Prediction.from_json(document["row"].encode()).with_answer(results[0])
    answered = row.to_json().decode()
    return {metric: (metric, document["task"], answered) for metric in document["metrics"]}


def aggregate(items: Sequence[tuple[str, str, str]]) -> float:
    """One metric of all answers to a task's questions, as `unirs bench` computes it; nan if no question has it."""
    metric, task, _ = items[0]
    return _statistics(task, tuple(row for _, _, row in items)).get(metric, math.nan)


@lru_cache(maxsize=1)
def _statistics(task: str, rows: tuple[str, ...]) -> Mapping[str, float]:
    # Called once for each metric, with the same rows.
    scorer = TaskConfig.from_config(json.loads(task)).task.scorer
    statistics = scorer.evaluate([Prediction.from_json(row.encode()) for row in rows]).statistics
    return {name: point_estimate(one) for name, one in statistics.items()}
