"""Examples of the demo: samples of a run's test data, else of synthetic data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unirs import plugins
from unirs.tasks.config import TaskConfig
from unirs.tasks.media import Media, Modality
from unirs.tasks.task import Task

_COUNT = 3


@dataclass(frozen=True)
class Example:
    """An input with a question about it.

    Attributes:
        task: name of its task.
        media: the input.
        question: empty if the task has an instruction of its own.
        reference: an answer.
        choices: the allowed answers; empty for any text.
    """

    task: str
    media: Media
    question: str
    reference: str
    choices: tuple[str, ...]


def find_examples(run: Path, modalities: Sequence[Modality], scratch: Path) -> list[Example]:
    """A few examples of each modality.

    They are test samples of the run's own tasks whose data exist, else synthetic ones.

    Args:
        run: folder of a run; other sources have no data.
        modalities: those of the model.
        scratch: an empty folder for synthetic data.

    Raises:
        UniRSError: data or the run's config are damaged.
    """
    examples: list[Example] = []
    if (run / "config.yaml").is_file():
        for config in TaskConfig.read_run(run / "config.yaml").values():
            if "test" in config.task.splits and not config.missing_paths():
                examples += _of_task(config.name, config.task)
    missing = set(modalities) - {example.media.modality for example in examples}
    for name in plugins.list_plugins("unirs.tasks") if missing else ():
        task: Task = plugins.create("unirs.tasks", {"name": name, "root": scratch / name})
        if task.synthesize is not None and task.modality in missing:
            task.synthesize(_COUNT, 0)
            examples += _of_task(name, task)
            missing.remove(task.modality)
    return examples


def _of_task(name: str, task: Task) -> Iterator[Example]:
    """Samples that are evenly spread over the test split, each with another of its questions."""
    samples = task.load_split("test")
    for number in range(min(_COUNT, len(samples))):
        sample = samples[(2 * number + 1) * len(samples) // (2 * _COUNT)]
        turn = sample.turns[number % len(sample.turns)]
        yield Example(
            name,
            sample.media,
            turn.prompt_fields.get("question", ""),
            turn.references[0],
            task.choices_for(turn.category),
        )
