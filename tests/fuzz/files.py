"""Writes small valid files, and calls the command line."""

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from unirs.errors import UniRSError


def call(*arguments: object) -> None:
    """Calls the command line; what it prints must be UTF-8, and is part of the message of its error."""
    from unirs.cli.main import main

    out = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict", write_through=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main([str(argument) for argument in arguments])
    printed = out.buffer.getvalue().decode()
    if code:
        if printed.count("unirs: error: ") != 1:
            raise AssertionError(f"exit code {code} with: {printed}")
        raise UniRSError(printed)


def write_json(folder: Path, name: str, value: object) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


def write_lines(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_image(folder: Path, name: str, shade: int = 0, options: Mapping[str, Any] | None = None) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.add.outer(np.arange(12, dtype=np.uint8) * 9, np.arange(12, dtype=np.uint8) * 5) + shade
    PIL.Image.fromarray(np.stack([pixels, pixels[::-1], pixels.T], -1)).save(path, **options or {})
