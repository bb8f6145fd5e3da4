import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from unirs.cli.main import main
from unirs.errors import DataError, PluginError, UniRSError
from unirs.evaluation.comparison import compare_rows, compare_runs, mcnemar, pair_rows
from unirs.evaluation.comparison_report import format_comparison, write_report
from unirs.evaluation.prediction_files import read_rows
from unirs.evaluation.results import TaskResult, write_results
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import interval, point_estimate
from unirs.metrics.caption import CaptionMetrics
from unirs.metrics.vqa import VqaAccuracy

Rows = list[Prediction]


def answers(right: Sequence[bool], task: str = "rsvqa_lr", per_image: int = 1) -> Rows:
    return [
        Prediction(
            str(n),
            task,
            (f"{n // per_image}.tif",),
            ("presence", "comp")[n % 2],
            "A road?",
            "yes" if hit else "no",
            ("yes",),
        )
        for n, hit in enumerate(right)
    ]


def save(run: Path, *tasks: Rows, stage: str = "test") -> Path:
    write_results(
        run, stage, 1, [TaskResult(rows[0].task, rows, VqaAccuracy().evaluate(rows), {}) for rows in tasks], {}
    )
    return run


def captions(seed: int, wrong: float) -> Rows:
    source = random.Random(seed)  # noqa: S311
    things = [
        f"{count} {noun} {position}"
        for count in ("some", "many")
        for noun in ("houses", "trees", "roads")
        for position in ("left", "right")
    ]
    rows = []
    for number in range(60):
        truth = things[number % 12]
        thing = source.choice(things) if source.random() < wrong else truth
        rows.append(
            Prediction(
                f"{number}.png",
                "levir_cc",
                (f"{number}.png",),
                "changed",
                "",
                f"{thing} are built",
                (f"{truth} are built", f"{truth} appear", "a road is built"),
            )
        )
    return rows


# McNemar's test.


@pytest.mark.parametrize(
    ("counts", "p"),
    [
        ((0, 0), 1.0),
        ((1, 1), 1.0),
        ((0, 5), 2 / 2**5),
        ((10, 2), 2 * (1 + 12 + 66) / 2**12),
        ((3, 3), 1.0),
    ],
)
def test_few_discordant_rows_use_the_binomial_test(counts: tuple[int, int], p: float) -> None:
    p_value, test = mcnemar(*counts)
    assert p_value == pytest.approx(p)
    assert test == "exact"
    assert mcnemar(*counts[::-1]) == (p_value, test)


def test_many_discordant_rows_use_the_chi_squared_test() -> None:
    (exact, first_test), (approximate, second_test) = mcnemar(470, 530), mcnemar(471, 530)
    assert (first_test, second_test) == ("exact", "chi-squared")
    assert approximate == pytest.approx(math.erfc(math.sqrt((59 - 1) ** 2 / 1001 / 2)))
    assert exact == pytest.approx(approximate, abs=0.005)
    assert mcnemar(1000, 1001) == (1.0, "chi-squared")


# Two systems on the same questions.


def test_differences_are_paired() -> None:
    generator = np.random.default_rng(0)
    first = generator.random(300) < 0.6
    second = first | (generator.random(300) < 0.1)
    pairs = list(zip(answers(first.tolist()), answers(second.tolist()), strict=True))
    comparison = compare_rows("rsvqa_lr", VqaAccuracy(), pairs, resamples=1000)
    for line in comparison.metrics:
        one, other = (VqaAccuracy().evaluate([pair[side] for pair in pairs]).statistics[line.metric] for side in (0, 1))
        assert (line.first, line.second, line.n) == (point_estimate(one), point_estimate(other), one.n)
        assert line.difference.value == pytest.approx(line.second - line.first)
        groups = [row.media for row, _ in pairs]
        (low, high), (low_other, high_other) = interval(one, groups), interval(other, groups)
        assert line.difference.ci_high - line.difference.ci_low < (high - low + high_other - low_other) / 2
    assert [line.metric for line in comparison.metrics] == [
        "accuracy",
        "accuracy_macro",
        "accuracy/comp",
        "accuracy/presence",
    ]
    assert comparison.metrics[0].difference.p < 0.01


