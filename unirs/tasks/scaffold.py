"""Writes a task plugin to start from, with its test and a tiny data set: `unirs tasks new`."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from unirs.errors import UniRSError
from unirs.tasks.media import Modality
from unirs.utils.io import replacing_folder, write_atomically

_SUFFIXES: Mapping[Modality, Mapping[str, str]] = {
    "image": {"image": ".png"},
    "pair": {"before": ".png", "after": ".png"},
    "video": {"video": ".mp4"},
    "series": {"t1": ".png", "t2": ".png", "t3": ".png"},
}
"""Names of the media files in a line, and their suffixes."""

_QUESTIONS: Mapping[Modality, str] = {
    "image": "Is there a building?",
    "pair": "Was a building built?",
    "video": "",
    "series": "Was a building built?",
}
"""Questions of the example; empty if the instruction is the question."""


@dataclass(frozen=True)
class Written:
    """The files of a new task: the plugin, its test, and the folder of the example's data."""

    plugin: Path
    test: Path
    example: Path


def write_task(name: str, modality: Modality, plugin: Path) -> Written:
    """Writes a plugin that reads JSON lines, `test_<plugin>` and `<name>_example/` beside it.

    Args:
        name: of the task: letters, digits and `_`.
        modality: of its samples.
        plugin: file to write.

    Raises:
        UniRSError: the name or the suffix of the file is invalid, or one of the files exists: nothing is overwritten.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise UniRSError(f"'{name}' cannot name a task. Use letters, digits and '_', and do not start with a digit.")
    if plugin.suffix != ".py":
        raise UniRSError(f"A plugin is a Python file: {plugin} does not end with .py.")
    written = Written(plugin, plugin.with_name(f"test_{plugin.name}"), plugin.with_name(f"{name}_example"))
    for path in (written.plugin, written.test, written.example):
        if path.exists():
            raise UniRSError(f"{path} exists, and nothing is overwritten. Remove it, or choose another name or --out.")
    paths, question, media = _SUFFIXES[modality], _QUESTIONS[modality], modality.capitalize()
    answers = ("yes", "no") if question else ("constructing", "non-event")
    with replacing_folder(written.example) as folder:
        _write_example(folder, paths, question, answers)
    values = {
        "name": name,
        "modality": modality,
        "media": media,
        "imports": sorted((media, "PromptTemplate", "Sample", "Task", "TaskSplit", "Turn")),
        "paths": list(paths),
        "fields": ["id", *paths, *(["question"] if question else []), "answer"],
        "question": question,
        "answers": answers,
        "plugin": plugin.name,
        "test": written.test.name,
        "example": written.example.name,
    }
    write_atomically(written.test, _render("test.py.jinja", values))
    write_atomically(written.plugin, _render("task.py.jinja", values))
    return written


def _render(template: str, values: Mapping[str, object]) -> bytes:
    from jinja2 import Template

    text = resources.files("unirs.tasks").joinpath("templates", template).read_text(encoding="utf-8")
    rendered: str = Template(text, keep_trailing_newline=True).render(values)
    return rendered.encode()


def _write_example(folder: Path, paths: Mapping[str, str], question: str, answers: tuple[str, str]) -> None:
    """Two samples per split: one with a new building, one with the unchanged field."""
    for shade, split in enumerate(("train", "val", "test")):
        lines = []
        for built, answer in zip((True, False), answers, strict=True):
            key = f"{split}_{'built' if built else 'field'}"
            files = {name: f"{key}_{name}{suffix}" for name, suffix in paths.items()}
            for name, file in files.items():
                _write_media(folder / file, 100 + 20 * shade, built=built and name not in ("before", "t1"))
            line = {"id": key, **files, **({"question": question} if question else {}), "answer": answer}
            lines.append(json.dumps(line) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def _write_media(path: Path, green: int, *, built: bool) -> None:
    import numpy as np

    frames = np.full((8, 64, 64, 3), (60, green, 40), dtype=np.uint8)
    for frame, height in zip(frames, range(4, 36, 4), strict=True):
        frame[60 - height : 60, 20:44] = (150, 150, 160) if built else (60, green, 40)
    if path.suffix == ".png":
        import PIL.Image

        PIL.Image.fromarray(frames[-1]).save(path)
        return
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 64, "yuv420p", 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
