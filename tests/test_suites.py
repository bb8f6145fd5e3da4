"""The project's suites: their numbers are as published, and their tasks and statistics exist."""

from decimal import Decimal
from pathlib import Path

import pytest

from unirs import plugins
from unirs.evaluation.suite import Published, Suite
from unirs.metrics.base import Prediction
from unirs.tasks.task import Task
from unirs.utils.typed_yaml import read_yaml

SUITES = Path(__file__).parents[1] / "benchmarks" / "suites"

# Presence, comparison, rural/urban and the average, as published.
LR = {
    "VILA-1.5-3B": ("68.49", "64.99", "64.00", "66.44"),
    "RSVQA": ("87.47", "81.50", "90.00", "86.32"),
    "Bi-Modal": ("91.06", "91.16", "92.66", "91.63"),
    "SHRNet": ("91.03", "90.48", "94.00", "91.84"),
    "RSGPT": ("91.17", "91.70", "94.00", "92.29"),
    "SkyEyeGPT-7B": ("88.93", "88.63", "75.00", "84.19"),
    "LHRS-Bot-7B": ("89.07", "88.51", "90.00", "89.19"),
    "GeoChat-7B": ("91.09", "90.33", "94.00", "90.70"),
    "UniRS": ("91.64", "92.68", "90.00", "92.21"),
    "UniRS further trained": ("91.81", "93.23", "93.00", "92.63"),
}
HR = {
    "VILA-1.5-3B": ("61.44", "63.06", "62.79"),
    "MiniGPTv2": ("40.79", "50.91", "46.46"),
    "LLaVA-1.5": ("68.23", "65.45", "66.67"),
    "GeoChat": ("59.02", "83.16", "72.53"),
    "EarthGPT": ("62.77", "79.53", "72.06"),
    "UniRS": ("59.29", "84.05", "73.15"),
}
# One number each: the task's overall score.
SINGLE = {
    "crsvqa": (
        "accuracy",
        {
            "VILA-1.5-3B": "80.33",
            "Qonly": "23.49",
            "RSVQA": "58.96",
            "SAN": "61.17",
            "MQVQA": "70.91",
            "EarthGPT": "82.00",
            "GeoChat": "82.50",
            "UniRS": "86.67",
        },
    ),
    "levir_cc": (
        "cider",
        {
            "VILA-1.5-3B": "6.22",
            "RSICCFormer": "131.40",
            "PSNet": "132.62",
            "PromptCC": "136.44",
            "Chg2Cap": "136.61",
            "LLaVA-1.5": "126.25",
            "GeoChat": "128.36",
            "UniRS": "139.12",
        },
    ),
    "era": (
        "top1",
        {
            "VILA-1.5-3B": "41.7",
            "HDense": "63.0",
            "FuTH-Net": "66.8",
            "TRM": "66.8",
            "MSTN": "67.4",
            "ASAT": "68.1",
            "UniRS": "87.8",
        },
    ),
}
ROUNDING = Decimal("0.0051")


@pytest.fixture(scope="module")
def paper() -> Suite:
    return read_yaml(SUITES / "paper.yaml", Suite)


def published(suite: Suite, label: str) -> dict[str, Published]:
    (task,) = (task for task in suite.tasks if task.label == label)
    models = {entry.model: entry for entry in task.published}
    assert len(models) == len(task.published)
    return models


def average(entry: Published) -> tuple[str, Decimal]:
    """The average of an entry, with the statistic under which it is listed."""
    ((statistic, number),) = ((name, Decimal(value)) for name, value in entry.numbers.items() if "/" not in name)
    return statistic, number


def texts(entry: Published, *statistics: str) -> tuple[str, ...]:
    return (*(str(entry.numbers[name]) for name in statistics), str(average(entry)[1]))


def test_rsvqa_lr_is_as_published(paper: Suite) -> None:
    found = published(paper, "rsvqa_lr")
    categories = ("accuracy/presence", "accuracy/comp", "accuracy/rural_urban")
    assert {model: texts(entry, *categories) for model, entry in found.items()} == LR
    assert [model for model, entry in found.items() if entry.zero_shot] == ["VILA-1.5-3B"]


def test_rsvqa_hr_is_as_published_and_zero_shot(paper: Suite) -> None:
    found = published(paper, "rsvqa_hr")
    assert {model: texts(entry, "accuracy/presence", "accuracy/comp") for model, entry in found.items()} == HR
    assert all(entry.zero_shot for entry in found.values())


