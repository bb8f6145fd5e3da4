import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unirs import create_encoder, create_task
from unirs.data.clues import ClueConfig
from unirs.data.datamodule import UniRSDataModule
from unirs.errors import PluginError
from unirs.models.llm import LLMConfig
from unirs.models.tuning import Lora
from unirs.ranges import PositiveInt, Range, check_ranges
from unirs.tasks.config import TaskConfig
from unirs.training.module import UniRSModule
from unirs.training.optim import OptimConfig

COMMANDS = [
    ("model.optim.lr", "-1"),
    ("model.encoder.image_size", "0"),
    ("model.change.heads", "0"),
    ("data.batch_size", "0"),
    ("data.tasks.image.weight", "-1"),
    ("data.tasks.image.weight", ".nan"),
    ("data.tasks.image.weight", "1e9"),
    ("data.tasks.image.synthetic.size", "0"),
    ("data.tasks.image.root", "5"),
    ("seed_everything", str(2**70)),
]


@pytest.mark.parametrize(("key", "value"), COMMANDS)
def test_command_line_names_the_key_before_any_work(
    key: str,
    value: str,
    tmp_path: Path,
    cli: Callable[..., int],
    write_config: Callable[..., Path],
    colour_tasks: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write_config(tmp_path, [{**colour_tasks[0], "root": str(tmp_path / "missing")}])
    assert cli("fit", "--config", config, f"--{key}", value) == 1
    error = capsys.readouterr().err
    option = key.rpartition(".")[2]
    assert error.startswith("unirs: error: ")
    assert option in error
    assert error.count("\n") == 1
    assert len(error) < 600
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.optim.weight_decay", math.inf),
        ("model.optim.warmup_ratio", 2),
        ("model.optim.betas", [0.9, 1.0]),
        ("model.optim.lr_multipliers", {"llm": -1}),
        ("model.max_new_tokens", 0),
        ("model.llm.vocab_size", 0),
        ("model.llm.lora.r", 0),
        ("model.llm.lora.lora_alpha", -2),
        ("model.llm.lora.lora_dropout", 1.5),
        ("model.clue.max_new_tokens", 0),
        ("model.clue.batch_size", -1),
        ("data.eval_batch_size", -3),
        ("data.num_workers", -1),
        ("data.max_turns", 0),
        ("data.max_length", 0),
        ("data.cache_gb", math.nan),
        ("data.feature_cache_gb", math.inf),
        ("data.val_samples", 0),
        ("data.test_samples", -1),
        ("data.seed", 2**70),
    ],
)
def test_values_of_a_config(key: str, value: object) -> None:
    section, *path = key.split(".")
    config: Any = value
    for name in reversed(path):
        config = {name: config}
    owner = {"model": UniRSModule, "data": UniRSDataModule}[section]
    with pytest.raises(PluginError, match=rf"^{re.escape(key)}\S* is .*, it must be"):
        check_ranges(owner, config, f"{section}.")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OptimConfig(lr=math.nan), r"optim\.lr is nan, it must be float, 0 or more"),
        (lambda: OptimConfig(betas=(0.9, 1.0)), r"optim\.betas\[1\] is 1\.0, it must be float, 0 or more, less than 1"),
        (lambda: OptimConfig(lr_multipliers={"llm": -1.0}), r"optim\.lr_multipliers\.llm is -1\.0"),
        (lambda: Lora.parse({"r": "8"}), r"lora\.r is '8', it must be int, 1 or more"),
        (lambda: LLMConfig(vocab_size=True), r"llm\.vocab_size is True"),
        (lambda: ClueConfig(batch_size=0), r"clue\.batch_size is 0"),
        (lambda: UniRSDataModule([{"name": "era"}], num_workers=-1), r"data\.num_workers is -1"),
        (lambda: UniRSDataModule([{"name": "era"}], batch_size=10**5000), r"data\.batch_size is an integer of 16610"),
        (lambda: TaskConfig.from_config({"name": "era", "root": 5}), "'era': option 'root' is 5, it must be Path"),
        (lambda: TaskConfig.from_config({"name": "era", "weight": 1e9}), r"weight is 1000000000\.0, .* at most 10000"),
        (lambda: TaskConfig.from_config({"name": "era", "synthetic": {"size": 0}}), r"synthetic\.size is 0"),
        (lambda: create_task("jsonl", root=".", num_frames=0), "num_frames is 0, it must be int, 1 or more"),
        (lambda: create_task("scene_folder", root=".", val_share=2), "val_share is 2.*0 or more, at most 1"),
        (lambda: create_encoder("timm", model="resnet18", image_size=-7), "image_size is -7"),
    ],
)
def test_python_names_the_option(build: Callable[[], object], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        build()


def test_ranges_of_functions() -> None:
    def build(size: PositiveInt, sizes: dict[str, list[PositiveInt]], free: int = 0) -> None: ...

    check_ranges(build, {"size": 1, "sizes": {"a": [2, 3]}, "free": -1, "other": 0})
    with pytest.raises(PluginError, match=r"^my\.sizes\.a\[1\] is 0, it must be int, 1 or more\.$"):
        check_ranges(build, {"sizes": {"a": [2, 0]}}, "my.")


@pytest.mark.parametrize(("value", "inside"), [(0, True), (1, False), (-0.1, False), (0.5, True), (math.nan, False)])
def test_range(value: float, *, inside: bool) -> None:
    assert (value in Range(0, 1, open_high=True)) is inside
