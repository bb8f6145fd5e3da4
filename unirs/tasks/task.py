"""A task: a composition of dataset, prompt and metric. What a plugin's `build` function returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unirs.errors import PluginError
from unirs.metrics.scorer import Scorer
from unirs.metrics.text_metric import as_scorer
from unirs.tasks.media import Modality
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import TaskSplit

if TYPE_CHECKING:
    from unirs.metrics.scorer import MetricFactory

SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Dataset, prompt and metric.

    A plugin is a function `build(root: Path, **options) -> Task`, registered in the entry-point group `unirs.tasks`,
    named by a dotted path `package.module:build`, or by a file `path/to/plugin.py`. Its options are its parameters. It
    reads no data beyond listings of folders, and does not import torch unless its metric needs it.

    Attributes:
        modality: Modality of the media of its samples.
        load_split: Reads a split; raises `DataError` naming file and row.
        prompt: Template of the prompts.
        metric: Makes the metric that scores answers: a `Scorer`, such as `VqaAccuracy()`, or a text metric of
            torchmetrics, such as `CHRFScore` or a subclass of `torchmetrics.Metric`. See `scorer`.
        required_paths: Files and folders that must exist before `load_split` is called.
        download_hint: Where to get the data, for the message if something in `required_paths` is missing.
        synthesize: Writes a synthetic data set in the task's real on-disk format: `synthesize(size, seed)`, with `size`
            training items. None if the task has no synthetic form.
        choices: The allowed answers, written as in training (`This is a video about fire.`); a mapping if they
            depend on the turn's category. Any text is allowed if there are none. See `choices_for`.
        splits: Splits that `load_split` can read. A task without `val` or `test` is for training only, one without
            `train` for evaluation only.

    Raises:
        PluginError: Choices are given by category although the category is the answer, or a choice is
            repeated.
    """

    modality: Modality
    load_split: Callable[[SplitName], TaskSplit]
    prompt: PromptTemplate
    metric: MetricFactory
    required_paths: tuple[Path, ...]
    download_hint: str
    synthesize: Callable[[int, int], None] | None = None
    choices: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ()
    splits: tuple[SplitName, ...] = ("train", "val", "test")

    def __post_init__(self) -> None:
        if isinstance(self.choices, Mapping) and not self.scorer.category_is_given:
            raise PluginError(
                f"Choices by category would reveal the answer: with the metric '{self.scorer.name}' the category is "
                "not known from the question. Give one tuple of choices."
            )
        for choices in self.choices.values() if isinstance(self.choices, Mapping) else [self.choices]:
            if len(set(choices)) < len(choices):
                repeated = next(choice for choice in choices if choices.count(choice) > 1)
                raise PluginError(f"The choice {repeated!r} is given twice. Give each once.")

    @cached_property
    def scorer(self) -> Scorer:
        """Scores gathered rows. Calling it makes a `PredictionMetric`."""
        return as_scorer(self.metric)

    def choices_for(self, category: str) -> tuple[str, ...]:
        """The allowed answers to a turn of this category; empty if any text is allowed."""
        return self.choices.get(category, ()) if isinstance(self.choices, Mapping) else self.choices
