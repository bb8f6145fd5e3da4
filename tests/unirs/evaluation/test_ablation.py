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
from unirs.evaluation.ablation_suite import AblationSuite, make_plan
from unirs.evaluation.ablation_tables import over_trainings
from unirs.metrics.bootstrap import difference, interval, point_estimate
from unirs.metrics.statistics import mean
from unirs.utils.typed_yaml import read_yaml

SUITES = Path(__file__).parents[3] / "benchmarks" / "suites"


@pytest.fixture
def content(tiny_model: dict[str, Any], colour_tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """A suite of two groups whose training runs take seconds."""
    return {
        "title": "Colours",
        "seeds": [0, 1],
        "columns": {"image": {"accuracy": "Images"}, "pair": {"accuracy": "Pairs"}},
        "base": {
            "model": tiny_model,
            "data": {"tasks": deepcopy(colour_tasks[:2]), "batch_size": 4, "blank_media": False},
            "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
        },
        "prepared": {"clue_model": {"seed": 7, "config": {"model": {"change": None}}}},
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
                    "clued": {
                        "config": {
                            "model": {"clue": {"source": "prepared:clue_model"}},
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
    return read_yaml(write(tmp_path, content), AblationSuite)


# Reading.


def test_variant_config_is_merged_into_the_base(suite: AblationSuite, content: dict[str, Any]) -> None:
    joint, separate = suite.groups["tasks"].variants.values()
    extraction, none, clued = suite.groups["change"].variants.values()
    assert suite.merged(joint.config) == suite.merged(separate.config) == content["base"]
    assert suite.merged(extraction.config) == content["base"]
    assert separate.trainings == (("image",), ("pair",))
    assert suite.merged(none.config)["model"] == content["base"]["model"] | {"change": None}
    clued_config = suite.merged(clued.config)
    assert clued_config["model"]["encoder"] == content["base"]["model"]["encoder"]
    assert [task.get("clue") for task in clued_config["data"]["tasks"]] == [None, "always"]


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["seads"], [1], r"seads: unknown key\. Did you mean 'seeds'"),
        (["seeds"], [], r"seeds: Expected `array` of length >= 1"),
        (["seeds"], [-1], r"seeds\[0\]: Expected `int` >= 0"),
        (["columns", "imge"], {"accuracy": "A"}, r"columns\.imge: unknown key\. Did you mean 'image'"),
        (["columns"], {}, r"columns: Expected `object` of length >= 1"),
        (["base", "modell"], {}, r"base\.modell: unknown key\. Did you mean 'model'"),
        (["base", "data", "tasks"], [{"label": "a"}], r"base\.data\.tasks: must be a list of tasks with a name"),
        (
            ["base", "data", "tasks"],
            [{"name": "era"}, {"name": "era"}],
            r"names are era, era\. Give each task a 'label'",
        ),
        (["base", "trainer", "default_root_dir"], "x", r"trainer\.default_root_dir: is set for each training"),
        (["prepared", "clue_model", "seed"], None, r"prepared\[\.\.\.\]\.seed: Expected `int`"),
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
        (
            ["groups", "change", "variants", "none", "config", "model"],
            3,
            r"config\.model: Expected `object`, got `int`",
        ),
        (
            ["groups", "change", "variants", "clued", "config", "data", "tasks", "pare"],
            {},
            r"data\.tasks\.pare: unknown key\. Did you mean 'pair'",
        ),
        (["groups", "change", "variants", "clued", "config", "data", "tasks"], [], r"data\.tasks: must map tasks"),
    ],
)
def test_error_names_the_key(
    tmp_path: Path, content: dict[str, Any], keys: list[str], value: object, message: str
) -> None:
    section = content
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    with pytest.raises(DataError, match=message):
        read_yaml(write(tmp_path, content), AblationSuite)


# Planning.


def test_equal_configs_share_a_training_run(suite: AblationSuite) -> None:
    plan = make_plan(suite)
    assert plan.tested["joint", 0] == plan.tested["extraction", 0]
    assert plan.tested["joint", 0] != plan.tested["joint", 1]
    # Per seed: joint, two separate ones, none, clued; and the prepared one.
    assert len(plan.trainings) == len({training.folder for training in plan.trainings}) == 2 * 5 + 1
    assert [len(set(plan.tested["separate", seed].values())) for seed in (0, 1)] == [2, 2]


def test_training_run_config_has_seed_tasks_and_folder(suite: AblationSuite, tmp_path: Path) -> None:
    plan = make_plan(suite, seeds=[3])
    trained = {training.folder: training.resolved(tmp_path) for training in plan.trainings}
    config = trained[plan.tested["separate", 3]["pair"]]
    assert (config["seed_everything"], config["data"]["seed"]) == (3, 3)
    assert [task["label"] for task in config["data"]["tasks"]] == ["pair"]
    assert config["trainer"]["default_root_dir"] == str(tmp_path / plan.tested["separate", 3]["pair"])


def test_prepared_runs_come_first_and_are_referred_to_by_folder(suite: AblationSuite, tmp_path: Path) -> None:
    plan = make_plan(suite)
    clue_model, message = plan.trainings[0], plan.trainings[-1]
    assert clue_model.folder.startswith("clue_model-seed7-")
    assert message.depends_on == (clue_model.folder,)
    assert message.resolved(tmp_path)["model"]["clue"]["source"] == str(tmp_path / clue_model.folder)


def test_code_of_prepared_runs_is_trusted_but_not_with_that_of_another_model(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    def trusts() -> list[bool]:
        plan = make_plan(read_yaml(write(tmp_path, content), AblationSuite), seeds=[0])
        return [run.config["model"].get("trust_remote_code", False) for run in plan.trainings]

    assert trusts() == [False] * 5 + [True]
    content["groups"]["change"]["variants"]["clued"]["config"]["model"]["init"] = "some/model"
    assert trusts() == [False] * 6


def test_folder_name_depends_on_prepared_runs(tmp_path: Path, content: dict[str, Any]) -> None:
    def folders() -> dict[str, str]:
        plan = make_plan(read_yaml(write(tmp_path, content), AblationSuite), seeds=[0])
        return {name: folder for (name, _), tested in plan.tested.items() for folder in tested.values()}

    before = folders()
    content["prepared"]["clue_model"]["seed"] = 8
    after = folders()
    assert {name for name in before if before[name] != after[name]} == {"clued"}
    assert folders() == after


def test_only_selects_variants_and_their_baseline(suite: AblationSuite) -> None:
    plan = make_plan(suite, seeds=[0], only=["none"])
    assert [list(group.variants) for group in plan.groups.values()] == [["extraction", "none"]]
    # Named as in the whole suite, in which the same run is called joint.
    assert [training.folder.partition("-")[0] for training in plan.trainings] == ["joint", "none"]
    with pytest.raises(UniRSError, match=r"no variant 'non'\. Did you mean 'none'"):
        make_plan(suite, only=["non"])


def test_unknown_prepared_run(tmp_path: Path, content: dict[str, Any]) -> None:
    content["groups"]["change"]["variants"]["clued"]["config"]["model"]["clue"]["source"] = "prepared:clue_modle"
    with pytest.raises(
        UniRSError,
        match=r"yaml.*groups\.change\.variants\.clued refers to the unknown training run 'prepared:clue_modle'\. Did "
        "you mean 'clue_model'",
    ):
        read_yaml(write(tmp_path, content), AblationSuite)


# Intervals over training runs and rows.


def test_interval_of_one_run_is_over_its_rows() -> None:
    statistic = mean([1, 0, 1, 1, 0, 1, 1, 0])
    groups = list("aabbccdd")
    assert interval(over_trainings([statistic]), groups) == interval(statistic, groups)


def test_variance_between_seeds_widens_the_interval() -> None:
    rng = np.random.default_rng(0)
    groups = list(range(400))
    same = [mean(rng.random(400) < 0.5) for _ in range(3)]
    apart = [mean(rng.random(400) < share) for share in (0.2, 0.5, 0.8)]
    (low, high), (wide_low, wide_high) = (interval(over_trainings(each), groups) for each in (same, apart))
    assert wide_high - wide_low > 5 * (high - low)
    assert point_estimate(over_trainings(apart)) == pytest.approx(np.mean([point_estimate(one) for one in apart]))


def test_variance_between_seeds_is_unbiased() -> None:
    # Rows without variance: the standard error of a mean of three, from their sample variance, remains.
    values = (0.3, 0.5, 0.9)
    statistic = over_trainings([mean([value] * 4) for value in values])
    sums = np.tile(statistic.row_sums.sum(axis=0), (200_000, 1))
    assert statistic.from_sums(sums).std() == pytest.approx(np.std(values, ddof=1) / np.sqrt(3), rel=0.01)


def test_differences_are_paired_by_seed_and_row() -> None:
    rng = np.random.default_rng(0)
    groups = list(range(200))
    first = [rng.random(200) + shift for shift in (0.0, 2.0, 4.0)]
    apart = difference(
        over_trainings([mean(values) for values in first]),
        over_trainings([mean(values + 0.1) for values in first]),
        groups,
    )
    # With independent draws, the variance between seeds would hide the difference.
    assert apart.ci_low == pytest.approx(0.1) == apart.ci_high


# The command.


def finish(folder: Path, task: str, answers: list[str]) -> None:
    """Writes the test results of a training run."""
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
    """A folder of finished runs: separate ones are worse at images, and equal at pairs."""
    plan = make_plan(suite)
    for training in plan.trainings:
        finish(tmp_path / "out" / "runs" / training.folder, "image", ["yes"] * 36 + ["no"] * 4)
        finish(tmp_path / "out" / "runs" / training.folder, "pair", ["yes", "no"] * 20)
    for seed in suite.seeds:
        folder = tmp_path / "out" / "runs" / plan.tested["separate", seed]["image"]
        finish(folder, "image", ["yes"] * (4 + 2 * seed) + ["no"] * (36 - 2 * seed))
    return tmp_path / "out"


def test_tables_show_scores_and_differences(
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
    assert list(change["variants"]) == ["extraction", "none", "clued"]
    assert change["variants"]["extraction"]["trainings"] == tasks["variants"]["joint"]["trainings"]
    page = " ".join((finished / "table.md").read_text().split())
    assert "| separate | 12.50 [" in page
    assert "| separate - joint | -77.50 [" in page
    rows = list(csv.DictReader((finished / "table.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2 + 3 * 2
    (row,) = (row for row in rows if (row["variant"], row["task"]) == ("separate", "image"))
    assert (row["trainings"], row["difference"], row["excludes_0"]) == ("10.00 15.00", "-77.50", "yes")


def test_predictions_for_other_questions_are_rejected(
    finished: Path, suite: AblationSuite, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_plan(suite).tested["none", 1]["pair"]
    finish(finished / "runs" / folder, "pair", ["yes"] * 38)
    assert cli("ablate", "--suite", finished.parent / "suite.yaml", "--out", finished, "--resume") == 1
    assert f"{folder}/test/predictions/pair.jsonl" in capsys.readouterr().err


def test_unknown_statistic_in_columns(
    finished: Path, content: dict[str, Any], cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    content["columns"]["pair"] = {"acuracy": "Pairs"}
    path = write(finished.parent, content)
    assert cli("ablate", "--suite", path, "--out", finished, "--resume") == 1
    assert "has no statistic 'acuracy'. Did you mean 'accuracy'" in capsys.readouterr().err


def test_existing_runs_are_not_overwritten(
    finished: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("ablate", "--suite", finished.parent / "suite.yaml", "--out", finished) == 1
    assert "already holds training runs. Add '--resume'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", 0], "--jobs must be 1 or more"),
        (["--seeds", 0, -1], "--seeds must be 0 or more"),
        (["--only", "separat"], "no variant 'separat'. Did you mean 'separate'"),
    ],
)
def test_invalid_options(
    finished: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str], options: list[object], message: str
) -> None:
    assert cli("ablate", "--suite", finished.parent / "suite.yaml", "--out", finished, *options) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"max_new_token": 3}, "max_new_token"),
        ({"encoder": {"weights": "package:unirs_nowhere/x.pth"}}, "'unirs_nowhere', which is not installed"),
    ],
)
def test_invalid_config_is_reported_before_training(
    tmp_path: Path,
    content: dict[str, Any],
    cli: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    model: dict[str, Any],
    message: str,
) -> None:
    content["groups"]["change"]["variants"]["none"]["config"]["model"] |= model
    out = tmp_path / "out"
    assert cli("ablate", "--suite", write(tmp_path, content), "--out", out) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_resume_trains_unfinished_runs_only(
    tmp_path: Path, content: dict[str, Any], cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write(tmp_path, content), tmp_path / "out"
    call = ["ablate", "--suite", path, "--out", out, "--only", "clued", "--seeds", 5]
    assert cli(*call) == 0
    runs = {folder.name.partition("-")[0]: folder for folder in (out / "runs").iterdir()}
    assert set(runs) == {"joint", "clue_model", "clued"}
    joint, clued = runs["joint"], runs["clued"]
    rows = [json.loads(line) for line in (clued / "test" / "predictions" / "pair.jsonl").read_text().splitlines()]
    assert any(row["clue"] for row in rows)
    assert "clued - extraction" in capsys.readouterr().out
    # An interrupted run starts again, a finished one is kept.
    (joint / "test" / "metrics.json").unlink()
    modified_before = (clued / "log.txt").stat().st_mtime_ns
    table = (out / "table.json").read_bytes()
    assert cli(*call, "--resume") == 0
    assert (joint / "test" / "metrics.json").is_file()
    assert (clued / "log.txt").stat().st_mtime_ns == modified_before
    assert (out / "table.json").read_bytes() == table


@pytest.mark.slow
def test_error_of_a_failed_run_contains_its_output(
    tmp_path: Path, content: dict[str, Any], cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    content["base"]["data"]["max_length"] = 3
    assert cli("ablate", "--suite", write(tmp_path, content), "--out", tmp_path / "out", "--only", "separate") == 1
    message = capsys.readouterr().err
    assert "failed (exit code 1; its output is in" in message
    assert "max_length" in message


# The suite that comes with the project.


def test_suite_has_the_papers_ablations() -> None:
    suite = read_yaml(SUITES / "ablations.yaml", AblationSuite)
    plan = make_plan(suite)
    assert len(suite.seeds) == 3
    assert len(suite.groups) == 4
    # All groups share the training runs of the base.
    assert len({plan.tested[next(iter(group.variants)), 0]["levir_cc"] for group in suite.groups.values()}) == 1
