import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import yaml

Cli = Callable[..., int]
Capture = pytest.CaptureFixture[str]

# Runs of these tests name their tasks by file.
BENCH = ("bench", "--trust-remote-code")


def bench_command(suite: Path, model: Path, out: Path) -> tuple[object, ...]:
    return (*BENCH, "--suite", suite, "--model", model, "--out", out, "--device", "cpu")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Path:
    """A suite of the colours, with one published number."""
    plugin = {"name": str(colours / "plugin.py"), "root": str(colours)}
    tasks: list[dict[str, Any]] = [
        {"title": name, "task": {**plugin, "modality": name, "label": name}, "columns": {"accuracy": "Acc."}}
        for name in ("image", "pair", "video")
    ]
    tasks[0]["published"] = [{"model": "Other", "source": "paper", "numbers": {"accuracy": "12.34"}}]
    path = tmp_path_factory.mktemp("suite") / "colours.yaml"
    path.write_text(yaml.safe_dump({"title": "Colours", "sources": {"paper": "A paper, 2024"}, "tasks": tasks}))
    return path


@pytest.fixture(scope="module")
def benched(
    suite: Path, learnt_run: Path, tmp_path_factory: pytest.TempPathFactory, cli: Cli
) -> tuple[Path, dict[str, Any]]:
    """The folder of a finished benchmark of a run, and the run's metrics; read it only."""
    out = tmp_path_factory.mktemp("bench")
    assert cli(*bench_command(suite, learnt_run, out), report=True) == 0
    return out, json.loads((out / learnt_run.name / "bench" / "metrics.json").read_text())


def value(document: dict[str, Any], task: str) -> float:
    return float(document["tasks"][task]["accuracy"]["value"])


def test_a_run_scores_as_in_its_own_test(benched: tuple[Path, dict[str, Any]], learnt_run: Path) -> None:
    _, document = benched
    own = json.loads((learnt_run / "test" / "metrics.json").read_text())
    assert {task: value(document, task) for task in own["tasks"]} == {task: value(own, task) for task in own["tasks"]}


def test_baselines_reveal_a_model_that_ignores_media(benched: tuple[Path, dict[str, Any]]) -> None:
    _, document = benched
    baselines = document["baselines"]
    assert {name: sorted(tasks) for name, tasks in baselines.items()} == {
        "blank": ["image", "pair", "video"],
        "most_frequent": ["image", "pair", "video"],
        "repeat_first": ["pair", "video"],
        "shuffle_frames": ["video"],
        "swap_times": ["pair"],
    }
    # The model has memorised its pairs and their order; its videos are of one colour, the same in any order.
    assert value(document, "pair") == 1
    assert baselines["swap_times"]["pair"]["accuracy"]["value"] < 0.5
    assert baselines["repeat_first"]["pair"]["accuracy"]["value"] < 0.5
    assert baselines["shuffle_frames"]["video"]["accuracy"]["value"] == 1


def test_report_of_a_model_has_published_numbers(benched: tuple[Path, dict[str, Any]], learnt_run: Path) -> None:
    page = (benched[0] / learnt_run.name / "bench" / "report.html").read_text()
    assert page.count("<h3>") == 1
    assert "<h3>image: published numbers of the suite &#39;Colours&#39;</h3>" in page
    assert '<th scope="row">Other</th><td>12.34</td><td>paper</td>' in page
    assert "tasks are matched by name" not in page


def test_tables(benched: tuple[Path, dict[str, Any]]) -> None:
    out, _ = benched
    text = {path.suffix: path.read_text() for path in out.glob("table.*")}
    assert text.keys() == {".txt", ".md", ".tex", ".csv", ".json"}
    for one in text.values():
        assert "12.34" in one
        assert "100.00" in one
        assert "A paper, 2024" in one or "paper" in one


