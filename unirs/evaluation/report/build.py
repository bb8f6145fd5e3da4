"""Writes reports: of an evaluation of a run, of two runs, and of a suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unirs.errors import DataError, UniRSError
from unirs.evaluation.comparison import compare_runs
from unirs.evaluation.comparison_report import statistics_table
from unirs.evaluation.report import charts
from unirs.evaluation.report.content import (
    Card,
    ChangeMaps,
    FindMedia,
    TaskSection,
    add_views,
    categories,
    choose_cards,
    saved_media,
    task_sections,
    training_curves,
)
from unirs.evaluation.report.media_view import templates
from unirs.evaluation.report.published import table_section
from unirs.evaluation.results import read_metrics
from unirs.utils.io import read_json, write_atomically

STAGES = ("test", "bench", "validate")

_NOTE = "Values are of the whole split; intervals are 95 % bootstrap intervals, media resampled together."


def report_run(
    run: Path,
    stage: str,
    out: Path,
    *,
    samples: int = 240,
    find_media: FindMedia | None = None,
    change_maps: ChangeMaps | None = None,
    published: Mapping[str, TaskSection] | None = None,
) -> None:
    """Writes the report of an evaluation of a run.

    Args:
        run: folder of the run, with the results in `<run>/<stage>`.
        stage: `test`, `bench` or `validate`.
        out: the HTML file.
        samples: maximum number of samples of the gallery.
        find_media: finds the media of a row; None to read the files that it names.
        change_maps: computes maps of change; None for a report without them.
        published: sections with published numbers by task, see `published_sections`.

    Raises:
        DataError: results are missing or damaged.
    """
    folder = run / stage
    document = read_metrics(folder / "metrics.json")
    cards = choose_cards(folder, list(document["tasks"]), samples)
    add_views(cards, find_media or saved_media(run), change_maps)
    step = "" if document["step"] is None else f", step {document['step']}"
    _write(
        out,
        title=f"{run.resolve().name}: {stage}",
        subtitle=f"{len(document['tasks'])} tasks{step}. {_NOTE}",
        sections=task_sections(folder, document, published or {}),
        curves=training_curves(run),
        cards=cards,
    )


def report_comparison(runs: tuple[Path, Path], stage: str, out: Path, *, samples: int = 240, **options: Any) -> None:  # noqa: ANN401 - of `compare_runs`
    """Writes the report of the differences of two runs on the same questions; `options` are those of `compare_runs`."""
    sections, cards = [], []
    comparisons = compare_runs(*runs, stage, **options)
    for comparison in comparisons:
        differences = {
            one.metric: {"value": gap.value, "ci_low": _known(gap.ci_low), "ci_high": _known(gap.ci_high)}
            for one in comparison.metrics
            if (gap := one.difference).value == gap.value
        }
        drawn = {"differences with 95 % intervals": charts.bars(differences, "B - A")} if differences else {}
        notes = [f"{len(comparison.changes)} of {comparison.metrics[0].n} rows have another score."]
        sections.append(TaskSection(comparison.task, statistics_table(comparison), notes, drawn))
        for change in comparison.changes[: max(1, samples // len(comparisons))]:
            pick = "better_in_B" if change.scores[1] > change.scores[0] else "better_in_A"
            cards.append(Card(change.first, change.scores[0], "", [pick], other=change.second.text))
    add_views(cards, saved_media(runs[0]), None)
    names = " and ".join(run.resolve().name for run in runs)
    subtitle = f"A is {runs[0]}, B is {runs[1]}. Intervals and p: paired bootstrap. Samples: those that changed most."
    _write(out, title=f"{names}: {stage}", subtitle=subtitle, sections=sections, curves={}, cards=cards)


def report_suite(suite: Path, out: Path) -> None:
    """Writes the leaderboard of a suite from the `table.json` that `unirs bench` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = suite / "table.json"
    document = read_json(path)
    try:
        sections = [table_section(table) for table in document["tasks"]]
        title = str(document["title"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is not a table of unirs bench ({error!r}). Run the benchmark again.") from error
    subtitle = "Numbers are times 100. Blue: models that this benchmark ran; grey: published."
    _write(out, title=title, subtitle=subtitle, sections=sections, curves={}, cards=[])


def _known(number: float) -> float | None:
    return number if number == number else None


def _write(
    out: Path,
    *,
    title: str,
    subtitle: str,
    sections: Sequence[TaskSection],
    curves: Mapping[str, str],
    cards: Sequence[Card],
) -> None:
    if not sections:
        raise UniRSError(f"There is nothing to report in {out.parent}: it holds no task.")
    filters = {
        "task": sorted({card.row.task for card in cards}),
        "category": categories(cards),
        "answer": sorted({card.verdict for card in cards} - {""}),
        "choice": sorted({pick for card in cards for pick in card.picks}),
    }
    page = (
        templates()
        .get_template("report.html.jinja")
        .render(
            title=title,
            subtitle=subtitle,
            sections=sections,
            curves=curves,
            cards=cards,
            filters={name: values for name, values in filters.items() if len(values) > 1},
            has_maps=any(card.view.change for card in cards),
        )
    )
    # Names of files may hold bytes that are not UTF-8, as lone surrogates.
    write_atomically(out, page.encode(errors="backslashreplace"))
