"""`unirs report`: scores, charts and samples of a run, of two runs or of a suite as one HTML file."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from unirs.errors import UniRSError
from unirs.utils.io import check_writable

if TYPE_CHECKING:
    from unirs.evaluation.report.content import TaskSection


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="a run; two runs, to compare them; or the output folder of unirs bench, for a leaderboard",
    )
    parser.add_argument("--stage", help="test, bench or validate (default: the first that the run has)")
    parser.add_argument(
        "--suite",
        type=Path,
        metavar="FILE",
        help="a suite of unirs bench: also show its published numbers",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the HTML file (default: beside the results)")
    parser.add_argument("--samples", type=int, default=240, help="maximum number of samples to show")
    parser.add_argument("--no-change-maps", action="store_true", help="do not load the model for maps of change")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that the run's config names by file or dotted path"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from unirs.evaluation.report import build

    if options.samples < 1:
        raise UniRSError(f"--samples must be 1 or more, got {options.samples}.")
    if len(options.paths) > 2:
        raise UniRSError(f"Name one run, two runs, or one folder of unirs bench: got {len(options.paths)} paths.")
    first = options.paths[0]
    leaderboard = len(options.paths) == 1 and (first / "table.json").is_file()
    if options.suite and (leaderboard or len(options.paths) == 2):
        raise UniRSError("--suite is for the report of one run. Name one run, or omit it.")
    stage = "" if leaderboard else options.stage or _first_stage(first)
    folder = first if leaderboard else first / stage
    out = options.out or folder / (
        "report.html" if len(options.paths) == 1 else f"report-{options.paths[-1].name}.html"
    )
    check_writable(out.parent, "Name another file with '--out'.")
    if leaderboard:
        build.report_suite(first, out)
    elif len(options.paths) == 2:
        trust = options.trust_remote_code
        build.report_comparison(tuple(options.paths), stage, out, samples=options.samples, trust_remote_code=trust)
    else:
        published = _published(options, first, stage) if options.suite else {}
        maps = None
        if not options.no_change_maps and (first / "config.yaml").is_file():
            from unirs.inference.api import UniRS
            from unirs.inference.change_maps import change_maps

            model = UniRS.from_pretrained(first, trust_remote_code=options.trust_remote_code)
            maps = partial(change_maps, model.model, model.processor)
        build.report_run(first, stage, out, samples=options.samples, change_maps=maps, published=published)
    print(f"Written to {out} ({out.stat().st_size / 1e6:.1f} MB)")


def _published(options: argparse.Namespace, run: Path, stage: str) -> "dict[str, TaskSection]":
    from unirs.evaluation.report.content import saved_specs
    from unirs.evaluation.report.published import published_sections
    from unirs.evaluation.results import read_metrics
    from unirs.evaluation.suite import Suite
    from unirs.plugins import installed_only
    from unirs.utils.typed_yaml import read_yaml

    suite = read_yaml(options.suite, Suite)
    if stage == "validate":
        raise UniRSError("Published numbers are of test splits, these results are not. Run unirs test.")
    document = read_metrics(run / stage / "metrics.json")
    with installed_only(run, trust_remote_code=options.trust_remote_code):
        # The tasks of a benchmark are not those of the run's config.
        specs = {} if stage == "bench" else saved_specs(run)
        sections = published_sections(suite, run.resolve().name, document, specs)
    if not sections:
        published = [task.label for task in suite.tasks if task.published]
        raise UniRSError(
            f"{options.suite} has no published numbers of the run's tasks ({', '.join(document['tasks'])}), but of "
            f"{', '.join(published) or 'none'}. Name another suite, or label its tasks as the run does."
        )
    return sections


def _first_stage(run: Path) -> str:
    from unirs.evaluation.report.build import STAGES

    for stage in STAGES:
        if (run / stage / "metrics.json").is_file():
            return stage
    raise UniRSError(
        f"{run} holds no results ({', '.join(f'{stage}/metrics.json' for stage in STAGES)}). Run unirs test."
    )
