"""`unirs predict`: a question about new pictures, pairs or videos, answered by a trained run."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from lightning import Trainer
from torch.utils.data import DataLoader, Dataset

from unirs.data import FrameCache, Item, Items, UniRSData
from unirs.errors import MediaError, UniRSError, nearest
from unirs.files import write_atomically
from unirs.media import Image, Media, Pair, Video
from unirs.metrics.base import Prediction
from unirs.module import UniRSModule
from unirs.prompt import Prompt
from unirs.sample import Sample, Turn
from unirs.trainer_cli import best_checkpoint

_PICTURES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_VIDEOS = {".avi", ".mkv", ".mov", ".mp4", ".webm"}


def predict(
    run: Path, paths: Sequence[Path], question: str | None = None, task: str | None = None, frames: int = 8
) -> list[Prediction]:
    """Answers a question about new media.

    Args:
        run: folder of a trained run.
        paths: a picture; two pictures (before, after); a video; or a folder of them.
        question: what to ask; None asks the task's own instruction.
        task: whose prompt to use; None takes the run's first task of the media's kind.
        frames: frames of a video.

    Returns:
        One row for each picture, pair or video, without references.

    Raises:
        UniRSError: media, run, task and question do not fit together.
    """
    media = find_media(paths, frames)
    module, data = _load(run)
    name, prompt = _prompt(data, media[0], question, task)
    turn = Turn("", (), {"question": question or ""})
    items = [Item(name, Sample(str(index), medium, (turn,))) for index, medium in enumerate(media)]
    trainer = Trainer(
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        # The bar goes to where the answers go, and only people want it there.
        enable_progress_bar=sys.stdout.isatty(),
    )
    # The tokenizer of a model that started from scratch comes with its checkpoint, and the loader needs it.
    module.load(best_checkpoint(run))
    dataset: Dataset[Any] = Items(items, FrameCache(module.frame_size, 0))
    collator = module.collator({name: prompt}, data.max_length, training=False)
    loader = DataLoader(dataset, batch_size=data.eval_batch_size, collate_fn=collator)
    batches = trainer.predict(module, loader) or []
    return [Prediction(**row) for batch in batches for row in batch]


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
    if len(paths) == 2 and all(path.suffix.lower() in _PICTURES for path in paths):
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
    media = [_medium(file, frames) for file in sorted(path.iterdir()) if file.suffix.lower() in _PICTURES | _VIDEOS]
    if not media:
        raise MediaError(f"{path} holds no picture or video ({', '.join(sorted(_PICTURES | _VIDEOS))}).")
    if len({medium.kind for medium in media}) > 1:
        raise MediaError(f"{path} holds pictures and videos. They are asked differently: put them into a folder each.")
    return media


def write_answers(path: Path, rows: Sequence[Prediction]) -> None:
    """Writes answers as JSON lines: task, media, prompt, prediction. A former file stays whole until the new one is."""
    lines = [
        {"task": row.task, "media": list(row.media), "prompt": row.prompt, "prediction": row.prediction} for row in rows
    ]
    write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())


def _medium(path: Path, frames: int) -> Media:
    suffix = path.suffix.lower()
    if suffix in _PICTURES:
        return Image(path)
    if suffix in _VIDEOS:
        return Video(path, frames)
    raise MediaError(
        f"{path} is neither a picture nor a video by its ending ({', '.join(sorted(_PICTURES | _VIDEOS))})."
    )


def _pairs(folder: Path) -> list[Media]:
    before, after = (
        {file.name: file for file in sorted((folder / part).iterdir()) if file.suffix.lower() in _PICTURES}
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


def _load(run: Path) -> tuple[UniRSModule, UniRSData]:
    file = run / "config.yaml"
    if not file.is_file():
        raise UniRSError(f"{run} is not the folder of a run: it has no config.yaml. Train one with 'unirs fit'.")
    best_checkpoint(run)
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    # The model and the data alone: the run's trainer may name devices that this machine does not have.
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(UniRSModule, "model")
    parser.add_class_arguments(UniRSData, "data")
    parts = parser.instantiate_classes(parser.parse_object({key: config[key] for key in ("model", "data")}))
    return parts.model, parts.data


def _prompt(data: UniRSData, medium: Media, question: str | None, task: str | None) -> tuple[str, Prompt]:
    fitting = {name: named.task for name, named in data.tasks.items() if named.task.kind == medium.kind}
    if task is not None and task not in fitting:
        raise UniRSError(f"The run has no task '{task}' for {medium.kind} media. {nearest(task, fitting)}")
    if not fitting:
        raise UniRSError(f"The run has no task for {medium.kind} media: it was trained on {', '.join(data.tasks)}.")
    name = task or next(iter(fitting))
    prompt = fitting[name].prompt
    if "{question}" in prompt.instruction:
        if question is None:
            raise UniRSError(f"Task '{name}' needs a question: add --question 'Is there a road?'.")
        return name, prompt
    # The task's instruction is fixed; a question of the user's own takes its place.
    return name, prompt if question is None else Prompt(prompt.tag, "{question}")
