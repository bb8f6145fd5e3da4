import csv
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from unirs.errors import DataError, UniRSError
from unirs.evaluation.ablation_suite import AblationSuite, make_plan, read_ablations
from unirs.evaluation.ablation_tables import over_trainings
from unirs.metrics.bootstrap import difference, interval, point_estimate
from unirs.metrics.statistics import mean

SUITES = Path(__file__).parents[3] / "benchmarks" / "suites"


@pytest.fixture
def content(tiny_model: dict[str, Any], colour_tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """A suite of two questions whose trainings take seconds."""
    return {
        "title": "Colours",
        "seeds": [0, 1],
        "columns": {"image": {"accuracy": "Pictures"}, "pair": {"accuracy": "Pairs"}},
        "base": {
            "model": tiny_model,
            "data": {"tasks": deepcopy(colour_tasks[:2]), "batch_size": 4, "blank_media": False},
            "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
        },
        "prepared": {"teller": {"seed": 7, "config": {"model": {"change": None}}}},
        "groups": {
            "tasks": {
                "title": "Together or apart",
                "variants": {"joint": {}, "separate": {"trainings": [["image"], ["pair"]]}},
            },
            "change": {
                "title": "How pairs are fused",
                "variants": {
                    "extraction": {"config": {"model": {"change": {"name": "change_extraction"}}}},
                    "none": {"config": {"model": {"change": None}}},
                    "told": {
                        "config": {
                            "model": {"clue": {"source": "prepared:teller"}},
                            "data": {"tasks": {"pair": {"clue": "always"}}},
                        }
                    },
                },
            },
        },
    }


def write(folder: Path, content: object) -> Path:
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture
def suite(tmp_path: Path, content: dict[str, Any]) -> AblationSuite:
    return read_ablations(write(tmp_path, content))


# Reading.


def test_a_variant_is_the_base_with_what_it_changes(suite: AblationSuite, content: dict[str, Any]) -> None:
    joint, separate = suite.groups["tasks"].variants.values()
    extraction, none, told = suite.groups["change"].variants.values()
    assert suite.merged(joint.config) == suite.merged(separate.config) == content["base"]
    assert suite.merged(extraction.config) == content["base"]
    assert separate.trainings == (("image",), ("pair",))
    assert suite.merged(none.config)["model"] == content["base"]["model"] | {"change": None}
    clued = suite.merged(told.config)
    assert clued["model"]["encoder"] == content["base"]["model"]["encoder"]
    assert [task.get("clue") for task in clued["data"]["tasks"]] == [None, "always"]


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (["seads"], [1], r"seads: unknown key\. Did you mean 'seeds'"),
        (["seeds"], [], r"seeds: Expected `array` of length >= 1"),
        (["seeds"], [-1], r"seeds\[0\]: Expected `int` >= 0"),
        (["columns", "imge"], {"accuracy": "A"}, r"columns\.imge: unknown key\. Did you mean 'image'"),
        (["columns"], {}, r"columns: Expected `object` of length >= 1"),
        (["base", "modell"], {}, r"base\.modell: unknown key\. Did you mean 'model'"),
        (["base", "data", "tasks"], [{"label": "a"}], r"base\.data\.tasks: must be a list of tasks with a name"),
        (["base", "trainer", "default_root_dir"], "x", r"trainer\.default_root_dir: is set for each training"),
        (["prepared", "teller", "seed"], None, r"prepared\[\.\.\.\]\.seed: Expected `int`"),
        (["groups", "tasks", "titel"], "x", r"groups\[\.\.\.\]\.titel: unknown key\. Did you mean 'title'"),
        (["groups", "tasks", "variants", "joint"], None, r"variants\[\.\.\.\]: Expected `object`"),
        (["groups", "tasks", "variants", "none"], {}, r"2 variants are named 'none'"),
        (
            ["groups", "tasks", "variants", "separate", "trainings"],
            [["image"], ["pairs"]],
            r"trainings\.pairs: unknown key\. Did you mean 'pair'",
        ),
        (["groups", "tasks", "variants", "separate", "trainings"], ["image"], r"trainings\[0\]: Expected `array`"),
        (["groups", "tasks", "variants", "separate", "trainings"], [["pair"], ["pair"]], r"in two trainings"),
        (["groups", "change", "variants", "none", "config", "model"], 3, r"none\.config\.model: must be a mapping"),
        (
            ["groups", "change", "variants", "told", "config", "data", "tasks", "pare"],
            {},
            r"data\.tasks\.pare: unknown key\. Did you mean 'pair'",
        ),
        (["groups", "change", "variants", "told", "config", "data", "tasks"], [], r"data\.tasks: must map tasks"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, content: dict[str, Any], keys: list[str], value: object, told: str
) -> None:
    part = content
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    with pytest.raises(DataError, match=told):
        read_ablations(write(tmp_path, content))


# Which trainings it comes to.


def test_equal_configs_are_one_training(suite: AblationSuite) -> None:
    plan = make_plan(suite)
    assert plan.tested["joint", 0] == plan.tested["extraction", 0]
    assert plan.tested["joint", 0] != plan.tested["joint", 1]
    # Per seed: joint, two apart, none, told; and the one that tells.
    assert len(plan.trainings) == len({training.folder for training in plan.trainings}) == 2 * 5 + 1
    assert [len(set(plan.tested["separate", seed].values())) for seed in (0, 1)] == [2, 2]


def test_a_training_knows_its_seed_and_its_tasks(suite: AblationSuite, tmp_path: Path) -> None:
    plan = make_plan(suite, seeds=[3])
    trained = {training.folder: training.resolved(tmp_path) for training in plan.trainings}
    config = trained[plan.tested["separate", 3]["pair"]]
    assert (config["seed_everything"], config["data"]["seed"]) == (3, 3)
    assert [task["label"] for task in config["data"]["tasks"]] == ["pair"]
    assert config["trainer"]["default_root_dir"] == str(tmp_path / plan.tested["separate", 3]["pair"])


def test_what_others_need_is_trained_first_and_named_by_its_folder(suite: AblationSuite, tmp_path: Path) -> None:
    plan = make_plan(suite)
    teller, told = plan.trainings[0], plan.trainings[-1]
    assert teller.folder.startswith("teller-seed7-")
    assert told.depends_on == (teller.folder,)
    assert told.resolved(tmp_path)["model"]["clue"]["source"] == str(tmp_path / teller.folder)


def test_a_folder_depends_on_all_that_the_training_does(tmp_path: Path, content: dict[str, Any]) -> None:
    def folders() -> dict[str, str]:
        plan = make_plan(read_ablations(write(tmp_path, content)), seeds=[0])
        return {name: folder for (name, _), tested in plan.tested.items() for folder in tested.values()}

    before = folders()
    content["prepared"]["teller"]["seed"] = 8
    after = folders()
    assert {name for name in before if before[name] != after[name]} == {"told"}
    assert folders() == after


def test_only_some_variants_with_what_they_are_compared_with(suite: AblationSuite) -> None:
    plan = make_plan(suite, seeds=[0], only=["none"])
    assert [list(group.variants) for group in plan.groups.values()] == [["extraction", "none"]]
    # Named as in the whole suite, where the same training is called joint.
    assert [training.folder.partition("-")[0] for training in plan.trainings] == ["joint", "none"]
    with pytest.raises(UniRSError, match=r"no variant 'non'\. Did you mean 'none'"):
        make_plan(suite, only=["non"])


def test_a_prepared_training_must_be_there(tmp_path: Path, content: dict[str, Any]) -> None:
    content["groups"]["change"]["variants"]["told"]["config"]["model"]["clue"]["source"] = "prepared:tellr"
    with pytest.raises(
        UniRSError, match=r"'told' refers to the unknown training run 'prepared:tellr'\. Did you mean 'teller'"
    ):
        make_plan(read_ablations(write(tmp_path, content)))


# Intervals over trainings and rows.


def test_one_training_has_the_interval_of_its_rows() -> None:
    statistic = mean([1, 0, 1, 1, 0, 1, 1, 0])
    clusters = list("aabbccdd")
    assert interval(over_trainings([statistic]), clusters) == interval(statistic, clusters)


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    clusters = list(range(400))
    same = [mean(rng.random(400) < 0.5) for _ in range(3)]
    apart = [mean(rng.random(400) < share) for share in (0.2, 0.5, 0.8)]
    (low, high), (wide_low, wide_high) = (interval(over_trainings(each), clusters) for each in (same, apart))
    assert wide_high - wide_low > 5 * (high - low)
    assert point_estimate(over_trainings(apart)) == pytest.approx(np.mean([point_estimate(one) for one in apart]))


def test_the_spread_of_seeds_is_not_underestimated() -> None:
    # Rows without spread: what is left is the standard error of a mean of three, from their sample variance.
    values = (0.3, 0.5, 0.9)
    statistic = over_trainings([mean([value] * 4) for value in values])
    sums = np.tile(statistic.row_sums.sum(axis=0), (200_000, 1))
    assert statistic.from_sums(sums).std() == pytest.approx(np.std(values, ddof=1) / np.sqrt(3), rel=0.01)


def test_differences_are_paired_by_seed_and_row() -> None:
    rng = np.random.default_rng(0)
    clusters = list(range(200))
    first = [rng.random(200) + shift for shift in (0.0, 2.0, 4.0)]
    apart = difference(
        over_trainings([mean(values) for values in first]),
        over_trainings([mean(values + 0.1) for values in first]),
        clusters,
    )
    # Were they drawn apart, seeds that differ so much would hide it.
    assert apart.ci_low == pytest.approx(0.1) == apart.ci_high


# The command.


def finish(folder: Path, task: str, answers: list[str]) -> None:
    """Leaves in a folder what a tested training leaves."""
    predictions = folder / "test" / "predictions" / f"{task}.jsonl"
    predictions.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": str(index), "task": task, "media": [f"{index // 2}.png"], "category": "k", "prompt": "", "clue": ""}
        | {"text": answer, "references": ["yes"]}
        for index, answer in enumerate(answers)
    ]
    predictions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "test" / "metrics.json").write_text("{}")


