"""What a report of one evaluation shows: tables, charts and a choice of samples."""

from __future__ import annotations

import csv
import math
import random
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unirs.errors import DataError
from unirs.evaluation.report import charts
from unirs.evaluation.report.media_view import MediaView, change_thumbnail, media_of, view_media
from unirs.evaluation.results import task_notes, task_table
from unirs.metrics.base import Prediction
from unirs.metrics.box_text import box_syntax
from unirs.metrics.vqa import normalize_answer
from unirs.tasks.config import task_label
from unirs.tasks.fields import parse_row
from unirs.tasks.raster import Raster
from unirs.utils.io import read_row, scan_json_lines
from unirs.utils.progress import track
from unirs.utils.typed_yaml import read_config

if TYPE_CHECKING:
    import numpy as np

    from unirs.tasks.media import Media

ChangeMaps = Callable[[Sequence["Media"]], Sequence["np.ndarray | None"]]
"""Computes the map of change of each of some media, similarities `[h, w]`; None for media without one."""

FindMedia = Callable[[Prediction], "Media"]
"""Finds the media of a row of predictions; raises a `DataError` if they cannot be shown."""

_MAX_CLASSES = 30
_BUDGET = 26_000_000
"""Bytes of the thumbnails of a report."""

_PICKS = ("worst", "best", "random")


@dataclass(frozen=True)
class TaskSection:
    """Scores of a task.

    Attributes:
        title: the task's name, or that of the table.
        table: rows of text with the head first; empty for notes alone.
        notes: remarks below the table.
        charts: SVG by caption.
        published: the same task's published numbers.
    """

    title: str
    table: Sequence[Sequence[str]]
    notes: Sequence[str]
    charts: Mapping[str, str]
    published: TaskSection | None = None


@dataclass
class Card:
    """A sample of the gallery.

    Attributes:
        row: the question with its answer.
        score: of the answer; NaN if rows have none.
        verdict: `right`, `wrong`, or empty if answers are graded.
        picks: which of `worst`, `best` and `random` the sample is, or `better` and `worse` in a comparison.
        view: the media.
        other: the answer of the second run in a comparison.
    """

    row: Prediction
    score: float
    verdict: str
    picks: list[str]
    view: MediaView = field(default_factory=MediaView)
    other: str | None = None


def task_sections(folder: Path, document: Mapping[str, Any], published: Mapping[str, TaskSection]) -> list[TaskSection]:
    """The scores of each task of an evaluation, whose results are in `folder`, with published numbers by task."""
    return [_section(folder, document, task, published.get(task)) for task in document["tasks"]]


def _section(folder: Path, document: Mapping[str, Any], task: str, published: TaskSection | None) -> TaskSection:
    metrics = document["tasks"][task]
    drawn: dict[str, str] = {}
    by_category: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, numbers in metrics.items():
        metric, _, category = name.partition("/")
        if category and numbers["value"] is not None:
            by_category[metric][category] = numbers
    primary = document.get("primary", {}).get(task, "")
    if primary not in by_category:
        primary = next(iter(by_category), "")
    if primary:
        drawn[f"{primary} by category"] = charts.bars(by_category[primary], primary)
    matrix = _confusion(folder / "predictions" / f"{task}.jsonl")
    if matrix is not None:
        drawn["answers by reference"] = charts.confusion(*matrix)
    return TaskSection(task, task_table(document, task), task_notes(document, task), drawn, published)


def _confusion(path: Path) -> tuple[list[str], list[list[int]]] | None:
    """Counts of answers by reference, if rows have one short reference each and there are few different ones."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    labels: dict[str, None] = {}
    for _, (row, _, _) in scan_json_lines(path):
        references = row.get("references", [])
        truth = normalize_answer(str(references[0])) if references else ""
        labels[truth] = None
        if len(set(references)) != 1 or len(labels) > _MAX_CLASSES:
            return None
        counts[truth, normalize_answer(str(row.get("normalized", "")))] += 1
    names = sorted(labels)
    if len(names) < 2:
        return None
    known = {name: index for index, name in enumerate(names)}
    columns = [*names, "other"] if any(answer not in known for _, answer in counts) else names
    table = [[0] * len(columns) for _ in columns]
    for (truth, answer), count in counts.items():
        table[known[truth]][known.get(answer, len(columns) - 1)] += count
    return columns, table


def training_curves(run: Path) -> dict[str, str]:
    """Charts of the newest log of a run's training, by caption; none if there is no log."""
    logs = sorted(run.glob("logs/version_*/metrics.csv"), key=lambda path: int(path.parent.name.rpartition("_")[2]))
    if not logs:
        return {}
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with logs[-1].open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if name and text and name.startswith(("train/", "val/")) and math.isfinite(float(text)):
                    curves[name].append((float(row["step"]), float(text)))
    losses: dict[str, list[tuple[float, float]]] = {}
    losses |= {name: curves.pop(name) for name in ("train/loss", "val/loss") if name in curves}
    drawn = {"loss": charts.lines(losses, "loss")} if losses else {}
    drawn |= {name: charts.lines({name: points}, name) for name, points in sorted(curves.items()) if len(points) > 1}
    return drawn


