"""Sources of weights: hub ids, folders, and files of installed packages."""

import importlib.util
from pathlib import Path

from unirs.errors import ModelError

_PACKAGE = "package:"


def resolve_source(source: str) -> str:
    """Finds the weights that a config names.

    Args:
        source: a hub id, a path, or `package:NAME/path/in/it` for files that an installed Python package carries. The
            package is found without being imported.

    Returns:
        The path inside the package; other sources unchanged.

    Raises:
        ModelError: the package is not installed, or does not hold the file.
    """
    if not source.startswith(_PACKAGE):
        return source
    name, _, inside = source.removeprefix(_PACKAGE).partition("/")
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise ModelError(
            f"'{source}' needs the Python package '{name}', which is not installed. "
            "Install it; the packages that UniRS's configs name come with: pip install 'unirs[offline]'."
        )
    path = Path(found.submodule_search_locations[0]) / inside
    if not path.exists():
        raise ModelError(f"'{source}': the Python package '{name}' holds no '{inside}'. Look into {path.parent}.")
    return str(path)
