"""`unirs predict`: answers a question about new media with a trained run or a saved model."""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, get_args

from unirs.cli import add_generation_options, add_video_reader, generation_options
from unirs.errors import DataError, MediaError
from unirs.tasks.fields import parse_row
from unirs.tasks.inputs import as_media
from unirs.tasks.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Media, Pair
from unirs.tasks.series import Series
from unirs.tasks.video_reader import FrameSampling, describe_reader
from unirs.utils.io import check_writable, complete_lines, read_json_lines, reading, write_atomically, writing
from unirs.utils.progress import progress_bar

if TYPE_CHECKING:
    from unirs.inference.api import UniRS
    from unirs.inference.completion import Completion

_BATCH = 16
_DESCRIBE = "Describe the image."
"""The question if there is none, and the task has no instruction of its own."""


class _Row(TypedDict):
    """A line of `--out`."""

    task: str
    media: list[str]
    prompt: str
    clue: str
    text: str


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("model", metavar="RUN", help="folder of a trained run or of a saved model, or a hub id")
    parser.add_argument(
        "media",
        type=Path,
        nargs="+",
        metavar="MEDIA",
        help="an image; two images (before, after); more images (a series); a video; or a folder of images, videos, or "
        "pairs in A/ and B/",
    )
    parser.add_argument("--dates", nargs="+", metavar="DATE", help="dates of the images, such as 2016-05, of a series")
    parser.add_argument("--question", help=f"the question (default: the task's own instruction, or '{_DESCRIBE}')")
    parser.add_argument("--task", help="the task whose prompt is used (default: the first one of the media's modality)")
    parser.add_argument("--num-frames", type=int, default=8, help="frames of a video")
    text = "which frames: spread to the last one, or as VILA has them"
    parser.add_argument("--frame-sampling", choices=get_args(FrameSampling), default="uniform", help=text)
    add_video_reader(parser)
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that the model's config names by file or dotted path"
    )
    add_generation_options(parser)
    parser.add_argument("--clue-source", help="the model that generates clues, if they were another's in training")
    parser.add_argument(
        "--out",
        type=Path,
        help="also write the answers as JSON lines to this file, and keep those of an earlier, equal call",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from unirs.inference.api import UniRS

    # Its version is one of the options that answers depend on.
    reader, options.video_reader = options.video_reader, describe_reader(options.video_reader)
    to_media = partial(as_media, num_frames=options.num_frames, reader=reader, frame_sampling=options.frame_sampling)
    media = _find_media(options.media, to_media, options.dates)
    file = None if options.out is None else _AnswerFile(options.out)
    model = UniRS.from_pretrained(
        options.model, trust_remote_code=options.trust_remote_code, clue_source=options.clue_source
    )
    if options.question is None and _needs_question(model, media[0], options.task):
        options.question = _DESCRIBE
        print(f"unirs: no --question is given: '{_DESCRIBE}'", file=sys.stderr)
    answered = {} if file is None else file.resume(_key(model, options))
    remaining = [one for one in media if one.sources not in answered]
    for row in answered.values():
        _print(row)
    errors = 0
    # A bar is for a person at a terminal, where the answers go.
    with progress_bar("answers", len(remaining), unit="media", show=sys.stdout.isatty()) as advance:
        for start in range(0, len(remaining), _BATCH):
            for answer in _predict(model, remaining[start : start + _BATCH], options):
                if isinstance(answer, DataError):
                    if len(media) == 1:
                        raise answer
                    errors += 1
                    print(f"unirs: no answer: {answer}", file=sys.stderr)
                else:
                    row = _Row(
                        task=answer.task,
                        media=list(answer.media),
                        prompt=answer.prompt,
                        clue=answer.clue,
                        text=answer.text,
                    )
                    if file is not None:
                        file.append(row)
                    _print(row)
                advance()
    if errors:
        raise MediaError(f"{errors} of {len(media)} media have no answer. Their errors are listed above.")


def _needs_question(model: "UniRS", media: Media, task: str | None) -> bool:
    """Whether the prompt that is used for media has no instruction of its own."""
    prompts = [
        saved.prompt
        for name, saved in model.config.prompts.items()
        if saved.modality == media.modality and task in (None, name)
    ]
    return bool(prompts) and "{question}" in prompts[0].instruction


def _predict(model: "UniRS", media: Sequence[Media], options: argparse.Namespace) -> Iterator["Completion | DataError"]:
    """Answers, or errors of media that have none, in the order of the media."""
    try:
        yield from model.predict(
            media,
            options.question,
            task=options.task,
            details=False,
            generation=generation_options(options),
            batch_size=_BATCH,
        )
    except DataError as error:
        if len(media) == 1:
            yield error
            return
        for one in media:
            yield from _predict(model, [one], options)


def _print(row: _Row) -> None:
    print(f"{' -> '.join(row['media'])}: {row['text']}", flush=True)


def _key(model: "UniRS", options: argparse.Namespace) -> str:
    """A hash of all that answers depend on, besides the content of media."""
    from unirs.utils.hashing import fingerprint

    given = {name: value for name, value in vars(options).items() if name not in ("model", "out", "run")}
    values = (fingerprint(model.model.state_dict()), asdict(model.config), given)
    return hashlib.sha256(json.dumps(values, default=str, sort_keys=True).encode()).hexdigest()


class _AnswerFile:
    """JSON lines of answers, which survive an interruption; the hidden file `.<name>.key` holds their key.

    Raises:
        UniRSError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key_file = path.with_name(f".{path.name}.key")
        self.new_key: str | None = None
        check_writable(path.parent, "Name another file with '--out'.")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not path.exists()
            path.open("ab").close()
            if is_new:
                path.unlink()

    def resume(self, key: str) -> dict[tuple[str, ...], _Row]:
        """The rows of an earlier call with the same key, by media. An incomplete last line is removed.

        The first new answer replaces a file with another key.
        """
        if self.key_file.is_file() and self.path.is_file():
            with reading(self.path, "a readable file of JSON lines"):
                is_same = self.key_file.read_bytes() == key.encode()
                if is_same:
                    complete_lines(self.path)
            if is_same:
                rows = (parse_row(row, _Row, where) for where, row in read_json_lines(self.path))
                return {tuple(row["media"]): row for row in rows}
        self.new_key = key
        return {}

    def append(self, row: _Row) -> None:
        """Adds a row."""
        if self.new_key is not None:
            with writing(self.path):
                self.path.unlink(missing_ok=True)
            write_atomically(self.key_file, self.new_key.encode())
            self.new_key = None
        # Names of files may hold bytes that are not UTF-8: lone surrogates in Python, escapes in JSON.
        line = json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        with writing(self.path), self.path.open("ab") as file:
            file.write(line)


def _find_media(
    paths: Sequence[Path], to_media: Callable[[Path], Media], dates: Sequence[str] | None = None
) -> list[Media]:
    """The media that paths name: all of one modality, sorted by path."""
    for path in paths:
        if not path.exists():
            raise MediaError(f"{path} does not exist.")
    if len(paths) > 1 and all(map(_is_image, paths)):
        return [Pair(*paths) if len(paths) == 2 and dates is None else Series(paths, dates)]
    if len(paths) > 1 or dates is not None:
        dated = "" if dates is None else " Dates are of the images of a series."
        raise MediaError(
            "Name one image, two images (before, after), more images (a series), one video or one folder: got "
            f"{len(paths)} paths, not all of them images.{dated}"
        )
    folder = paths[0]
    if not folder.is_dir():
        return [to_media(folder)]
    if (folder / "A").is_dir() and (folder / "B").is_dir():
        return _find_pairs(folder)
    readable = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    media = [to_media(file) for file in sorted(folder.iterdir()) if file.suffix.lower() in readable]
    if not media:
        raise MediaError(f"{folder} holds no image or video ({', '.join(sorted(readable))}).")
    if len({one.modality for one in media}) > 1:
        raise MediaError(f"{folder} holds images and videos, which have different prompts: use one folder for each.")
    return media


def _find_pairs(folder: Path) -> list[Media]:
    before, after = ({file.name: file for file in filter(_is_image, (folder / time).iterdir())} for time in "AB")
    unpaired = sorted(before.keys() ^ after.keys())
    if unpaired:
        only_in = "A" if unpaired[0] in before else "B"
        raise MediaError(f"{folder}: {unpaired[0]} is only in {only_in}/. Pairs have equal names in both.")
    if not before:
        raise MediaError(f"{folder}/A holds no image.")
    return [Pair(before[name], after[name]) for name in sorted(before)]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES
