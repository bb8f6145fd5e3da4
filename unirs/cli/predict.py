"""`unirs predict`: answers a question about new media with a trained run or a saved model."""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from unirs.cli import add_generation_options, add_video_reader, generation_options
from unirs.cli.answer_file import AnswerFile, AnswerRow
from unirs.errors import DataError, MediaError
from unirs.tasks.georeference import Grid, georeference
from unirs.tasks.inputs import as_media, with_raster
from unirs.tasks.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Media, Pair, media_files
from unirs.tasks.raster import NoDataError, Raster, Window
from unirs.tasks.scene import feature_collection, split_scene
from unirs.tasks.series import Series
from unirs.tasks.video_reader import FrameSampling, describe_reader
from unirs.utils.io import write_atomically
from unirs.utils.progress import progress_bar

if TYPE_CHECKING:
    from unirs.inference.api import UniRS
    from unirs.inference.completion import Completion

_BATCH = 16
_DESCRIBE = "Describe the image."
"""The question if there is none, and the task has no instruction of its own."""
_NOT_PROPERTIES = ("text", "bounds", "crs")
"""Fields of rows that GeoJSON has in another form."""


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
    geotiff = parser.add_argument_group("GeoTIFF files (unirs[geo])")
    text = "three bands for red, green and blue, or one, by number from 1"
    geotiff.add_argument("--bands", type=int, nargs="+", metavar="N", help=text)
    percent, limits = ("LOW", "HIGH"), ("BLACK", "WHITE")
    text = "percentiles of each band that become black and white, such as 2 98"
    geotiff.add_argument("--stretch", type=float, nargs=2, metavar=percent, help=text)
    text = "values that become black and white, such as 0 3000"
    geotiff.add_argument("--value-range", type=float, nargs=2, metavar=limits, help=text)
    text = "answer about each tile of SIZE x SIZE pixels of a scene, or of two scenes (before, after)"
    geotiff.add_argument("--tiles", type=int, metavar="SIZE", help=text)
    geotiff.add_argument("--overlap", type=int, default=0, metavar="N", help="pixels that neighbouring tiles share")
    text = "answers to choose among by likelihood (default: free text)"
    parser.add_argument("--choices", nargs="+", metavar="TEXT", help=text)
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that the model's config names by file or dotted path"
    )
    add_generation_options(parser)
    parser.add_argument("--clue-source", help="the model that generates clues, if they were another's in training")
    parser.add_argument(
        "--out",
        type=Path,
        help="also write the answers as JSON lines to this file, and keep those of an earlier, equal call; of --tiles "
        "as GeoJSON to a .geojson file",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from unirs.inference.api import UniRS

    # Its version is one of the options that answers depend on.
    reader, options.video_reader = options.video_reader, describe_reader(options.video_reader)
    raster = _raster(options)
    windows: dict[Media, Window] = {}
    is_geojson = options.out is not None and options.out.suffix.lower() == ".geojson"
    if options.tiles is None:
        to_media = partial(
            as_media, num_frames=options.num_frames, reader=reader, frame_sampling=options.frame_sampling
        )
        media = _find_media(options.media, to_media, options.dates)
        media = media if raster is None else [with_raster(one, raster) for one in media]
        if is_geojson:
            raise MediaError("GeoJSON holds the answers of --tiles. Add it, or name a .jsonl file with '--out'.")
    else:
        grid, tiles = split_scene(options.media, raster, options.tiles, options.overlap)
        windows = {one: window for window, one in tiles}
        media = list(windows)
        if is_geojson and grid.crs is None:
            raise MediaError(f"{options.media[0]} has no georeference, so --out cannot be GeoJSON. Name a .jsonl file.")
    file = None
    if options.out is not None:
        # GeoJSON cannot be appended to: it is written from hidden JSON lines.
        file = AnswerFile(options.out.with_name(f".{options.out.name}.jsonl") if is_geojson else options.out)
    model = UniRS.from_pretrained(
        options.model, trust_remote_code=options.trust_remote_code, clue_source=options.clue_source
    )
    if options.question is None and _needs_question(model, media[0], options.task):
        options.question = _DESCRIBE
        print(f"unirs: no --question is given: '{_DESCRIBE}'", file=sys.stderr)
    if windows:
        _, _, width, height = windows[media[0]]
        tokens = model.processor.num_visual_tokens(media[0], (height, width))
        print(f"unirs: {len(media)} tiles of {width}x{height}, {tokens} visual tokens each", file=sys.stderr)
    elif model.processor.resize.max_tiles and media[0].modality == "image":
        most = (1 + model.processor.resize.max_tiles) * model.processor.tokens_per_image
        print(f"unirs: larger images are tiled: at most {most} visual tokens each", file=sys.stderr)
    rows = {} if file is None else file.resume(_key(model, options))
    remaining = [one for one in media if one.sources not in rows]
    for row in rows.values():
        _print(row)
    errors, empty = 0, 0
    # A bar is for a person at a terminal, where the answers go.
    with progress_bar("answers", len(remaining), unit="media", show=sys.stdout.isatty()) as advance:
        for start in range(0, len(remaining), _BATCH):
            batch = remaining[start : start + _BATCH]
            for one, answer in zip(batch, _predict(model, batch, options), strict=True):
                if isinstance(answer, NoDataError) and windows:
                    empty += 1
                elif isinstance(answer, DataError):
                    if len(media) == 1:
                        raise answer
                    errors += 1
                    print(f"unirs: no answer: {answer}", file=sys.stderr)
                else:
                    row = rows[one.sources] = _row(answer, one, windows.get(one))
                    if file is not None:
                        file.append(row)
                    _print(row)
                advance()
    if empty:
        print(f"unirs: {empty} of {len(media)} tiles have no data, and no answer", file=sys.stderr)
    if is_geojson:
        _write_geojson(options.out, grid, [(windows[one], rows[one.sources]) for one in media if one.sources in rows])
    if errors:
        raise MediaError(f"{errors} of {len(media)} media have no answer. Their errors are listed above.")


def _raster(options: argparse.Namespace) -> Raster | None:
    given = options.bands, options.stretch, options.value_range
    return None if given == (None, None, None) else Raster(*given)


def _row(answer: "Completion", media: Media, window: Window | None) -> AnswerRow:
    row = AnswerRow(
        task=answer.task, media=list(answer.media), prompt=answer.prompt, clue=answer.clue, text=answer.text
    )
    if answer.choice_logprobs:
        row["choice_logprobs"] = dict(answer.choice_logprobs)
    if window is not None:
        row["window"] = list(window)
    located = georeference(media_files(media)[0], window)
    if located is not None:
        row["bounds"], row["crs"] = located
    return row


def _write_geojson(path: Path, grid: Grid, rows: Sequence[tuple[Window, AnswerRow]]) -> None:
    features = []
    for window, row in rows:
        properties = {"answer": row["text"], **{key: value for key, value in row.items() if key not in _NOT_PROPERTIES}}
        features.append((window, properties))
    content = json.dumps(feature_collection(grid, features), ensure_ascii=False)
    write_atomically(path, content.encode(errors="backslashreplace"))


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
            choices=options.choices,
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


def _print(row: AnswerRow) -> None:
    print(f"{' -> '.join(row['media'])}: {row['text']}", flush=True)


def _key(model: "UniRS", options: argparse.Namespace) -> str:
    """A hash of all that answers depend on, besides the content of media."""
    from unirs.utils.hashing import fingerprint

    given = {name: value for name, value in vars(options).items() if name not in ("model", "out", "run")}
    values = (fingerprint(model.model.state_dict()), asdict(model.config), given)
    return hashlib.sha256(json.dumps(values, default=str, sort_keys=True).encode()).hexdigest()


def _find_media(
    paths: Sequence[Path], to_media: Callable[[Path], Media], dates: Sequence[str] | None = None
) -> list[Media]:
    """The media that paths name: all of one modality, sorted by path."""
    for path in paths:
        if not path.exists():
            raise MediaError(f"{path} does not exist. Correct the path: names are relative to {Path.cwd()}.")
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
        raise MediaError(f"{folder} holds no image or video ({', '.join(sorted(readable))}). Name another folder.")
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
