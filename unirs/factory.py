"""Creates plugins by name: `unirs.create_task("era", root="data/era")`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unirs.plugins import create

if TYPE_CHECKING:
    from torch import nn

    from unirs.interfaces import ChangeExtractor, Encoder
    from unirs.tasks.task import Task


def create_task(name: str, **options: Any) -> Task:  # noqa: ANN401 - the plugin's
    """Creates a task.

    Args:
        name: of an installed plugin, a dotted path or a file.
        options: of the plugin, such as `root`.

    Raises:
        PluginError: the plugin or an option is unknown, with the nearest match.
    """
    task: Task = create("unirs.tasks", {"name": name, **options})
    return task


def create_encoder(name: str, **options: Any) -> Encoder:  # noqa: ANN401
    """Creates an encoder; arguments and errors are those of `create_task`."""
    encoder: Encoder = create("unirs.encoders", {"name": name, **options})
    return encoder


def create_change_extractor(name: str, grid: tuple[int, int], dim: int, **options: Any) -> ChangeExtractor:  # noqa: ANN401
    """Creates a change extractor.

    Args:
        name: of an installed plugin, a dotted path or a file.
        grid: h and w of an encoder's tokens.
        dim: width of these tokens.
        options: of the plugin.

    Raises:
        PluginError: the plugin or an option is unknown, with the nearest match.
    """
    change: ChangeExtractor = create("unirs.change_extractors", {"name": name, **options}, grid, dim)
    return change


def create_projector(name: str, grid: tuple[int, int], dim: int, out: int, **options: Any) -> nn.Module:  # noqa: ANN401
    """Creates a projector.

    Args:
        name: of an installed plugin, a dotted path or a file.
        grid: h and w of an encoder's tokens.
        dim: width of these tokens.
        out: width of the language model's embeddings.
        options: of the plugin.

    Raises:
        PluginError: the plugin or an option is unknown, with the nearest match.
    """
    projector: nn.Module = create("unirs.projectors", {"name": name, **options}, grid, dim, out)
    return projector
