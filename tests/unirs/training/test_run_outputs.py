import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import unirs

PRIMARY = {"rsvqa_lr": "accuracy", "levir_cc": "cider", "era": "top1"}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_files_of_a_run(joint_run: Path) -> None:
    assert sorted(path.name for path in joint_run.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "logs",
        "manifest.json",
        "test",
    ]
    assert sorted(path.name for path in (joint_run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert sorted(path.name for path in (joint_run / "test").iterdir()) == [
        "metrics.json",
        "predictions",
        "report.html",
        "table.txt",
    ]
    names = [
        f"{task}{baseline}.jsonl"
        for task in ("era", "levir_cc", "rsvqa_lr")
        for baseline in ("", ".blank", ".most_frequent")
    ]
    assert sorted(path.name for path in (joint_run / "test" / "predictions").iterdir()) == sorted(names)
    checkpoint = torch.load(joint_run / "checkpoints" / "best.ckpt", weights_only=True)
    vocabulary = json.loads(checkpoint["tokenizer"])["model"]["vocab"]
    assert 259 < len(vocabulary) <= 320


def test_metrics_of_a_run(joint_run: Path) -> None:
    document = json.loads((joint_run / "test" / "metrics.json").read_text())
    assert set(document) == {"stage", "step", "tasks", "primary", "baselines", "excluded", "evaluated"}
    assert document["stage"] == "test"
    assert document["step"] == torch.load(joint_run / "checkpoints" / "best.ckpt", weights_only=True)["global_step"]
    assert list(document["tasks"]) == ["rsvqa_lr", "levir_cc", "era"]
    assert list(document["baselines"]) == ["blank", "most_frequent"]
    for tasks in (document["tasks"], *document["baselines"].values()):
        for task, metrics in tasks.items():
            assert PRIMARY[task] in metrics
            for numbers in metrics.values():
                assert set(numbers) == {"value", "ci_low", "ci_high", "n"}
                assert numbers["value"] is None or numbers["ci_low"] <= numbers["ci_high"]
    table = (joint_run / "test" / "table.txt").read_text()
    assert all(f"{task} (test, step {document['step']})" in table for task in PRIMARY)
    assert document["excluded"]["rsvqa_lr"]["count"] > 0
    assert sum(document["evaluated"]["era"].values()) == document["tasks"]["era"]["top1"]["n"] == 30


def test_predictions_of_a_run(joint_run: Path, synthetic: Path) -> None:
    fields = ["id", "task", "media", "category", "prompt", "clue", "text", "references", "normalized", "score"]
    metrics = json.loads((joint_run / "test" / "metrics.json").read_text())
    for path in (joint_run / "test" / "predictions").iterdir():
        task, _, baseline = path.stem.partition(".")
        answered = rows(path)
        assert len({row["id"] for row in answered}) == len(answered) == sum(metrics["evaluated"][task].values())
        for row in answered:
            assert list(row) == fields
            assert row["task"] == task
            assert row["references"]
            assert row["prompt"].startswith("<s><|visual|>")
            assert all(Path(file).is_relative_to(synthetic / task) for file in row["media"])
        if task != "levir_cc":
            scores = metrics["baselines"][baseline] if baseline else metrics["tasks"]
            accuracy = scores[task][PRIMARY[task]]["value"]
            assert sum(row["score"] for row in answered) / len(answered) == pytest.approx(accuracy)
    pair = rows(joint_run / "test" / "predictions" / "levir_cc.jsonl")[0]
    assert len(pair["media"]) == 2
    assert pair["prompt"].count("<|visual|>") == 1
    assert len(pair["references"]) == 5


def test_most_frequent_answers_are_from_the_training_split(joint_run: Path) -> None:
    guesses = rows(joint_run / "test" / "predictions" / "rsvqa_lr.most_frequent.jsonl")
    by_category = {
        category: {row["text"] for row in guesses if row["category"] == category}
        for category in ("presence", "rural_urban")
    }
    assert all(len(answers) == 1 for answers in by_category.values())
    assert by_category["presence"] <= {"yes", "no"}
    assert by_category["rural_urban"] <= {"rural", "urban"}
    # Classes are the answers, so the baseline has one answer for all.
    videos = rows(joint_run / "test" / "predictions" / "era.most_frequent.jsonl")
    assert len({row["text"] for row in videos}) == 1
    assert videos[0]["text"].startswith("This is a video about ")


def test_manifest_of_a_run(joint_run: Path) -> None:
    manifest = json.loads((joint_run / "manifest.json").read_text())
    assert manifest["seed"] == 0
    assert manifest["decoding"] == {
        "max_new_tokens": 12,
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "seed": 0,
        "strategy": "greedy",
        "temperature": 0.0,
        "top_p": 1.0,
    }
    assert manifest["versions"]["unirs"] == unirs.__version__
    assert len(manifest["weights"]) == 64
    assert {name: sorted(hashes) for name, hashes in manifest["tasks"].items()} == {
        name: ["data", "prompt"] for name in PRIMARY
    }
    assert len({hashes["data"] for hashes in manifest["tasks"].values()}) == 3


def test_validation_score_is_the_mean_of_the_primary_metrics(joint_run: Path) -> None:
    (path,) = joint_run.glob("logs/*/metrics.csv")
    with path.open() as file:
        scores = [row for row in csv.DictReader(file) if row["val/score"]]
    assert len(scores) == 2
    for row in scores:
        values = [float(row[f"val/{task}/{metric}"]) for task, metric in PRIMARY.items()]
        assert float(row["val/score"]) == pytest.approx(sum(values) / 3, abs=1e-6)


def test_config_of_a_run_is_complete(joint_run: Path) -> None:
    config = yaml.safe_load((joint_run / "config.yaml").read_text())
    assert set(config) == {"seed_everything", "trainer", "model", "data", "checkpoint"}
    assert config["seed_everything"] == 0
    assert config["trainer"]["max_epochs"] == 2
    # Omitted options have their defaults.
    assert config["data"]["max_turns"] == 8
    assert config["data"]["tasks"][1]["weight"] == 0.5
    assert config["model"]["encoder"]["options"] == {"channels": [16, 16, 32, 64]}