@pytest.mark.parametrize("label", SINGLE)
def test_single_scores_are_as_published(paper: Suite, label: str) -> None:
    statistic, numbers = SINGLE[label]
    found = published(paper, label)
    assert {model: {name: str(number) for name, number in entry.numbers.items()} for model, entry in found.items()} == {
        model: {statistic: number} for model, number in numbers.items()
    }


def test_nothing_else_is_published(paper: Suite) -> None:
    assert [task.label for task in paper.tasks] == ["rsvqa_lr", "rsvqa_hr", *SINGLE]
    assert sum(len(entry.numbers) for task in paper.tasks for entry in task.published) == 4 * 10 + 3 * 6 + 8 + 8 + 7


def test_every_number_has_a_source(paper: Suite) -> None:
    assert all(paper.sources[entry.source] for task in paper.tasks for entry in task.published)


# The statistic of each average.


def mean(entry: Published) -> Decimal:
    categories = [Decimal(number) for name, number in entry.numbers.items() if "/" in name]
    return sum(categories, Decimal()) / len(categories)


def weighted(entry: Published, weights: dict[str, int]) -> Decimal:
    total = sum(
        (Decimal(entry.numbers[f"accuracy/{category}"]) * weight for category, weight in weights.items()), Decimal()
    )
    return total / sum(weights.values())


def test_rsvqa_lr_averages_have_the_right_statistic(paper: Suite) -> None:
    questions = {"presence": 2955, "comp": 4002, "rural_urban": 100}
    for entry in published(paper, "rsvqa_lr").values():
        statistic, number = average(entry)
        is_macro = abs(mean(entry) - number) < ROUNDING
        is_micro = abs(weighted(entry, questions) - number) < ROUNDING
        assert (is_macro, is_micro) == (statistic == "accuracy_macro", statistic == "accuracy"), entry.model
        assert entry.unclear == ()
    micro = {model for model, entry in published(paper, "rsvqa_lr").items() if "accuracy" in entry.numbers}
    assert {"GeoChat-7B", "UniRS"} <= micro
    assert not micro & {"RSGPT", "SkyEyeGPT-7B"}


def test_rsvqa_hr_averages_have_the_right_statistic(paper: Suite) -> None:
    # The share of comparison questions that follows from GeoChat's numbers matches all entries except the unclear ones.
    entries = published(paper, "rsvqa_hr")
    presence, comparison, overall = map(Decimal, HR["GeoChat"])
    share = (overall - presence) / (comparison - presence)
    weights = {"presence": int(10_000 * (1 - share)), "comp": int(10_000 * share)}
    assert weights["comp"] == 5596
    for entry in entries.values():
        statistic, number = average(entry)
        assert statistic == "accuracy"
        assert abs(mean(entry) - number) > ROUNDING
        fits = abs(weighted(entry, weights) - number) < Decimal("0.02")
        assert fits == (entry.unclear == ()), entry.model
    assert [model for model, entry in entries.items() if entry.unclear] == ["VILA-1.5-3B", "EarthGPT"]


# Tasks and statistics of the suites.


def tasks_of(name: str) -> list[tuple[str, dict[str, object], tuple[str, ...]]]:
    suite = read_yaml(SUITES / name, Suite)
    return [(task.label, dict(task.task), tuple(task.columns)) for task in suite.tasks]


NAMES = ("captions.yaml", "change.yaml", "grounding.yaml", "paper.yaml", "quick.yaml", "series.yaml")
CATEGORIES = {
    "rsvqa_lr": ("presence", "comp", "rural_urban", "count"),
    "rsvqa_hr": ("presence", "comp"),
    "era": ("fire",),
    "vrsbench": ("unique", "not_unique"),
    "changechat": ("caption/changed", "binary", "count", "location", "open"),
    "xbd": ("destroyed",),
    "fmow_series": ("airport",),
    "fmow_two": ("airport",),
}
CLOSED = {"binary": "yes", "count": "1 road, 2 buildings", "location": "roads [] buildings []"}
REFERENCES = {None: "a road", "percent": "{<1><2><3><4>}", "pixels": "[1, 2, 3, 4]"}