def test_an_interrupted_run_resumes(
    benched: tuple[Path, dict[str, Any]], suite: Path, learnt_run: Path, cli: Cli, tmp_path: Path, capfd: Capture
) -> None:
    out, document = benched
    again = Path(shutil.copytree(out, tmp_path / "again"))
    command = (*bench_command(suite, learnt_run, again), "--resume")
    answers = again / learnt_run.name / "answers"
    # One complete row remains, and half of the next.
    path = answers / "image" / "0.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    row = json.loads(lines[0]) | {"text": "logged"}
    path.write_text(json.dumps(row) + "\n" + lines[1][:20])
    assert cli(*command) == 0
    resumed = json.loads((again / learnt_run.name / "bench" / "metrics.json").read_text())
    assert len(path.read_text().splitlines()) >= len(lines)
    assert resumed["tasks"]["image"]["accuracy"]["n"] == document["tasks"]["image"]["accuracy"]["n"]
    assert resumed["tasks"]["pair"] == document["tasks"]["pair"]
    predictions = (again / learnt_run.name / "bench" / "predictions" / "image.jsonl").read_text()
    assert '"text":"logged"' in predictions
    capfd.readouterr()
    assert cli(*command, "--limit", 2) == 1
    assert "holds answers of other weights, or to other data, prompts, samples" in capfd.readouterr().err


def test_limit_and_tasks(suite: Path, learnt_run: Path, cli: Cli, tmp_path: Path) -> None:
    command = bench_command(suite, learnt_run, tmp_path)
    assert cli(*command, "--limit", 2, "--tasks", "video", "--no-baselines") == 0
    document = json.loads((tmp_path / learnt_run.name / "bench" / "metrics.json").read_text())
    assert list(document["tasks"]) == ["video"]
    assert document["tasks"]["video"]["accuracy"]["n"] == 2
    assert document["baselines"] == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [("--devices", 2), ("--devices", 3, "--strategy", "ddp_fork"), ("--num-workers", 2, "--batch-size", 3)]
)
def test_results_depend_on_neither_processes_nor_batches(
    benched: tuple[Path, dict[str, Any]],
    suite: Path,
    learnt_run: Path,
    cli: Cli,
    tmp_path: Path,
    options: tuple[object, ...],
) -> None:
    command = bench_command(suite, learnt_run, tmp_path)
    assert cli(*command, *options) == 0
    results, expected = (out / learnt_run.name / "bench" for out in (tmp_path, benched[0]))
    names = {path.relative_to(expected) for path in expected.rglob("*") if path.is_file()} - {Path("report.html")}
    assert {path.relative_to(results) for path in results.rglob("*") if path.is_file()} == names
    for name in names:
        assert (results / name).read_bytes() == (expected / name).read_bytes()


def test_each_task_is_built_once_and_read_once(
    suite: Path, colours: Path, learnt_run: Path, cli: Cli, tmp_path: Path
) -> None:
    plugin = tmp_path / "counting.py"
    code = (colours / "plugin.py").read_text()
    log = f"    with open({str(tmp_path / 'calls')!r}, 'a') as file:\n        print(modality, split, file=file)\n"
    code = code.replace(
        "    def samples(split: str) -> TaskSplit:\n",
        "    def samples(split: str) -> TaskSplit:\n" + indent(log, "    "),
    )
    code = code.replace("    def sample(id", "    split = 'built'\n" + log + "\n    def sample(id", 1)
    plugin.write_text(code)
    content = yaml.safe_load(suite.read_text())
    for task in content["tasks"]:
        task["task"]["name"] = str(plugin)
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(content))
    assert cli(*bench_command(tmp_path / "suite.yaml", learnt_run, tmp_path / "out")) == 0
    calls = Counter((tmp_path / "calls").read_text().splitlines())
    expected = [f"{modality} {call}" for modality in ("image", "pair", "video") for call in ("built", "test", "train")]
    assert calls == Counter(expected)


def test_wrong_calls(suite: Path, learnt_run: Path, cli: Cli, tmp_path: Path, capfd: Capture) -> None:
    def refused(*arguments: object) -> str:
        capfd.readouterr()
        assert cli(*BENCH, "--suite", suite, "--out", tmp_path, *arguments) == 1
        return capfd.readouterr().err

    assert "no task 'imag'. Did you mean 'image'?" in refused("--model", learnt_run, "--tasks", "imag")
    assert "Correct '--device'" in refused("--model", learnt_run, "--device", "no_such_device")
    assert "--limit must be 1 or more" in refused("--model", learnt_run, "--limit", "0")
    assert "Two models have one name" in refused("--model", learnt_run, learnt_run)
    (tmp_path / "no_model").mkdir()
    assert "no_model" in refused("--model", tmp_path / "no_model")