def test_questions_about_one_image_are_resampled_together() -> None:
    right = [True] * 50 + [False] * 50
    apart = list(zip(answers(right), answers([True] * 100), strict=True))
    together = list(zip(answers(right, per_image=50), answers([True] * 100, per_image=50), strict=True))
    line, other = (
        compare_rows("t", VqaAccuracy(), pairs, resamples=500).metrics[0].difference for pairs in (apart, together)
    )
    assert 0.3 < line.ci_low < line.ci_high < 0.7
    assert (other.ci_low, other.ci_high) == (0.0, 1.0)


def test_mcnemar_over_all_rows_and_by_category() -> None:
    first, second = [True, True, False, False, True, False], [True, False, True, True, True, True]
    comparison = compare_rows("t", VqaAccuracy(), list(zip(answers(first), answers(second), strict=True)), resamples=10)
    assert [(result.category, result.n, result.only_first, result.only_second) for result in comparison.mcnemar] == [
        ("", 6, 1, 3),
        ("comp", 3, 1, 2),
        ("presence", 3, 0, 1),
    ]
    assert comparison.mcnemar[0].p == mcnemar(1, 3)[0]
    assert [(change.first.id, change.scores) for change in comparison.changes] == [
        ("1", (1.0, 0.0)),
        ("2", (0.0, 1.0)),
        ("3", (0.0, 1.0)),
        ("5", (0.0, 1.0)),
    ]


def test_captions_are_compared_by_corpus_scores_without_mcnemar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no Java: METEOR has tests of its own
    pairs = list(zip(captions(1, 0.7), captions(2, 0.2), strict=True))
    comparison = compare_rows("levir_cc", CaptionMetrics(), pairs, resamples=500)
    lines = {line.metric: line for line in comparison.metrics}
    assert {"bleu_1", "bleu_4", "rouge_l", "cider", "cider/changed", "change_accuracy"} <= set(lines)
    for name in ("bleu_4", "cider"):
        assert lines[name].second > lines[name].first
        assert lines[name].difference.ci_low > 0
        assert lines[name].difference.p < 0.01
    assert comparison.mcnemar == ()
    gaps = [abs(change.scores[0] - change.scores[1]) for change in comparison.changes]
    assert gaps == sorted(gaps, reverse=True)
    assert 0 < len(gaps) < 60


def test_equal_runs_do_not_differ() -> None:
    pairs = [(row, row) for row in answers([True, False] * 20)]
    comparison = compare_rows("t", VqaAccuracy(), pairs, resamples=100)
    assert all((line.difference.value, line.difference.p) == (0, 1) for line in comparison.metrics)
    assert comparison.changes == ()
    assert "0 of 40 rows changed sides" in format_comparison(comparison)


# Rows that cannot be paired.


def saved(path: Path, rows: Rows) -> Path:
    return save(path, rows) / "test" / "predictions" / f"{rows[0].task}.jsonl"


def test_rows_are_paired_by_id_in_the_order_of_the_first(tmp_path: Path) -> None:
    rows = answers([True, False, True])
    first, second = read_rows(saved(tmp_path / "a", rows)), read_rows(saved(tmp_path / "b", rows[::-1]))
    pairs, unpaired = pair_rows(first, second)
    assert pairs == [(row, row) for row in rows]
    assert unpaired == (0, 0)