def choose_cards(folder: Path, tasks: Sequence[str], samples: int) -> list[Card]:
    """At most `samples` cards: of each task equal numbers of the worst, the best and random rows."""
    import numpy as np

    cards = []
    for task in tasks:
        path = folder / "predictions" / f"{task}.jsonl"
        scores, ends = array("d"), array("q", [0])
        for _, (row, _, end) in scan_json_lines(path):
            scores.append(_score(row))
            ends.append(end)
        graded = any(score not in (0.0, 1.0) for score in scores)
        count = max(1, samples // (len(tasks) * len(_PICKS)))
        by_score = np.argsort(scores, kind="stable")
        drawn = random.Random(0).sample(range(len(scores)), min(count, len(scores)))  # noqa: S311 - not a secret
        picks: dict[int, list[str]] = defaultdict(list)
        for name, indices in zip(
            _PICKS, (by_score[:count].tolist(), by_score[::-1][:count].tolist(), sorted(drawn)), strict=True
        ):
            for index in indices:
                picks[index].append(name)
        for index, names in picks.items():
            verdict = "" if graded else "right" if scores[index] else "wrong"
            # Only these rows, as a task may have a million.
            row = parse_row(read_row(path, ends[index], ends[index + 1]), Prediction, f"{path}, row {index + 1}")
            cards.append(Card(row, scores[index], verdict, names))
    return cards


def saved_specs(run: Path) -> dict[str, Any]:
    """The tasks' entries in a run's `config.yaml`, by name; empty if there is none."""
    file = run / "config.yaml"
    data = read_config(file).get("data") if file.is_file() else None
    specs = data.get("tasks") if isinstance(data, Mapping) else None
    return {task_label(spec): spec for spec in (specs if isinstance(specs, list) else []) if isinstance(spec, Mapping)}


def saved_media(run: Path) -> FindMedia:
    """Finds the media of rows by their paths, and by the `raster` options of the tasks in a run's `config.yaml`."""
    specs = saved_specs(run).items()
    options = {label: spec["raster"] for label, spec in specs if isinstance(spec.get("raster"), Mapping)}
    return lambda row: media_of(row.media, Raster.from_args(options.get(row.task, {})))


def add_views(cards: Sequence[Card], find_media: FindMedia, change_maps: ChangeMaps | None) -> None:
    """Adds frames, boxes and maps of change to cards; the view of media that cannot be read has the error."""
    budget = _BUDGET // max(1, len(cards))
    pairs: list[tuple[Card, Media]] = []
    for card in track(cards, "thumbnails", len(cards), unit="samples"):
        try:
            media = find_media(card.row)
            card.view = view_media(media, budget)
        except DataError as error:
            card.view = MediaView(missing=str(error))
            continue
        _add_boxes(card)
        if media.modality == "pair":
            pairs.append((card, media))
    if not pairs or change_maps is None:
        return
    maps = change_maps([media for _, media in pairs])
    largest = max((float(1 - one.min()) for one in maps if one is not None), default=0.0)
    for (card, _), one in zip(pairs, maps, strict=True):
        card.view.change = "" if one is None else change_thumbnail(one, largest)


def _add_boxes(card: Card) -> None:
    references = " ".join(card.row.references)
    rule = box_syntax([references])
    if rule is not None:
        answers = {"answer": card.row.answer} if card.other is None else {"A": card.row.answer, "B": card.other}
        card.view.add_boxes({"reference": references} | answers, rule)


def _score(row: Mapping[str, Any]) -> float:
    score = row.get("score")
    return float(score) if isinstance(score, int | float) else math.nan


def categories(cards: Iterable[Card]) -> list[str]:
    """The categories of cards, sorted."""
    return sorted({card.row.category for card in cards} - {""})
