"""Creates plugins by name: `unirs.create_task("era", root="data/era")`.

`name` is that of an installed plugin, a dotted path or a file; `options` are those of the plugin. Each function raises
a `PluginError` if the plugin or an option is unknown, with the nearest match, or if an option is of a wrong type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from unirs.plugins import create

if TYPE_CHECKING:
    from torch import nn

    from unirs.interfaces import ChangeExtractor, Encoder
    from unirs.tasks.task import Task


def create_task(name: str, **options: Any) -> Task:  # noqa: ANN401 - the plugin's
    """Creates a task, such as `create_task("era", root="data/era")`."""
    return cast("Task", create("unirs.tasks", {"name": name, **options}))


def create_encoder(name: str, **options: Any) -> Encoder:  # noqa: ANN401
    """Creates an encoder, such as `create_encoder("timm", model="resnet18")`."""
    return cast("Encoder", create("unirs.encoders", {"name": name, **options}))


def create_change_extractor(name: str, grid: tuple[int, int], dim: int, **options: Any) -> ChangeExtractor:  # noqa: ANN401
    """Creates a change extractor for an encoder's `grid` (h and w of its tokens) and `dim` (their width)."""
    return cast("ChangeExtractor", create("unirs.change_extractors", {"name": name, **options}, grid, dim))


def create_projector(name: str, grid: tuple[int, int], dim: int, out: int, **options: Any) -> nn.Module:  # noqa: ANN401
    """Creates a projector from an encoder's `grid` and `dim` to `out`, the width of the language model's embeddings."""
    return cast("nn.Module", create("unirs.projectors", {"name": name, **options}, grid, dim, out))