def test_unpaired_rows_are_an_error_or_excluded(tmp_path: Path) -> None:
    rows = answers([True, False, True, True])
    first, second = read_rows(saved(tmp_path / "a", rows[:3])), read_rows(saved(tmp_path / "b", rows[1:]))
    with pytest.raises(DataError, match=r"a/test/predictions/rsvqa_lr\.jsonl, line 1: row '0' is not in .*b/test"):
        pair_rows(first, second)
    with pytest.raises(DataError, match=r"b/test/predictions/rsvqa_lr\.jsonl, line 3: row '3' is not in .*a/test"):
        pair_rows({key: row for key, row in first.items() if key != "0"}, second)
    pairs, unpaired = pair_rows(first, second, intersect=True)
    assert [one.id for one, _ in pairs] == ["1", "2"]
    assert unpaired == (1, 1)


@pytest.mark.parametrize("change", [{"category": "count"}, {"references": ("no",)}])
def test_equal_ids_of_different_questions_are_an_error(tmp_path: Path, change: dict[str, str]) -> None:
    rows = answers([True, False])
    first = read_rows(saved(tmp_path / "a", rows))
    second = read_rows(saved(tmp_path / "b", [rows[0], replace(rows[1], **change)]))  # type: ignore[arg-type]
    for intersect in (False, True):
        with pytest.raises(DataError, match=r"line 2 and .*line 2 have the id '1' but different"):
            pair_rows(first, second, intersect=intersect)


def test_runs_with_nothing_in_common_are_an_error(tmp_path: Path) -> None:
    rows = answers([True, False, True, True])
    first, second = read_rows(saved(tmp_path / "a", rows[:2])), read_rows(saved(tmp_path / "b", rows[2:]))
    with pytest.raises(DataError, match="no row in common"):
        pair_rows(first, second, intersect=True)


# Runs.


def test_all_tasks_of_two_runs_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lr, hr = answers([True, False] * 4), answers([False, True] * 4, task="rsvqa_hr")
    a, b = save(tmp_path / "a", lr, hr), save(tmp_path / "b", lr, hr)
    comparisons = compare_runs(a, b, resamples=10)
    assert [(one.task, one.metric) for one in comparisons] == [
        ("rsvqa_lr", "exact"),
        ("rsvqa_hr", "exact"),
    ]
    assert [one.task for one in compare_runs(a, b, task="rsvqa_hr", resamples=10)] == ["rsvqa_hr"]
    with pytest.raises(UniRSError, match=r"no task 'rsvqa-hr' in common\. Did you mean 'rsvqa_hr'"):
        compare_runs(a, b, task="rsvqa-hr")
    save(tmp_path / "b", lr)
    with pytest.raises(UniRSError, match=r"different tasks: .*rsvqa_lr, rsvqa_hr; .*--task"):
        compare_runs(a, b)
    assert [one.task for one in compare_runs(a, b, intersect=True, resamples=10)] == ["rsvqa_lr"]


def test_metric_comes_from_the_config_of_the_run(tmp_path: Path) -> None:
    plugin = tmp_path / f"colours_{tmp_path.name}.py"
    plugin.write_text(
        "from unirs import PromptTemplate, Task\nfrom unirs.metrics.classification import Top1\n"
        "def build(root, names):\n"
        "    fields = {'load_split': None, 'prompt': PromptTemplate('v', 'x'), 'required_paths': ()}\n"
        "    return Task(modality='image', download_hint='', metric=Top1(tuple(names)), **fields)\n"
    )
    rows = [replace(row, category="yes", task="mine") for row in answers([True, False])]
    a, b = save(tmp_path / "a", rows), save(tmp_path / "b", rows)
    with pytest.raises(UniRSError, match=r"metric of task 'mine' .* unknown\. Add --as"):
        compare_runs(a, b)
    assert compare_runs(a, b, protocol="exact", resamples=10)[0].metric == "exact"
    spec = {"name": str(plugin), "label": "mine", "names": ["yes", "no"]}
    (a / "config.yaml").write_text(yaml.safe_dump({"data": {"tasks": [spec]}}))
    with pytest.raises(PluginError, match="not an installed plugin"):
        compare_runs(a, b)
    assert compare_runs(a, b, resamples=10, trust_remote_code=True)[0].metric == "top1"
    configs: list[object] = [[], {}, {"data": 1}, {"data": {}}, {"data": {"tasks": spec}}, {"data": {"tasks": [7]}}]
    for damaged in configs:
        (a / "config.yaml").write_text(yaml.safe_dump(damaged))
        with pytest.raises(UniRSError, match=r"config\.yaml"):
            compare_runs(a, b)
    (a / "config.yaml").write_text(yaml.safe_dump({"data": {"tasks": [spec | {"label": "other"}]}}))
    with pytest.raises(UniRSError, match="Add --as"):
        compare_runs(a, b, trust_remote_code=True)


