from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

from unirs.cli.plugin_options import add_plugin_options
from unirs.errors import PluginError


@pytest.fixture
def parse() -> Callable[..., dict[str, Any]]:
    """Parses a config with two tasks, and overrides."""

    def model(encoder: dict[str, Any], change: dict[str, Any] | None = None) -> None: ...

    def data(tasks: list[dict[str, Any]]) -> None: ...

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(model, "model")
    parser.add_function_arguments(data, "data")
    add_plugin_options(parser)
    config = {
        "model": {"encoder": {"name": "timm", "model": "resnet18", "lora": {"r": 2, "lora_alpha": 4}}},
        "data": {
            "tasks": [
                {"name": "era", "root": "era"},
                {"class_path": "unirs_tasks.rsvqa.build_lr", "init_args": {"root": "lr"}, "label": "lr"},
            ]
        },
    }

    def call(*overrides: str) -> dict[str, Any]:
        given = parser.parse_args(["--config", yaml.safe_dump(config), *overrides])
        again = parser.parse_string(dumped := parser.dump(given))
        assert parser.dump(again) == dumped
        parsed: dict[str, Any] = yaml.safe_load(dumped)
        return parsed

    return call


def test_options_of_one_plugin_are_overridden(parse: Callable[..., dict[str, Any]]) -> None:
    parsed = parse(
        *("--data.tasks.era.weight", "3", "--data.tasks.era.synthetic.size", "7", "--data.tasks.lr.protocol", "rsvqa"),
        *("--model.encoder.tune", "lora", "--model.encoder.lora.r", "8", "--model.change", "difference"),
    )
    assert parsed["data"]["tasks"] == [
        {"name": "era", "root": "era", "weight": 3.0, "synthetic": {"size": 7, "seed": 0}},
        {"name": "unirs_tasks.rsvqa:build_lr", "root": "lr", "label": "lr", "protocol": "rsvqa"},
    ]
    assert parsed["model"] == {
        "encoder": {"name": "timm", "model": "resnet18", "tune": "lora", "lora": {"r": 8, "lora_alpha": 4}},
        "change": {"name": "difference"},
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (("data.tasks.weight", "5"), r"no task is labelled 'weight'.*Known: era, lr.*--data\.tasks\.era\.weight 5"),
        (("data.tasks.0.root", "x"), r"no task is labelled '0'.*--data\.tasks\.era\.root x"),
        (("data.tasks.era", "x"), r"name an option of task 'era': --data\.tasks\.era\.OPTION"),
        (("data.tasks.era.wight", "3"), r"data\.tasks: .*no option 'wight'"),
        (("data.tasks.era.num_frames", "many"), r"option 'num_frames' is 'many', it must be int"),
        (("model.encoder.tune", "lra"), r"model\.encoder: Plugin 'timm': option 'tune' is 'lra'.*'full' \| 'frozen'"),
        (("model.change", "diference"), r"model\.change: Unknown plugin 'diference'.*Did you mean 'difference'"),
    ],
)
def test_wrong_overrides(parse: Callable[..., dict[str, Any]], override: tuple[str, str], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        parse(f"--{override[0]}", override[1])


def test_help_of_a_plugin(parse: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--data.tasks.help", "era")
    output = capsys.readouterr().out
    assert "  num_frames: int, 1 or more (default: 8)" in output
    assert "  weight: float (default: 1.0)" in output


def test_lists_and_describes(cli: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("plugins") == 0
    listed = capsys.readouterr().out
    assert all(text in listed for text in ("tasks:\n", "encoders:\n", "projectors:\n  downsample", "unirs_tasks.era"))
    assert cli("plugins", "change_extraction") == 0
    assert "  n_layers: int, 0 or more (default: 0)" in capsys.readouterr().out
    assert cli("plugins", "projectors") == 0
    assert cli("plugins", "encoders", "tim") == 1
    assert "Did you mean 'timm'?" in capsys.readouterr().err
    assert cli("plugins", str(Path("no_such"))) == 1
    assert "No installed plugin is named 'no_such'" in capsys.readouterr().err
