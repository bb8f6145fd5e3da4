"""`unirs predict`: a question about new media, answered by a trained run or a saved model."""

import argparse
from pathlib import Path


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
    parser.add_argument("--frames", type=int, default=8, help="frames of a video (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="also write the answers as JSON lines to this file")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from unirs.commands import hide_warnings

    hide_warnings()
    from unirs.predict import predict, write_answers

    rows = predict(options.model, options.media, options.question, options.task, options.frames)
    for row in rows:
        print(f"{' -> '.join(map(str, row.media.paths))}: {row.text}")
    if options.out is not None:
        write_answers(options.out, rows)
