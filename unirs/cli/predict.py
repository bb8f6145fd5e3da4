"""`unirs predict`: answers a question about new media with a trained run or a saved model."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from unirs.errors import MediaError
from unirs.tasks.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Media, Pair, as_media
from unirs.utils.io import write_atomically


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("model", metavar="RUN", help="folder of a trained run or of a saved model, or a hub id")
    parser.add_argument(
        "media",
        type=Path,
        nargs="+",
        metavar="MEDIA",
        help="an image; two images (before, after); a video; or a folder of images, videos, or pairs in A/ and B/",
    )
    parser.add_argument("--question", help="the question (default: the task's own instruction)")
    parser.add_argument("--task", help="the task whose prompt is used (default: the first one of the media's modality)")
    parser.add_argument("--num-frames", type=int, default=8, help="frames of a video (default: %(default)s)")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that the model's config names by file or dotted path"
    )
    parser.add_argument("--clue-source", help="the model that generates clues, if they were another's in training")
    parser.add_argument("--out", type=Path, help="also write the answers as JSON lines to this file")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from unirs.inference.api import UniRS

    media = _find_media(options.media, options.num_frames)
    model = UniRS.from_pretrained(
        options.model, trust_remote_code=options.trust_remote_code, clue_source=options.clue_source
    )
    # A bar is for a person at a terminal, where the answers go.
    progress = sys.stdout.isatty()
    answers = model.predict(media, options.question, task=options.task, details=False, progress=progress)
    for answer in answers:
        print(f"{' -> '.join(answer.media)}: {answer.text}")
    if options.out is not None:
        keys = ("task", "media", "prompt", "clue", "text")
        rows = [{key: getattr(answer, key) for key in keys} for answer in answers]
        write_atomically(options.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def _find_media(paths: Sequence[Path], num_frames: int) -> list[Media]:
    """The media that paths name: all of one modality, sorted by path."""
    for path in paths:
        if not path.exists():
            raise MediaError(f"{path} does not exist.")
    if len(paths) == 2 and all(map(_is_image, paths)):
        return [Pair(*paths)]
    if len(paths) > 1:
        raise MediaError(
            f"Name one image, two images (before, after), one video or one folder: got {len(paths)} paths."
        )
    folder = paths[0]
    if not folder.is_dir():
        return [as_media(folder, num_frames)]
    if (folder / "A").is_dir() and (folder / "B").is_dir():
        return _find_pairs(folder)
    readable = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    media = [as_media(file, num_frames) for file in sorted(folder.iterdir()) if file.suffix.lower() in readable]
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
