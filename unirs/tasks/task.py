"""A task: a named composition of dataset, prompt and metric. What a plugin's `build` function returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unirs.errors import PluginError
from unirs.metrics.base import Metric
from unirs.tasks.media import Modality
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import TaskSplit

SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Dataset, prompt and metric under one name.

    A plugin is a function `build(root: Path, **options) -> Task`, registered in the entry-point group `unirs.tasks`,
    named by a dotted path `package.module:build`, or by a file `path/to/plugin.py`. Its options are its parameters. It
    must be cheap: it reads no data (listing folders is cheap) and does not import torch.

    Attributes:
        modality: the modality of the media that its samples show.
        load_split: reads a split; raises `DataError` naming file and row.
        prompt: what the model is told.
        metric: how answers are scored.
        required_paths: files and folders that must exist before `load_split` is called.
        download_hint: where a user gets the data, for the message when something in `required_paths` is missing.
        synthesize: writes a synthetic data set in the task's real on-disk format: `synthesize(size, seed)`, with `size`
            training items. None where the task has no synthetic form.
        choices: the texts among which an answer is, written as they are learnt (`This is a video about fire.`); a
            mapping where they depend on the turn's kind. Empty, or a kind left out of the mapping: any text. See
            `choices_for`.
        splits: what `load_split` can read. A task without `val` or `test` is trained on only, one without `train` is
            evaluated only.

    Raises:
        PluginError: choices are given by kind where the kind is what the model is to find out, or a choice is repeated.
    """

    modality: Modality
    load_split: Callable[[SplitName], TaskSplit]
    prompt: PromptTemplate
    metric: Metric
    required_paths: tuple[Path, ...]
    download_hint: str
    synthesize: Callable[[int, int], None] | None = None
    choices: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ()
    splits: tuple[SplitName, ...] = ("train", "val", "test")

    def __post_init__(self) -> None:
        if isinstance(self.choices, Mapping) and not self.metric.category_is_given:
            raise PluginError(
                f"Choices by kind would tell the answer: for the metric '{self.metric.name}' a turn's kind is what the "
                "model is to find out. Give one tuple of choices."
            )
        for choices in self.choices.values() if isinstance(self.choices, Mapping) else [self.choices]:
            if len(set(choices)) < len(choices):
                repeated = next(choice for choice in choices if choices.count(choice) > 1)
                raise PluginError(f"The choice {repeated!r} is given twice. Name each once.")

    def choices_for(self, category: str) -> tuple[str, ...]:
        """The texts among which the answer to a turn of this kind is; empty where it may be any text."""
        return self.choices.get(category, ()) if isinstance(self.choices, Mapping) else self.choices
