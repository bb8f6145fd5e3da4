"""`unirs predict`: a question about new media, answered by a trained run or a saved model."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unirs.errors import MediaError
from unirs.tasks.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Image, Media, Pair, Video
from unirs.utils.io import write_atomically

if TYPE_CHECKING:
    from unirs.inference.completion import Completion

_READABLE = IMAGE_SUFFIXES | VIDEO_SUFFIXES


def predict(
    run: str | Path, paths: Sequence[Path], question: str | None = None, task: str | None = None, frames: int = 8
) -> list[Completion]:
    """Answers a question about new media.

    Args:
        run: folder of a trained run or of a saved model, or a hub id.
        paths: a picture; two pictures (before, after); a video; or a folder of them.
        question: what to ask; None asks the task's own instruction.
        task: whose prompt to use; None takes the run's first task of the media's kind.
        frames: frames of a video.

    Returns:
        One for each picture, pair or video.

    Raises:
        UniRSError: media, run, task and question do not fit together.
    """
    from unirs.inference.api import UniRS

    media = find_media(paths, frames)
    # Only people want a bar where the answers go.
    return UniRS.from_pretrained(run).predict(media, question, task=task, details=False, progress=sys.stdout.isatty())


def find_media(paths: Sequence[Path], frames: int) -> list[Media]:
    """What the command line names.

    Args:
        paths: a picture, two pictures, a video, or one folder of pictures and videos or of pairs in `A/` and `B/`.
        frames: frames of a video.

    Returns:
        Media of one kind, sorted by path.

    Raises:
        MediaError: nothing that UniRS reads, or several kinds at once.
    """
    if frames < 1:
        raise MediaError(f"A video cannot be shown as {frames} frames. Ask for 1 or more.")
    for path in paths:
        if not path.exists():
            raise MediaError(f"{path} does not exist.")
    if len(paths) == 2 and all(path.suffix.lower() in IMAGE_SUFFIXES for path in paths):
        return [Pair(paths[0], paths[1])]
    if len(paths) > 1:
        raise MediaError(
            f"Name one picture, two pictures (before, after), one video or one folder: got {len(paths)} paths."
        )
    path = paths[0]
    if not path.is_dir():
        return [_medium(path, frames)]
    if (path / "A").is_dir() and (path / "B").is_dir():
        return _pairs(path)
    media = [_medium(file, frames) for file in sorted(path.iterdir()) if file.suffix.lower() in _READABLE]
    if not media:
        raise MediaError(f"{path} holds no picture or video ({', '.join(sorted(_READABLE))}).")
    if len({medium.modality for medium in media}) > 1:
        raise MediaError(f"{path} holds pictures and videos. They are asked differently: put them into a folder each.")
    return media


def write_answers(path: Path, answers: Sequence[Completion]) -> None:
    """Writes answers as JSON lines: task, media, prompt, clue, text. A former file stays until the new one is."""
    lines = [
        {
            "task": answer.task,
            "media": list(answer.media),
            "prompt": answer.prompt,
            "clue": answer.clue,
            "text": answer.text,
        }
        for answer in answers
    ]
    write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())


def _medium(path: Path, frames: int) -> Media:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return Image(path)
    if suffix in VIDEO_SUFFIXES:
        return Video(path, frames)
    raise MediaError(f"{path} is neither a picture nor a video by its ending ({', '.join(sorted(_READABLE))}).")


def _pairs(folder: Path) -> list[Media]:
    before, after = (
        {file.name: file for file in sorted((folder / part).iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES}
        for part in "AB"
    )
    alone = sorted(before.keys() ^ after.keys())
    if alone:
        raise MediaError(
            f"{folder}: {alone[0]} is only in {'A' if alone[0] in before else 'B'}/. Pairs have equal names in both."
        )
    if not before:
        raise MediaError(f"{folder}/A holds no picture.")
    return [Pair(before[name], after[name]) for name in before]


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("model", metavar="RUN", help="folder of a trained run or of a saved model, or a hub id")
    parser.add_argument(
        "media",
        type=Path,
        nargs="+",
        metavar="MEDIA",
        help="a picture; two pictures (before, after); a video; or a folder of pictures, videos, or pairs in A/ and B/",
    )
    parser.add_argument("--question", help="what to ask; where left out, the task's own instruction")
    parser.add_argument("--task", help="whose prompt to use; where left out, the run's first task of the media's kind")
    parser.add_argument("--num-frames", type=int, default=8, help="frames of a video (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="also write the answers as JSON lines to this file")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from unirs.cli import hide_warnings

    hide_warnings()

    rows = predict(options.model, options.media, options.question, options.task, options.num_frames)
    for row in rows:
        print(f"{' -> '.join(row.media)}: {row.text}")
    if options.out is not None:
        write_answers(options.out, rows)
