"""`unirs report`, and the reports that `unirs test` and `unirs bench` write."""

import html
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import convert

from unirs.evaluation.report.build import report_comparison, report_run
from unirs.evaluation.report.content import TaskSection
from unirs.evaluation.report.published import published_sections
from unirs.evaluation.suite import Suite

SUITES = Path(__file__).parents[3] / "benchmarks" / "suites"

EXTERNAL = re.compile(r"""(?:src|href)=(?!"(?:data:|#))|url\((?!["']?(?:data:|#))|@import""")


def cards(page: str) -> list[str]:
    return re.findall(r"<article.*?</article>", page, flags=re.DOTALL)


def predictions(run: Path, task: str) -> list[dict[str, Any]]:
    lines = (run / "test" / "predictions" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def copy_of(run: Path, folder: Path) -> Path:
    """The results of a run without its weights."""
    copy = folder / run.name
    copy.mkdir(parents=True)
    for name in ("test", "logs"):
        shutil.copytree(run / name, copy / name)
    return copy


def test_report_of_a_run(joint_run: Path) -> None:
    page = (joint_run / "test" / "report.html").read_text(encoding="utf-8")
    assert not EXTERNAL.search(page)
    for task in ("rsvqa_lr", "levir_cc", "era"):
        assert f"<h2>{task}</h2>" in page
    metrics = json.loads((joint_run / "test" / "metrics.json").read_text())
    value = metrics["tasks"]["rsvqa_lr"]["accuracy"]["value"]
    assert f'<th scope="row">accuracy</th><td>{value:.4f}</td>' in page
    for caption in ("accuracy by category", "cider by category", "answers by reference", "loss", "val/score"):
        assert f"<figcaption>{caption}</figcaption>" in page
    pairs = [card for card in cards(page) if 'data-task="levir_cc"' in card]
    assert pairs
    assert all(card.count("data:image/webp") == 2 and 'class="map"' in card for card in pairs)
    strips = [card for card in cards(page) if 'data-task="era"' in card]
    assert all(card.count("data:image/webp") == 1 and 'class="strip"' in card for card in strips)
    assert not [card for card in cards(page) if "missing" in card]


def test_choice_of_samples(joint_run: Path, tmp_path: Path) -> None:
    run = copy_of(joint_run, tmp_path)
    report_run(run, "test", tmp_path / "a.html", samples=9)
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert 3 <= len(cards(page)) <= 9
    for task in ("rsvqa_lr", "levir_cc", "era"):
        rows = predictions(run, task)
        chosen = [card for card in cards(page) if f'data-task="{task}"' in card]
        shown = {name: card for card in chosen for name in re.findall(r'data-choice="(.*?)"', card)}
        scores = [row["score"] for row in rows]
        by_id = {html.escape(row["id"]): row["score"] for row in rows}
        for names, card in shown.items():
            found = re.findall(r'<span class="id">(.*?)</span>', card)
            (score,) = (by_id[one] for one in found)
            assert "worst" not in names or score == min(scores)
            assert "best" not in names or score == max(scores)
    report_run(run, "test", tmp_path / "b.html", samples=9)
    assert (tmp_path / "b.html").read_bytes() == (tmp_path / "a.html").read_bytes()


def test_text_of_models_is_escaped_and_missing_media_are_told(joint_run: Path, tmp_path: Path) -> None:
    run = copy_of(joint_run, tmp_path)
    path, rows = run / "test" / "predictions" / "rsvqa_lr.jsonl", predictions(run, "rsvqa_lr")
    for row in rows:
        row |= {"text": "</dd><script>alert('x')</script>", "media": ["nowhere/<b>.tif"], "category": '"><i>'}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report_run(run, "test", tmp_path / "a.html", samples=30)
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert" in page
    assert "nowhere/&lt;b&gt;.tif does not exist" in page
    assert "<i>" not in page


def test_report_command(
    joint_run: Path, tmp_path: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(joint_run, tmp_path / "b")
    assert cli("report", run) == 0
    assert f"Written to {run}/test/report.html (" in capsys.readouterr().out
    assert cli("report", tmp_path) == 1
    assert "holds no results (test/metrics.json" in capsys.readouterr().err
    assert cli("report", run, run, run) == 1
    assert "got 3 paths" in capsys.readouterr().err
    assert cli("report", run, "--samples", "0") == 1
    (run / "test" / "predictions" / "era.jsonl").unlink()
    assert cli("report", run) == 1
    assert "era.jsonl" in capsys.readouterr().err


def test_comparison_of_two_runs(joint_run: Path, tmp_path: Path) -> None:
    first, second = copy_of(joint_run, tmp_path / "a"), copy_of(joint_run, tmp_path / "b")
    path, rows = second / "test" / "predictions" / "rsvqa_lr.jsonl", predictions(second, "rsvqa_lr")
    for row in rows:
        row["text"] = row["references"][0]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report_comparison((first, second), "test", tmp_path / "both.html", task="rsvqa_lr", resamples=50)
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert '<th scope="row">accuracy</th>' in page
    assert "B - A" in page
    wrong = sum(row["score"] == 0 for row in predictions(first, "rsvqa_lr"))
    assert len(cards(page)) == min(wrong, 240)
    assert all("better_in_B" in card and "<dt>B</dt>" in card for card in cards(page))


def test_leaderboard_of_a_suite(tmp_path: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    number = {"unclear": False, "ci_low": None, "ci_high": None}
    ours = number | {"value": "90.00", "ci_low": 88.0, "ci_high": 92.0}
    rows = [
        {"model": "old", "source": "paper", "zero_shot": None, "numbers": {"accuracy": number | {"value": "61.2"}}},
        {
            "model": "mine <1>",
            "source": None,
            "zero_shot": None,
            "numbers": {"accuracy": ours},
        },
        {"model": "unknown", "source": "paper", "zero_shot": None, "numbers": {}},
    ]
    table = {"label": "t", "title": "RSVQA-LR", "columns": {"accuracy": "Avg."}, "rows": rows, "notes": ["times 100"]}
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"title": "My suite", "sources": {}, "scale": 100, "tasks": [table]}))
    assert cli("report", tmp_path) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', page) == [
        ("mine &lt;1&gt;", "90.00 (88.0 to 92.0)"),
        ("old", "61.2"),
        ("unknown", "-"),
    ]
    path.write_text('{"title": "x", "tasks": [{"rows": 3}]}')
    assert cli("report", tmp_path) == 1
    assert f"{path} is not a table of unirs bench" in capsys.readouterr().err


