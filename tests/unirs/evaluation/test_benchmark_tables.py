import csv
import io
import json
from typing import Any

import pytest

from unirs.evaluation.benchmark_tables import (
    bench_tables,
    csv_report,
    json_report,
    latex_report,
    markdown_report,
    to_text,
)
from unirs.evaluation.suite import Published, Suite, SuiteTask

LR = SuiteTask(
    title="RSVQA-LR",
    task={"name": "rsvqa_lr"},
    columns={"accuracy/comp": "Comparison", "accuracy": "Average (micro)", "accuracy_macro": "Average (macro)"},
    published=(
        Published("GeoChat-7B", "geo", {"accuracy/comp": "90.30", "accuracy": "90.70"}, (), False),
        Published("RSGPT", "unirs", {"accuracy_macro": "92.29"}, (), None),
        Published("EarthGPT", "unirs", {"accuracy": "72.06"}, ("accuracy",), True),
    ),
)
ERA = SuiteTask("ERA", {"name": "era"}, {"top1": "Overall accuracy"}, ())
SUITE = Suite("The suite", (LR, ERA), {"geo": "GeoChat, 2023", "unirs": "UniRS, 2024", "other": "Not cited"})


def numbers(value: float | None, low: float | None, high: float | None) -> dict[str, float | int | None]:
    return {"value": value, "ci_low": low, "ci_high": high, "n": 9}


def document(**tasks: dict[str, Any]) -> dict[str, Any]:
    return {
        "stage": "bench",
        "step": None,
        "tasks": tasks,
        "baselines": {},
        "evaluated": {"rsvqa_lr": {"comp": 5, "presence": 4}},
        "excluded": {"rsvqa_lr": {"count": 3}},
    }


RESULTS = {
    "mine": document(
        rsvqa_lr={
            "accuracy": numbers(0.92214, 0.91, 0.93456),
            "accuracy_macro": numbers(0.9, 0.88, 0.92),
            "accuracy/comp": numbers(None, None, None),
            "accuracy/presence": numbers(1.0, 1.0, 1.0),
        },
        era={"top1": numbers(0.5, 0.4, 0.6)},
    ),
    "blank": document(rsvqa_lr={"accuracy": numbers(0.5, 0.45, 0.55)}),
}


def rows_of(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line.startswith("|")
    ]


def test_published_numbers_are_unchanged_and_ours_are_times_100() -> None:
    lr, era = bench_tables(SUITE, RESULTS)
    assert [row["model"] for row in lr["rows"]] == ["GeoChat-7B", "RSGPT", "EarthGPT", "mine", "blank"]
    assert {name: cell["value"] for name, cell in lr["rows"][0]["numbers"].items()} == {
        "accuracy/comp": "90.30",
        "accuracy": "90.70",
    }
    mine = lr["rows"][3]["numbers"]
    assert {name: cell["value"] for name, cell in mine.items()} == {"accuracy": "92.21", "accuracy_macro": "90.00"}
    assert (mine["accuracy"]["ci_low"], mine["accuracy"]["ci_high"]) == pytest.approx((91.0, 93.456))
    assert [row["model"] for row in era["rows"]] == ["mine"]


def test_notes_list_scale_sources_unclear_averages_and_counts() -> None:
    lr, era = bench_tables(SUITE, RESULTS)
    assert lr["notes"] == [
        "Numbers are times 100. [low, high]: 95 % bootstrap interval. -: unknown.",
        "?: it is unknown whether the average is micro or macro.",
        "mine, blank: evaluated 9 (comp 5, presence 4); excluded 3 (count 3).",
        "geo: GeoChat, 2023.",
        "unirs: UniRS, 2024.",
    ]
    assert len(era["notes"]) == 2
    other = RESULTS | {"blank": RESULTS["blank"] | {"excluded": {}}}
    notes = bench_tables(SUITE, other)[0]["notes"]
    assert notes[2].startswith("mine: evaluated 9")
    assert notes[3] == "blank: evaluated 9 (comp 5, presence 4); excluded 0."


