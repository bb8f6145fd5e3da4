"""A task: a named composition of dataset, prompt and metric. What a plugin's `build` function returns."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unirs.media import MediaKind
from unirs.metrics.base import Metric
from unirs.prompt import Prompt
from unirs.sample import Split

SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Dataset, prompt and metric under one name.

    A plugin is a function `build(root: Path, **options) -> Task`, registered in the entry-point group `unirs.tasks`,
    named by a dotted path `package.module:build`, or by a file `path/to/plugin.py`. Its options are its parameters. It
    must be cheap: it reads no data and does not import torch.

    Attributes:
        kind: the media kind its samples show.
        samples: reads a split; raises `DataError` naming file and row.
        prompt: what the model is told.
        metric: how answers are scored.
        needs: files and folders that must exist before `samples` is called.
        source: where a user gets the data, for the message when something in `needs` is missing.
        synthesize: writes a synthetic data set in the task's real on-disk format: `synthesize(size, seed)`, with `size`
            training items. None where the task has no synthetic form.
    """

    kind: MediaKind
    samples: Callable[[SplitName], Split]
    prompt: Prompt
    metric: Metric
    needs: tuple[Path, ...]
    source: str
    synthesize: Callable[[int, int], None] | None = None