def published(page: str, task: str) -> tuple[str, list[list[str]]]:
    """The published numbers of a task in a report: their heading and notes, and the table's rows."""
    (section,) = re.findall(rf"<h2>{task}</h2>.*?</section>", page, flags=re.DOTALL)
    found = html.unescape(section.partition("<h3>")[2])
    rows = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", found)]
    return re.sub(r"<table>.*</table>|<svg.*?</svg>", "", found, flags=re.DOTALL), rows


def test_published_numbers_of_the_tasks_of_a_run(joint_run: Path, tmp_path: Path, cli: Callable[..., int]) -> None:
    run = copy_of(joint_run, tmp_path)
    shutil.copy(joint_run / "config.yaml", run)
    assert cli("report", run, "--no-change-maps", "--samples", "3", "--suite", SUITES / "paper.yaml") == 0
    page = (run / "test" / "report.html").read_text(encoding="utf-8")
    text, rows = published(page, "rsvqa_lr")
    assert text.startswith("RSVQA-LR: published numbers of the suite 'The benchmarks of the UniRS paper'</h3>")
    assert "unirs: Li et al.: UniRS, 2024, arXiv 2412.20742" in text
    assert "<figcaption>Avg. (micro)</figcaption>" in text
    assert rows[0] == ["model", "Presence", "Comparison", "Rural/urban", "Avg. (micro)", "Avg. (macro)", "source"]
    assert ["GeoChat-7B", "91.09", "90.33", "94.00", "90.70", "-", "unirs"] in rows
    (ours,) = [row for row in rows if row[-1] == "this run"]
    accuracy = json.loads((run / "test" / "metrics.json").read_text())["tasks"]["rsvqa_lr"]["accuracy"]
    value, low, high = (100 * accuracy[name] for name in ("value", "ci_low", "ci_high"))
    assert (ours[0], ours[4]) == (run.name, f"{value:.2f} ({low:.1f} to {high:.1f})")
    # The run has two frames of a video.
    text, rows = published(page, "era")
    assert "Not comparable: 'num_frames' is 2 in the run and 8 in the suite." in text
    assert rows == []
    assert "tasks are matched by name" not in page