# Reports.


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    generator = np.random.default_rng(1)
    first, second = (answers((generator.random(80) < share).tolist(), per_image=4) for share in (0.5, 0.8))
    second[3] = replace(second[3], text="no | " + "maybe " * 40 + "\n")
    return save(tmp_path / "a", first), save(tmp_path / "b", second)


def test_terminal_lists_a_limited_number_of_rows(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = map(str, runs)
    assert main(["compare", a, b, "--show", "2", "--resamples", "200"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[:2] == [f"A: {a}/test", f"B: {b}/test"]
    assert all(len(line) <= 100 for line in lines[2:])
    (comparison,) = compare_runs(*runs, resamples=200)
    better = sum(change.scores[1] > change.scores[0] for change in comparison.changes)
    worse = len(comparison.changes) - better
    assert f"{better + worse} of 80 rows changed sides: {better} better in B, {worse} better in A." in out
    assert f"… and {better - 2} more" in out
    assert sum(": 'yes', A '" in line for line in lines) == min(2, better) + min(2, worse)
    (row,) = (line.split() for line in lines if line.split()[:1] == ["accuracy"])
    assert [float(cell) for cell in row[1:3]] == [comparison.metrics[0].first, comparison.metrics[0].second]
    assert "200 resamples" in lines[-2]
    assert main(["compare", a, b, "--show", "-1"]) == 1


def test_all_changed_rows_are_written_as_json_lines(runs: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "changed.jsonl"
    assert main(["compare", *map(str, runs), "--out", str(path), "--resamples", "10"]) == 0
    (comparison,) = compare_runs(*runs, resamples=10)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["id"] for row in rows] == [change.first.id for change in comparison.changes]
    assert rows[0] == {
        "task": "rsvqa_lr",
        "id": comparison.changes[0].first.id,
        "category": comparison.changes[0].first.category,
        "media": list(comparison.changes[0].first.media),
        "prompt": "A road?",
        "references": ["yes"],
        "runs": list(map(str, runs)),
        "predictions": [comparison.changes[0].first.text, comparison.changes[0].second.text],
        "scores": list(comparison.changes[0].scores),
    }


def test_markdown_report_has_tables(runs: tuple[Path, Path], tmp_path: Path) -> None:
    comparisons = compare_runs(*runs, resamples=10)
    path = tmp_path / "report.md"
    write_report(path, comparisons, ("a", "b"))
    text = path.read_text()
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(table) - 2 for table in tables] == [4, 3, len(comparisons[0].changes)]
    pipes = [line.replace("\\|", "").count("|") for table in tables for line in table]
    assert pipes == [8] * 6 + [7] * 5 + [8] * (2 + len(comparisons[0].changes))


def test_unknown_suffix_is_an_error(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UniRSError, match=r"must be \.jsonl or \.md"):
        write_report(tmp_path / "report.txt", compare_runs(*runs, resamples=1), ("a", "b"))


def test_number_of_excluded_rows_is_printed(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    save(runs[1], answers([True] * 90))
    assert main(["compare", *map(str, runs)]) == 1
    capsys.readouterr()
    assert main(["compare", *map(str, runs), "--intersect", "--resamples", "10"]) == 0
    assert "Excluded: 0 rows that only A has, 10 that only B has." in capsys.readouterr().out
