import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import unirs
from unirs.cli import COMMANDS

Cli = Callable[..., int]
WriteConfig = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


def error(capfd: Capture) -> str:
    """The error message, which is a single line."""
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    (line,) = (line for line in captured.err.splitlines() if line.startswith("unirs: error: "))
    return line.removeprefix("unirs: error: ")


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, colour_tasks: list[dict[str, Any]], cli: Cli, write_config: WriteConfig
) -> Path:
    """A folder with `config-in.yaml` and the `run` that it trained and tested."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_config(folder, colour_tasks)
    assert cli("fit", "--config", config) == 0
    assert cli("test", "--config", folder / "run" / "config.yaml") == 0
    return folder


# Commands that need no model.


def test_help_lists_commands(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("--help") == 0
    text = capsys.readouterr().out
    assert all(f"  {command} " in text for command in ("fit", "validate", "test", "predict", "tasks", "synth"))


def test_version(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("--version") == 0
    assert capsys.readouterr().out == f"unirs {unirs.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command: str, cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(command, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: unirs {command} [-h] ")


@pytest.mark.parametrize("arguments", [["fitt"], [], ["synth"], ["predict"], ["tasks", "--rot", "x"]])
def test_invalid_command_lines(arguments: list[str], cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(*arguments) == 2
    assert capsys.readouterr().err.startswith("usage: unirs")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fitt"], "unknown command 'fitt'. Did you mean 'fit'? Known: ablate"),
        (["predict", "run", "a.png", "--qestion", "x"], "arguments: --qestion x. Did you mean '--question'?"),
        (["tasks", "check", "era", "--rot", "x"], "arguments: --rot x. Did you mean '--root'?"),
        (["fit", "--model.optim.lrr", "1"], "arguments: --model.optim.lrr 1. Did you mean 'model.optim.lr'?"),
        (["test", "--trainr.devices=1"], "arguments: --trainr.devices=1. Did you mean 'trainer.devices'?"),
    ],
)
def test_nearest_match(arguments: list[str], expected: str, cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(*arguments) != 0
    assert expected in capsys.readouterr().err


COMPLETE = """\
source {script}
COMP_WORDS=(unirs {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _shtab_unirs; echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.slow
def test_completion_in_bash(cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("completion", "bash") == 0
    script = tmp_path / "unirs.bash"
    script.write_text(capsys.readouterr().out)
    expected = {"rep": "report", "predict --num-f": "--num-frames", "fit --model.optim.bet": "--model.optim.betas"}
    for words, completed in expected.items():
        shell = ["bash", "-c", COMPLETE.format(script=script, words=words)]
        done = subprocess.run(shell, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [completed]


def test_notes_that_do_not_help_are_hidden(joint_run: Path) -> None:
    notes = (joint_run.parent / "stderr.txt").read_text()
    assert "Seed set to 0" in notes
    for note in ("Tip:", "TPU", "eval mode", "weights_only", "Trainer already configured"):
        assert note not in notes


QUICK = """\
import sys
from unirs.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
slow = ("torch", "numpy", "lightning", "transformers", "jsonargparse", "yaml", "PIL", "unirs.plugins", "unirs.tasks")
print(code, *(name for name in slow if name in sys.modules))
"""


def test_help_imports_nothing_slow() -> None:
    done = subprocess.run([sys.executable, "-c", QUICK, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"


def test_tasks_are_listed_fast() -> None:
    arguments = [sys.executable, "-c", QUICK, "tasks", "--root", "nowhere"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    *table, verdict = done.stdout.splitlines()
    assert verdict == "0 unirs.plugins unirs.tasks"
    assert [line.split()[:3] for line in table] == [
        ["NAME", "MODALITY", "METRIC"],
        ["cdvqa", "pair", "exact"],
        ["changechat", "pair", "by_category"],
        ["crsvqa", "image", "exact"],
        ["dior_rsvg", "image", "boxes"],
        ["earthvqa", "image", "earthvqa"],
        ["era", "video", "top1"],
        ["fmow_series", "series", "top1"],
        ["geochat_instruct", "image", "exact"],
        ["jsonl", "image", "exact"],
        ["levir_cc", "pair", "caption"],
        ["lrs_vqa", "image", "lrsvqa"],
        ["nwpu_captions", "image", "caption"],
        ["rsicd", "image", "caption"],
        ["rsvqa_hr", "image", "exact"],
        ["rsvqa_lr", "image", "exact"],
        ["scene_folder", "image", "top1"],
        ["sydney_captions", "image", "caption"],
        ["ucm_captions", "image", "caption"],
        ["vrsbench", "image", "boxes"],
        ["xbd", "pair", "top1"],
    ]
    assert all("missing: nowhere/" in line and "unirs_tasks." in line for line in table[1:])


def test_tasks_show_which_data_exist(
    synthetic: Path, cli: Cli, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli("tasks", "--root", synthetic) == 0
    table = capsys.readouterr().out
    assert [f"found: {synthetic / name}" in table for name in ("era", "levir_cc", "rsvqa_lr")] == [True] * 3
    (tmp_path / "era" / "Train").mkdir(parents=True)
    assert cli("tasks", "--root", tmp_path) == 0
    assert f"incomplete: {tmp_path / 'era'}" in capsys.readouterr().out


def test_synth_writes_real_formats(synthetic: Path) -> None:
    assert sorted(path.name for path in synthetic.iterdir()) == ["era", "levir_cc", "rsvqa_lr", "sheet.png"]
    assert len(list((synthetic / "rsvqa_lr").glob("LR_split_*_*.json"))) == 9
    assert (synthetic / "levir_cc" / "LevirCCcaptions.json").is_file()
    assert len(list((synthetic / "era" / "Train").glob("*/*.mp4"))) == 30


def test_synth_overwrites_nothing(synthetic: Path, cli: Cli, capfd: Capture) -> None:
    before = contents(synthetic / "levir_cc")
    assert cli("synth", "--out", synthetic, "--tasks", "levir_cc", "--size", 2) == 1
    assert f"{synthetic / 'levir_cc'} exists" in error(capfd)
    assert contents(synthetic / "levir_cc") == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "0"], "--size must be 1 or more, got 0"),
        (["--tasks", "rsvqa-lr"], "Did you mean 'rsvqa_lr'?"),
        (["--tasks", "rsvqa_hr"], "'rsvqa_hr' has no synthetic form"),
        (["--tasks", "levir_cc", "rsvqa_hr", "--size", "1"], "'rsvqa_hr' has no synthetic form"),
    ],
)
def test_wrong_options_of_synth(arguments: list[str], message: str, tmp_path: Path, cli: Cli, capfd: Capture) -> None:
    assert cli("synth", "--out", tmp_path / "new", *arguments) == 1
    assert message in error(capfd)
    assert not (tmp_path / "new").exists()


# Wrong configs.


def changed(config: Path, *keys: str, value: object) -> Path:
    content = yaml.safe_load(config.read_text())
    node = content
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    config.write_text(yaml.safe_dump(content))
    return config


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["data", "batchsize"], 3, ["'data.batchsize'. Did you mean 'data.batch_size'?"]),
        (["model", "optim", "learning_rate"], 3, ["learning_rate"]),
        (["trainer", "max_epoch"], 3, ["Did you mean 'trainer.max_epochs'?"]),
        (["optimiser"], 3, ["optimiser"]),
        (["data", "batch_size"], "many", ["batch_size", "many"]),
        (["data", "tasks"], [], ["data.tasks is empty"]),
        (["data", "tasks"], [{"name": "eras"}], ["'eras'", "Did you mean 'era'?"]),
        (["data", "tasks"], [{"name": "era", "frame": 3}], ["'frame'", "Did you mean 'num_frames'?"]),
        (["model", "encoder", "name"], "timn", ["'timn'", "Did you mean 'timm'?"]),
        (["model", "encoder", "tunes"], "full", ["'tunes'", "Did you mean 'tune'?"]),
        (["model", "encoder", "model"], "resnet81", ["'resnet81'", "Did you mean 'resnet"]),
        (["model", "encoder", "tune"], "frozen", ["Encoder 'resnet18'", "random weights", "'tune: frozen'"]),
        (["model", "change"], {"name": "change-extraction"}, ["Did you mean 'change_extraction'?"]),
        (["model", "change"], {"name": "change_extraction", "layers": 1}, ["Did you mean 'n_layers'?"]),
        (["model", "change"], {"n_layers": 1}, ["needs a name"]),
        (["model", "llm", "config", "hidden_sice"], 32, ["'hidden_sice'", "Did you mean 'hidden_size'?"]),
        (["model", "llm", "source"], "somewhere", ["exactly one of 'source'"]),
    ],
)
def test_invalid_configs(
    keys: list[str],
    value: object,
    message: list[str],
    colour_tasks: list[dict[str, Any]],
    tmp_path: Path,
    cli: Cli,
    write_config: WriteConfig,
    capfd: Capture,
) -> None:
    config = write_config(tmp_path, colour_tasks)
    changed(config, *keys, value=value)
    assert cli("fit", "--config", config) == 1
    text = error(capfd)
    assert [words for words in message if words not in text] == []
    assert not (tmp_path / "run").exists()


def test_config_that_does_not_exist(tmp_path: Path, cli: Cli, capfd: Capture) -> None:
    assert cli("fit", "--config", tmp_path / "absent.yaml") == 1
    assert str(tmp_path / "absent.yaml") in error(capfd)


@pytest.mark.parametrize("text", ["model: {encoder: [\n", "just words", "- a\n- b\n"])
def test_config_that_is_not_a_mapping(text: str, tmp_path: Path, cli: Cli, capfd: Capture) -> None:
    (tmp_path / "broken.yaml").write_text(text)
    assert cli("fit", "--config", tmp_path / "broken.yaml") == 1
    assert "broken.yaml" in error(capfd)


def test_fit_without_config(cli: Cli, capfd: Capture) -> None:
    assert cli("fit") == 1
    assert "data.tasks" in error(capfd)


def test_test_without_training(
    colour_tasks: list[dict[str, Any]], tmp_path: Path, cli: Cli, write_config: WriteConfig, capfd: Capture
) -> None:
    config = write_config(tmp_path, colour_tasks)
    for command in ("test", "validate"):
        assert cli(command, "--config", config) == 1
        assert error(capfd).endswith("train first with 'unirs fit'.")
    assert not (tmp_path / "run").exists()


def test_checkpoint_that_does_not_exist(trained: Path, tmp_path: Path, cli: Cli, capfd: Capture) -> None:
    config = trained / "run" / "config.yaml"
    assert cli("test", "--config", config, "--ckpt_path", tmp_path / "a.ckpt") == 1
    assert str(tmp_path / "a.ckpt") in error(capfd)


def test_checkpoint_of_another_model(
    trained: Path,
    tmp_path: Path,
    cli: Cli,
    write_config: WriteConfig,
    colour_tasks: list[dict[str, Any]],
    capfd: Capture,
) -> None:
    config = write_config(tmp_path, colour_tasks, model={"change": None})
    checkpoint = trained / "run" / "checkpoints" / "best.ckpt"
    assert cli("test", "--config", config, "--ckpt_path", checkpoint) == 1
    text = error(capfd)
    assert "weights do not fit the config's model" in text
    assert "model.change.rows.weight" in text
    assert not (tmp_path / "run" / "test").exists()


# Runs.


def test_fit_does_not_overwrite_a_run(trained: Path, cli: Cli, capfd: Capture) -> None:
    before = contents(trained / "run")
    assert cli("fit", "--config", trained / "config-in.yaml", "--trainer.max_epochs", 2) == 1
    text = error(capfd)
    assert f"{trained / 'run'} already holds a run" in text
    assert "--ckpt_path last" in text
    assert contents(trained / "run") == before


def test_a_test_does_not_change_files_of_the_training(trained: Path, cli: Cli) -> None:
    run = trained / "run"

    def training_files() -> dict[str, str]:
        return {name: digest for name, digest in contents(run).items() if not name.startswith(("test", "manifest"))}

    before = training_files()
    assert any(name.endswith("metrics.csv") for name in before)
    assert any("events.out.tfevents" in name for name in before)
    first = (run / "test" / "metrics.json").read_bytes()
    assert cli("test", "--config", run / "config.yaml", "--data.eval_batch_size", 3) == 0
    assert training_files() == before
    assert (run / "test" / "metrics.json").read_bytes() == first


def test_validate_writes_results_of_the_validation_split(trained: Path, cli: Cli) -> None:
    assert cli("validate", "--config", trained / "config-in.yaml") == 0
    document = json.loads((trained / "run" / "validate" / "metrics.json").read_text())
    assert document["stage"] == "validate"
    assert list(document["tasks"]) == ["image", "pair", "video"]
    assert list(document["baselines"]) == ["most_frequent"]
    # All splits of these tasks have the same samples.
    tested = json.loads((trained / "run" / "test" / "metrics.json").read_text())
    assert document["tasks"] == tested["tasks"]


def test_training_resumes_and_is_reproducible(
    trained: Path, tmp_path: Path, colour_tasks: list[dict[str, Any]], cli: Cli, write_config: WriteConfig
) -> None:
    config = write_config(tmp_path, colour_tasks)
    assert cli("fit", "--config", config) == 0
    assert cli("test", "--config", config) == 0
    again, first = (
        {str(path.relative_to(run)): path.read_bytes() for path in (run / "test").rglob("*.json*")}
        for run in (tmp_path / "run", trained / "run")
    )
    assert again == first
    weights = [torch.load(run / "run" / "checkpoints" / "last.ckpt")["state_dict"] for run in (tmp_path, trained)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())

    def last_step() -> int:
        path = tmp_path / "run" / "checkpoints" / "last.ckpt"
        return int(torch.load(path, weights_only=True)["global_step"])

    assert last_step() == 2
    assert cli("fit", "--config", config, "--ckpt_path", "last", "--trainer.max_epochs", 3) == 0
    assert last_step() == 6


def test_worker_processes_give_the_same_batches(
    trained: Path, tmp_path: Path, colour_tasks: list[dict[str, Any]], cli: Cli, write_config: WriteConfig
) -> None:
    assert cli("fit", "--config", write_config(tmp_path, colour_tasks), "--data.num_workers", 1) == 0
    weights = [torch.load(run / "run" / "checkpoints" / "last.ckpt")["state_dict"] for run in (tmp_path, trained)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_seed_changes_the_model(
    trained: Path, tmp_path: Path, colour_tasks: list[dict[str, Any]], cli: Cli, write_config: WriteConfig
) -> None:
    config = write_config(tmp_path, colour_tasks)
    assert cli("fit", "--config", config, "--seed_everything", 1) == 0
    weights = [torch.load(run / "run" / "checkpoints" / "last.ckpt")["state_dict"] for run in (tmp_path, trained)]
    name = "model.llm.lm_head.weight"
    assert not torch.equal(weights[0][name], weights[1][name])


@pytest.mark.slow
def test_two_processes_have_the_scores_of_one(
    tmp_path: Path, colour_tasks: list[dict[str, Any]], cli: Cli, write_config: WriteConfig
) -> None:
    config = write_config(tmp_path, colour_tasks, data={"batch_size": 2})
    command = [str(Path(sys.executable).with_name("unirs"))]
    two = ["--trainer.strategy", "ddp", "--trainer.devices", "2"]
    for name in ("fit", "test"):
        done = subprocess.run(
            [*command, name, "--config", str(config), *two], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    # Twelve samples in batches of two on each of two processes.
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    both = {str(path): path.read_bytes() for path in (run / "test").rglob("*.json*")}
    assert cli("test", "--config", config) == 0
    assert {str(path): path.read_bytes() for path in (run / "test").rglob("*.json*")} == both


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fit"], "There is no config. Try: unirs fit --config "),
        (["fit", "--config", "FOLDER"], "FOLDER is a folder. Name a file, such as FOLDER/config.yaml."),
        (["fit", "--config", "FOLDER/missing.yaml"], "FOLDER/missing.yaml does not exist. "),
        (["test", "FOLDER"], "'FOLDER' is no option. Try: unirs test --config FOLDER/config.yaml"),
        (
            ["fit", "--config", "FOLDER/config.yaml", "--trainer.max_epochs", "ten"],
            "trainer.max_epochs is 'ten', it must be one of: int, null. (",
        ),
        (["convert", "FOLDER/missing", "FOLDER/out"], "FOLDER/missing does not exist. Correct the path."),
        (["predict", "FOLDER", "FOLDER/missing.png"], "FOLDER/missing.png does not exist. Correct the path: "),
        (
            ["synth", "--out", "FOLDER/out", "--tasks", "xbd"],
            "Task 'xbd' has no synthetic form. Known: era, levir_cc, ",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_messages_name_the_next_step(
    arguments: list[str], expected: str, tmp_path: Path, cli: Cli, capfd: Capture
) -> None:
    (tmp_path / "config.yaml").write_text("data: {tasks: []}")
    assert cli(*(argument.replace("FOLDER", str(tmp_path)) for argument in arguments)) == 1
    assert expected.replace("FOLDER", str(tmp_path)) in capfd.readouterr().err
