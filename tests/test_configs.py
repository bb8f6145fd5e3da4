from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch.strategies import FSDPStrategy, Strategy, StrategyRegistry
from PIL import Image as Pillow

from unirs import plugins
from unirs.tasks.config import TaskConfig

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
# The others start from a converted checkpoint, and have tests of their own.
CONFIGS = [path for path in RECIPES if "init" not in yaml.safe_load(path.read_text(encoding="utf-8"))["model"]]
CLUSTER = sorted((ROOT / "configs" / "cluster").glob("*.yaml"))


def scaled_down(config: dict[str, Any], tiny: dict[str, Any], data: Path, folder: Path) -> dict[str, Any]:
    """The same config for one step on a CPU, with synthetic data and nothing to download."""
    if "encoder" in config["model"] and config["model"]["encoder"].get("pretrained", True):
        plugins.load("unirs.encoders", config["model"]["encoder"]["name"])
        config["model"]["encoder"] = tiny["encoder"]
        # Its weights would fit the other encoder only.
        config["model"].pop("projector", None)
    if config["model"]["llm"].get("source"):
        config["model"]["llm"] = tiny["llm"]
    tasks = []
    for task in config["data"]["tasks"]:
        TaskConfig.from_config(task)
        if (data / task["name"]).is_dir():
            tasks.append({k: v for k, v in task.items() if k != "synthetic"} | {"root": str(data / task["name"])})
    config["data"] |= {"tasks": tasks, "num_workers": 0, "batch_size": 4, "eval_batch_size": 4}
    config["trainer"] |= {
        "default_root_dir": str(folder / "run"),
        "accelerator": "cpu",
        "devices": 1,
        "strategy": "auto",
        "precision": "32-true",
        "max_epochs": 1,
        "limit_train_batches": 1,
        "limit_val_batches": 1,
        "enable_progress_bar": False,
    }
    return config


@pytest.fixture
def data(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets in folders named after their tasks: the synthetic ones, and images in class folders."""
    root = tmp_path_factory.mktemp("data")
    for task in synthetic.iterdir():
        if task.is_dir():
            (root / task.name).symlink_to(task)
    for split in ("train", "test"):
        for name, colour in {"field": (0, 200, 0), "river": (0, 0, 200)}.items():
            folder = root / "scene_folder" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                Pillow.new("RGB", (64, 64), colour).save(folder / f"{number}.png")
    return root


def page() -> str:
    """The config in the page on components."""
    text = (ROOT / "docs" / "components.md").read_text(encoding="utf-8")
    return text.split('```yaml title="my.yaml"\n')[1].split("```")[0]


def test_there_are_configs() -> None:
    assert "quickstart.yaml" in [path.name for path in CONFIGS]


@pytest.mark.parametrize("path", [*CONFIGS, None], ids=lambda path: path.name if path else "docs")
def test_config_parses_and_trains(
    path: Path | None,
    tiny_model: dict[str, Any],
    data: Path,
    tmp_path: Path,
    cli: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    text = page() if path is None else path.read_text(encoding="utf-8")
    written = tmp_path / "as-written.yaml"
    written.write_text(text)
    assert cli("fit", "--config", written, "--print_config") == 0
    parsed = yaml.safe_load(capsys.readouterr().out)
    assert parsed["data"]["tasks"] == yaml.safe_load(text)["data"]["tasks"]
    small = tmp_path / "scaled-down.yaml"
    small.write_text(yaml.safe_dump(scaled_down(yaml.safe_load(text), tiny_model, data, tmp_path)))
    assert cli("fit", "--config", small) == 0
    assert (tmp_path / "run" / "config.yaml").is_file()
    # Files are written only to the folders of the config.
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["as-written.yaml", "run", "scaled-down.yaml"]


@pytest.mark.parametrize("path", CLUSTER, ids=lambda path: path.stem)
def test_a_cluster_config_is_added_to_a_recipe(
    path: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ROOT / "configs" / "unirs_3b.yaml"
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert list(given) == ["trainer"]
    assert cli("fit", "--config", recipe, "--config", path, "--print_config") == 0
    parsed = yaml.safe_load(capsys.readouterr().out)
    assert parsed["data"]["batch_size"] == 4
    assert parsed["trainer"]["accelerator"] == "gpu"
    strategy = parsed["trainer"]["strategy"]
    if isinstance(strategy, str):
        assert strategy in StrategyRegistry
    else:
        # As far as a machine without a GPU goes: the strategy takes these options.
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--strategy", type=Strategy)
        assert isinstance(parser.instantiate(parser.parse_object({"strategy": strategy})).strategy, FSDPStrategy)


@pytest.mark.parametrize("path", [one for one in CLUSTER if "deepspeed" not in one.stem and one.stem != "fsdp"])
def test_a_cluster_config_trains_a_step_on_one_process(
    path: Path,
    tiny_model: dict[str, Any],
    data: Path,
    tmp_path: Path,
    cli: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "configs" / "quickstart.yaml").read_text(encoding="utf-8")
    small = tmp_path / "small.yaml"
    config = scaled_down(yaml.safe_load(text), tiny_model, data, tmp_path)
    del config["trainer"]["strategy"]
    small.write_text(yaml.safe_dump(config))
    one = ("--trainer.accelerator", "cpu", "--trainer.devices", 1, "--trainer.num_nodes", 1)
    assert cli("fit", "--config", small, "--config", path, *one) == 0