def create(spec: dict[str, object]) -> Task:
    options = {key: value for key, value in spec.items() if key not in ("synthetic", "label")}
    task: Task = plugins.create("unirs.tasks", options | {"root": Path(str(spec["root"]))})
    return task


@pytest.mark.parametrize("name", NAMES)
def test_tasks_are_installed_and_accept_their_options(name: str) -> None:
    for _, spec, _ in tasks_of(name):
        assert ("synthetic" not in spec) or create(spec).synthesize is not None


@pytest.mark.parametrize("name", NAMES)
def test_columns_are_statistics_of_the_task(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no Java: METEOR is excluded from the comparison
    for label, spec, columns in tasks_of(name):
        task = create(spec)
        text = REFERENCES[task.prompt.boxes]
        categories = CATEGORIES.get(label, ("changed", "unchanged"))
        rows = [
            Prediction(category, label, ("a",), category, "", text, (CLOSED.get(category, text),))
            for category in categories
        ]
        assert set(columns) - {"meteor"} <= set(task.scorer.evaluate(rows).statistics)


# Numbers of the other suites.


def test_numbers_of_changes_and_series_are_as_published(paper: Suite) -> None:
    change, series = (read_yaml(SUITES / f"{name}.yaml", Suite) for name in ("change", "series"))
    assert published(change, "levir_cc") == published(paper, "levir_cc")
    # From EarthDial's published answers; the tests of the tasks score them.
    assert published(change, "xbd")["EarthDial"].numbers == {"top1": "69.57"}
    assert published(series, "fmow_series")["EarthDial"].numbers == {"top1": "88.00"}
    assert [len(task.published) for suite in (change, series) for task in suite.tasks] == [8, 0, 0, 1, 1, 0]


def test_vrsbench_accuracy_is_over_all_expressions() -> None:
    # The share of unique objects that follows from GeoChat's numbers matches all models.
    entries = published(read_yaml(SUITES / "grounding.yaml", Suite), "vrsbench")
    share = Decimal("0.417")
    for model, entry in entries.items():
        for least in ("acc@0.5", "acc@0.7"):
            unique, others = (Decimal(entry.numbers[f"{least}/{name}"]) for name in ("unique", "not_unique"))
            mixed = share * unique + (1 - share) * others
            assert abs(mixed - Decimal(entry.numbers[least])) < Decimal("0.25"), (model, least)
    assert [model for model, entry in entries.items() if entry.zero_shot] == ["GeoChat without fine-tuning", "GPT-4V"]
    assert entries["GeoChat"].numbers["acc@0.5"] == "39.6"


def test_dior_rsvg_is_less_precise_at_higher_thresholds() -> None:
    entries = published(read_yaml(SUITES / "grounding.yaml", Suite), "dior_rsvg")
    for entry in entries.values():
        numbers = [Decimal(entry.numbers[f"acc@0.{tenths}"]) for tenths in range(5, 10)]
        assert numbers == sorted(numbers, reverse=True)
    assert list(entries["MGVLF"].numbers.values()) == ["75.98", "72.06", "65.23", "54.89", "35.65", "67.48", "78.63"]
    assert len(entries) == 10


def test_captions_are_in_percent() -> None:
    suite = read_yaml(SUITES / "captions.yaml", Suite)
    counts = {task.label: len(task.published) for task in suite.tasks}
    assert counts == {"rsicd": 16, "ucm_captions": 15, "sydney_captions": 0, "nwpu_captions": 4, "vrsbench_caption": 6}
    for task in suite.tasks:
        for entry in task.published:
            bleu = [Decimal(entry.numbers[f"bleu_{order}"]) for order in range(1, 5)]
            assert bleu == sorted(bleu, reverse=True)
            assert 10 < bleu[0] < 100
    assert published(suite, "ucm_captions")["JTTS"].numbers["bleu_4"] == "73.8"
    assert published(suite, "vrsbench_caption")["LLaVA-1.5"].numbers["cider"] == "33.9"


def test_the_suite_in_the_docs_is_valid(tmp_path: Path) -> None:
    text = (SUITES.parents[1] / "docs" / "benchmark.md").read_text(encoding="utf-8")
    path = tmp_path / "suite.yaml"
    path.write_text(text.split('```yaml title="my_suite.yaml"\n')[1].split("```")[0], encoding="utf-8")
    assert [entry.model for entry in read_yaml(path, Suite).tasks[0].published] == ["GeoChat-7B"]