def test_text_has_intervals_below_their_numbers() -> None:
    text = to_text(bench_tables(SUITE, RESULTS))
    lr, era = text.split("\n\n")
    lines = lr.splitlines()
    assert lines[0] == "RSVQA-LR"
    assert [" ".join(line.split()) for line in lines[1:10] if "---" not in line] == [
        "Model Zero-shot Comparison Average (micro) Average (macro) Source",
        "GeoChat-7B no 90.30 90.70 - geo",
        "RSGPT - - - 92.29 unirs",
        "EarthGPT yes - 72.06? - unirs",
        "mine - - 92.21 90.00 -",
        "[91.0, 93.5] [88.0, 92.0]",
        "blank - - 50.00 - -",
        "[45.0, 55.0]",
    ]
    assert lines[10:] == [f"  {note}" for note in bench_tables(SUITE, RESULTS)[0]["notes"]]
    # A statistic without published numbers has no column.
    assert [line.split() for line in era.splitlines()[1:5:2]] == [["Model", "Overall", "accuracy"], ["mine", "50.00"]]


def test_markdown() -> None:
    text = markdown_report(bench_tables(SUITE, RESULTS), SUITE.title)
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# The suite", "## RSVQA-LR", "## ERA"]
    table = rows_of(text)
    assert table[0] == ["Model", "Zero-shot", "Comparison", "Average (micro)", "Average (macro)", "Source"]
    assert table[4] == ["EarthGPT", "yes", "-", "72.06?", "-", "unirs"]
    assert table[5] == ["mine", "-", "-", "92.21 [91.0, 93.5]", "90.00 [88.0, 92.0]", "-"]
    assert "- geo: GeoChat, 2023." in text.splitlines()


def test_latex() -> None:
    text = latex_report(bench_tables(SUITE, RESULTS))
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == text.count(r"\toprule") == 2
    assert r"mine & - & - & 92.21 [91.0, 93.5] & 90.00 [88.0, 92.0] & - \\" in " ".join(text.split())
    assert r"95 \% bootstrap interval" in text


def test_csv_has_one_line_per_number() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_report(bench_tables(SUITE, RESULTS)))))
    assert len(rows) == 2 + 1 + 1 + 2 + 1 + 1
    assert rows[0] == {
        "task": "rsvqa_lr",
        "model": "GeoChat-7B",
        "source": "geo",
        "zero_shot": "no",
        "metric": "accuracy/comp",
        "value": "90.30",
        "ci_low": "",
        "ci_high": "",
        "unclear": "no",
    }
    assert [row["unclear"] for row in rows] == ["no"] * 3 + ["yes"] + ["no"] * 4
    assert (rows[-1]["model"], rows[-1]["source"], rows[-1]["zero_shot"]) == ("mine", "this benchmark", "")
    assert (rows[-1]["ci_low"], rows[-1]["ci_high"]) == ("40.00", "60.00")


def test_json_is_complete() -> None:
    read = json.loads(json_report(bench_tables(SUITE, RESULTS), SUITE))
    assert (read["title"], read["scale"], read["sources"]) == ("The suite", 100, dict(SUITE.sources))
    lr = read["tasks"][0]
    assert lr["columns"] == dict(LR.columns)
    assert lr["rows"][2] == {
        "model": "EarthGPT",
        "source": "unirs",
        "zero_shot": True,
        "numbers": {"accuracy": {"value": "72.06", "ci_low": None, "ci_high": None, "unclear": True}},
    }
    assert lr["rows"][3]["source"] is None
    assert lr["rows"][3]["numbers"]["accuracy"]["ci_low"] == pytest.approx(91.0)


def test_published_numbers_alone_make_a_table() -> None:
    lr, era = bench_tables(SUITE, {})
    assert len(lr["rows"]) == 3
    assert era["rows"] == []
    assert "GeoChat-7B" in to_text([lr, era])
