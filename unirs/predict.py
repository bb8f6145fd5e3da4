"""`unirs predict`: a question about new pictures, pairs or videos, answered by a trained run."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from unirs.api import Answer, UniRS
from unirs.errors import MediaError
from unirs.files import write_atomically
from unirs.media import PICTURE_SUFFIXES, VIDEO_SUFFIXES, Image, Media, Pair, Video

_READABLE = PICTURE_SUFFIXES | VIDEO_SUFFIXES


def predict(
    run: str | Path, paths: Sequence[Path], question: str | None = None, task: str | None = None, frames: int = 8
) -> list[Answer]:
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
    media = find_media(paths, frames)
    # Only people want a bar where the answers go.
    return UniRS.from_pretrained(run).explain(media, question, task=task, details=False, progress=sys.stdout.isatty())


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
    if len(paths) == 2 and all(path.suffix.lower() in PICTURE_SUFFIXES for path in paths):
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
    if len({medium.kind for medium in media}) > 1:
        raise MediaError(f"{path} holds pictures and videos. They are asked differently: put them into a folder each.")
    return media


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Writes answers as JSON lines: task, media, prompt, clue, prediction. A former file stays until the new one is."""
    lines = [
        {
            "task": answer.task,
            "media": list(map(str, answer.media.paths)),
            "prompt": answer.prompt,
            "clue": answer.clue,
            "prediction": answer.text,
        }
        for answer in answers
    ]
    write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())


def _medium(path: Path, frames: int) -> Media:
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return Image(path)
    if suffix in VIDEO_SUFFIXES:
        return Video(path, frames)
    raise MediaError(f"{path} is neither a picture nor a video by its ending ({', '.join(sorted(_READABLE))}).")


def _pairs(folder: Path) -> list[Media]:
    before, after = (
        {file.name: file for file in sorted((folder / part).iterdir()) if file.suffix.lower() in PICTURE_SUFFIXES}
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
