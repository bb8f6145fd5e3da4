"""Writes a task plugin to start from, with its test and a tiny data set: `unirs tasks new`."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from unirs.errors import UniRSError
from unirs.tasks.media import Modality
from unirs.utils.io import replacing_folder, write_atomically

_PLUGIN = Template('''\
"""The task $name. A line of <split>.jsonl: $line"""

from pathlib import Path

from unirs import $imports
from unirs.metrics import $metric
from unirs.tasks import read_json_lines, texts

CHOICES = $choices


def build(root: Path) -> Task:
    def sample(where: str, row: dict[str, object]) -> Sample:
        $names = texts(row, where, $quoted)
        return Sample(key, $media_code, ($turn,))

    def samples(split: str) -> TaskSplit:
        return TaskSplit([sample(*line) for line in read_json_lines(root / f"{split}.jsonl")])

    return Task(
        modality="$modality",
        load_split=samples,
        prompt=PromptTemplate("$tag", "$instruction"),
        metric=$metric($classes),
        choices=CHOICES,
        required_paths=(root,),
        download_hint="(say where to get the data)",
    )
''')

_TEST = Template('''\
"""Run it with `pytest $file`."""

from pathlib import Path

from unirs import plugins
from unirs.evaluation.task_check import check_task

HERE = Path(__file__).parent


def test_reads_its_example() -> None:
    task = plugins.create("unirs.tasks", {"name": str(HERE / "$plugin"), "root": HERE / "$example"})
    sample = task.load_split("train")[0]
    assert task.prompt(sample.turns[0].prompt_fields).startswith("$prompt")
    assert sample.turns[0].references == ($answer,)
    assert check_task(task).problems == {}
''')


@dataclass(frozen=True)
class _Form:
    """The differences between plugins of the modalities.

    Attributes:
        media: name of the media class.
        paths: names of a line's paths, with the endings of the files.
        media_code: expression that makes the media from these paths.
        question: of the example; empty if the instruction is the whole question.
        answers: the choices, one for each example.
        tag: the task tag.
        instruction: of the prompt.
    """

    media: str
    paths: Mapping[str, str]
    media_code: str
    question: str
    answers: tuple[str, str]
    tag: str
    instruction: str


_SHORT = "{question}\nAnswer the question using a single word or phrase."

_FORMS: Mapping[Modality, _Form] = {
    "image": _Form(
        "Image", {"image": ".png"}, "Image(root / image)", "Is there a building?", ("yes", "no"), "vqa", _SHORT
    ),
    "pair": _Form(
        "Pair",
        {"before": ".png", "after": ".png"},
        "Pair(root / before, root / after)",
        "Was a building built?",
        ("yes", "no"),
        "vqa",
        _SHORT,
    ),
    "video": _Form(
        "Video",
        {"video": ".mp4"},
        "Video(root / video, num_frames=8)",
        "",
        ("constructing", "non-event"),
        "video",
        "What is the event in the video?",
    ),
}


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
        raise UniRSError(f"'{name}' cannot name a task. Use letters, digits and '_', and begin with no digit.")
    if plugin.suffix != ".py":
        raise UniRSError(f"A plugin is a Python file: {plugin} does not end with .py.")
    written = Written(plugin, plugin.with_name(f"test_{plugin.name}"), plugin.with_name(f"{name}_example"))
    for path in (written.plugin, written.test, written.example):
        if path.exists():
            raise UniRSError(f"{path} exists, and nothing is overwritten. Remove it, or choose another name or --out.")
    form = _FORMS[modality]
    with replacing_folder(written.example) as folder:
        _write_example(folder, form)
    write_atomically(written.test, _test(written, form).encode())
    write_atomically(written.plugin, _plugin(name, modality, form).encode())
    return written


def _plugin(name: str, modality: Modality, form: _Form) -> str:
    texts = ["id", *form.paths, *(["question"] if form.question else []), "answer"]
    return _PLUGIN.substitute(
        name=name,
        line="{" + ", ".join(f'"{text}": …' for text in texts) + "}",
        imports=", ".join(sorted((form.media, "PromptTemplate", "Sample", "Task", "TaskSplit", "Turn"))),
        metric="VqaAccuracy" if form.question else "Top1",
        choices=repr(form.answers).replace("'", '"'),
        names=", ".join(["key", *texts[1:]]),
        quoted=", ".join(f'"{text}"' for text in texts),
        media_code=form.media_code,
        turn='Turn(key, (answer,), {"question": question})'
        if form.question
        else "Turn(key, (answer,), category=answer)",
        modality=modality,
        tag=form.tag,
        instruction=form.instruction.replace("\n", "\\n"),
        classes="" if form.question else "CHOICES",
    )


def _test(written: Written, form: _Form) -> str:
    return _TEST.substitute(
        file=written.test.name,
        plugin=written.plugin.name,
        example=written.example.name,
        prompt=f"[{form.tag}] {form.question or form.instruction}",
        answer=json.dumps(form.answers[0]),
    )


def _write_example(folder: Path, form: _Form) -> None:
    """Two samples per split: one with a new building, one with the unchanged field."""
    for shade, split in enumerate(("train", "val", "test")):
        lines = []
        for built, answer in zip((True, False), form.answers, strict=True):
            key = f"{split}_{'built' if built else 'field'}"
            paths = {name: f"{key}_{name}{suffix}" for name, suffix in form.paths.items()}
            for name, path in paths.items():
                _write_media(folder / path, 100 + 20 * shade, built=built and name != "before")
            question = {"question": form.question} if form.question else {}
            lines.append({"id": key, **paths, **question, "answer": answer})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


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