def test_options_of_tasks_decide_whether_numbers_are_comparable() -> None:
    entry = {"model": "mine", "source": "paper", "numbers": {"accuracy": "61.2"}}
    number = {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n": 9}
    document = {"tasks": {"rsvqa_lr": {"accuracy": number}}, "evaluated": {}, "excluded": {}}

    def section(theirs: dict[str, Any], ours: dict[str, Any] | None) -> TaskSection:
        task = {"title": "LR", "task": theirs, "columns": {"accuracy": "Avg."}, "published": [entry]}
        suite = convert({"title": "S", "sources": {"paper": "P"}, "tasks": [task]}, Suite)
        return published_sections(suite, "mine", document, {"rsvqa_lr": ours} if ours else {})["rsvqa_lr"]

    lr = {"name": "rsvqa_lr"}
    same = section(lr, lr | {"root": "elsewhere", "protocol": "vlm", "weight": 5.0, "clue": "always"})
    rows = [["model", "Avg.", "source"], ["mine", "61.2", "paper"], ["mine", "50.00 (40.0 to 60.0)", "this run"]]
    assert same.table == rows
    assert "mine (paper) 61.2, mine (this run) 50" in same.charts["Avg."]
    unknown = section(lr, None)
    assert unknown.table == rows
    assert unknown.notes[-1] == "The run's options of this task are unknown: tasks are matched by name."
    for theirs, ours, note in (
        (lr, lr | {"protocol": "rsvqa"}, "'protocol' is 'rsvqa' in the run and 'vlm' in the suite"),
        (lr | {"protocol": "rsvqa"}, lr, "'protocol' is 'vlm' in the run and 'rsvqa' in the suite"),
        (lr, lr | {"synthetic": {"size": 8}}, "'synthetic' is SyntheticConfig(size=8, seed=0) in the run and None"),
        (lr, {"name": "era", "label": "rsvqa_lr"}, "'name' is 'era' in the run and 'rsvqa_lr' in the suite"),
    ):
        other = section(theirs, ours)
        assert (other.table, other.charts) == ([], {})
        assert note in other.notes[0]


def test_errors_of_suites(
    joint_run: Path, tmp_path: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(joint_run, tmp_path)
    assert cli("report", run, "--suite", SUITES / "grounding.yaml") == 1
    message = "no published numbers of the run's tasks (rsvqa_lr, levir_cc, era), but of vrsbench, dior_rsvg."
    assert message in capsys.readouterr().err
    assert cli("report", run, run, "--suite", SUITES / "paper.yaml") == 1
    assert "--suite is for the report of one run" in capsys.readouterr().err
    (run / "test").rename(run / "validate")
    assert cli("report", run, "--suite", SUITES / "paper.yaml") == 1
    assert "Published numbers are of test splits" in capsys.readouterr().err


@pytest.mark.slow
def test_in_a_browser(joint_run: Path, tmp_path: Path, cli: Callable[..., int]) -> None:
    """Filters, swipe and maps of change work with mouse and keyboard; nothing is wider than a phone; no errors.

    axe-core finds no fault in contrast, labels and keyboard use.
    """
    sync_api = pytest.importorskip("playwright.sync_api")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        pytest.skip("needs chromium")
    page_file = tmp_path / "report.html"
    assert cli("report", joint_run, "--suite", SUITES / "paper.yaml", "--out", page_file) == 0
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        for width, scheme in ((1280, "light"), (390, "dark")):
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            problems: list[str] = []
            page.on("console", lambda message, found=problems: found.append(message.text))
            page.on("pageerror", lambda error, found=problems: found.append(str(error)))
            page.route(re.compile("^http"), lambda route, found=problems: found.append(route.request.url))
            page.goto(page_file.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.get_by_role("heading", name="LEVIR-CC: published numbers").is_visible()
            total = page.locator(".card:visible").count()
            page.get_by_label("task").select_option("levir_cc")
            pairs = page.locator(".card:visible")
            assert 0 < pairs.count() < total
            assert page.locator("#count").inner_text() == f"{pairs.count()} samples"
            slider = pairs.first.locator(".slider")
            slider.focus()
            for _ in range(3):
                page.keyboard.press("ArrowRight")
            assert "97%" in pairs.first.locator(".over").evaluate("one => one.style.clipPath")
            assert not pairs.first.locator(".map").is_visible()
            page.get_by_label("show maps of change").check()
            assert pairs.first.locator(".map").is_visible()
            assert axe.Axe().run(page).response["violations"] == []
            page.get_by_label("text").fill("no text like this")
            assert page.locator("#none").is_visible()
            assert problems == []
        browser.close()


@pytest.mark.slow
def test_size_of_two_thousand_samples(joint_run: Path, tmp_path: Path) -> None:
    run = copy_of(joint_run, tmp_path)
    folder = run / "test" / "predictions"
    for task in ("rsvqa_lr", "era"):
        (folder / f"{task}.jsonl").unlink()
    document = json.loads((run / "test" / "metrics.json").read_text())
    for part in (document["tasks"], document["primary"], *document["baselines"].values(), document["evaluated"]):
        part.pop("rsvqa_lr", None)
        part.pop("era", None)
    (run / "test" / "metrics.json").write_text(json.dumps(document))
    rows = predictions(run, "levir_cc")
    many = [row | {"id": f"{row['id']}-{number}"} for number in range(-(-2000 // len(rows))) for row in rows][:2000]
    (folder / "levir_cc.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    report_run(run, "test", tmp_path / "many.html", samples=6000)
    page = (tmp_path / "many.html").read_text(encoding="utf-8")
    assert len(cards(page)) == 2000
    assert os.path.getsize(tmp_path / "many.html") < 30_000_000  # noqa: PTH202