@pytest.fixture
def finished(tmp_path: Path, suite: AblationSuite) -> Path:
    """A folder in which all trainings are finished: the separate ones are worse at pictures, and equal at pairs."""
    plan = make_plan(suite)
    for training in plan.trainings:
        finish(tmp_path / "out" / "runs" / training.folder, "image", ["yes"] * 36 + ["no"] * 4)
        finish(tmp_path / "out" / "runs" / training.folder, "pair", ["yes", "no"] * 20)
    for seed in suite.seeds:
        folder = tmp_path / "out" / "runs" / plan.tested["separate", seed]["image"]
        finish(folder, "image", ["yes"] * (4 + 2 * seed) + ["no"] * (36 - 2 * seed))
    return tmp_path / "out"


def test_the_tables_tell_scores_and_differences(
    finished: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("ablate", "--suite", finished.parent / "suite.yaml", "--out", finished, "--resume") == 0
    text = capsys.readouterr().out
    assert "Together or apart" in text
    assert "separate - joint  -77.50 [" in text
    document = json.loads((finished / "table.json").read_text())
    (tasks, change) = document["groups"]
    joint, separate = (tasks["variants"][name]["scores"] for name in ("joint", "separate"))
    assert joint["image"]["accuracy"]["value"] == pytest.approx(90)
    assert joint["image"]["accuracy"]["difference"] is None
    assert separate["image"]["accuracy"]["trainings"] == pytest.approx([10, 15])
    assert separate["image"]["accuracy"]["difference"]["value"] == pytest.approx(-77.5)
    assert separate["image"]["accuracy"]["difference"]["excludes_0"]
    assert separate["pair"]["accuracy"]["difference"] == {
        "value": 0, "ci_low": 0, "ci_high": 0, "p": pytest.approx(1), "excludes_0": False
    }  # fmt: skip
    assert list(change["variants"]) == ["extraction", "none", "told"]
    assert change["variants"]["extraction"]["trainings"] == tasks["variants"]["joint"]["trainings"]
    page = " ".join((finished / "table.md").read_text().split())
    assert "| separate | 12.50 [" in page
    assert "| separate - joint | -77.50 [" in page
    rows = list(csv.DictReader((finished / "table.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2 + 3 * 2
    (row,) = (row for row in rows if (row["variant"], row["task"]) == ("separate", "image"))
    assert (row["trainings"], row["difference"], row["excludes_0"]) == ("10.00 15.00", "-77.50", "yes")


def test_answers_to_other_questions_are_refused(
    finished: Path, suite: AblationSuite, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_plan(suite).tested["none", 1]["pair"]
    finish(finished / "runs" / folder, "pair", ["yes"] * 38)
    assert cli("ablate", "--suite", finished.parent / "suite.yaml", "--out", finished, "--resume") == 1
    assert f"{folder}/test/predictions/pair.jsonl" in capsys.readouterr().err


def test_a_column_that_is_no_statistic_is_refused(
    finished: Path, content: dict[str, Any], cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    content["columns"]["pair"] = {"acuracy": "Pairs"}
    path = write(finished.parent, content)
    assert cli("ablate", "--suite", path, "--out", finished, "--resume") == 1
    assert "has no statistic 'acuracy'. Did you mean 'accuracy'" in capsys.readouterr().err


def test_trainings_are_not_overwritten(
    finished: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("ablate", "--suite", finished.parent / "suite.yaml", "--out", finished) == 1
    assert "already holds training runs. Add '--resume'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--jobs", 0], "--jobs must be 1 or more"),
        (["--seeds", 0, -1], "--seeds must be 0 or more"),
        (["--only", "separat"], "no variant 'separat'. Did you mean 'separate'"),
    ],
)
def test_wrong_options_are_refused(
    finished: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str], options: list[object], told: str
) -> None:
    assert cli("ablate", "--suite", finished.parent / "suite.yaml", "--out", finished, *options) == 1
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"max_new_token": 3}, "max_new_token"),
        ({"encoder": {"weights": "package:unirs_nowhere/x.pth"}}, "'unirs_nowhere', which is not installed"),
    ],
)
def test_a_wrong_config_is_found_before_anything_is_trained(
    tmp_path: Path,
    content: dict[str, Any],
    cli: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    model: dict[str, Any],
    told: str,
) -> None:
    content["groups"]["change"]["variants"]["none"]["config"]["model"] |= model
    out = tmp_path / "out"
    assert cli("ablate", "--suite", write(tmp_path, content), "--out", out) == 1
    assert told in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_it_trains_what_is_not_finished(
    tmp_path: Path, content: dict[str, Any], cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write(tmp_path, content), tmp_path / "out"
    call = ["ablate", "--suite", path, "--out", out, "--only", "told", "--seeds", 5]
    assert cli(*call) == 0
    joint, teller, told = sorted((out / "runs").iterdir())
    assert [folder.name.partition("-")[0] for folder in (joint, teller, told)] == ["joint", "teller", "told"]
    rows = [json.loads(line) for line in (told / "test" / "predictions" / "pair.jsonl").read_text().splitlines()]
    assert any(row["clue"] for row in rows)
    assert "told - extraction" in capsys.readouterr().out
    # An interrupted one begins anew, a finished one stays.
    (joint / "test" / "metrics.json").unlink()
    stayed = (told / "log.txt").stat().st_mtime_ns
    table = (out / "table.json").read_bytes()
    assert cli(*call, "--resume") == 0
    assert (joint / "test" / "metrics.json").is_file()
    assert (told / "log.txt").stat().st_mtime_ns == stayed
    assert (out / "table.json").read_bytes() == table


@pytest.mark.slow
def test_a_training_that_fails_is_told_with_its_output(
    tmp_path: Path, content: dict[str, Any], cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    content["base"]["data"]["max_length"] = 3
    assert cli("ablate", "--suite", write(tmp_path, content), "--out", tmp_path / "out", "--only", "separate") == 1
    message = capsys.readouterr().err
    assert "failed (exit code 1; its output is in" in message
    assert "max_length" in message


# The suite that comes with the project.


def test_the_suite_asks_the_papers_questions() -> None:
    suite = read_ablations(SUITES / "ablations.yaml")
    plan = make_plan(suite)
    assert len(suite.seeds) == 3
    assert len(suite.groups) == 4
    # All questions share the trainings of the base.
    assert len({plan.tested[next(iter(group.variants)), 0]["levir_cc"] for group in suite.groups.values()}) == 1
