"""Start-up time of `unirs`: its help, its list of tasks, and a training up to its first optimiser step.

    python benchmarks/speed/start.py

The baseline of `unirs fit` is `start_baseline.py`, a bare LightningCLI program with the same encoder, language model
and pairs. In both, `first_step.FirstStep` ends the process right after the first optimiser step. Times include the
start of Python. Warm-up rounds fill the page cache and compile modules.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from measure import Row, in_turn, report

from unirs import plugins

HERE = Path(__file__).parent
UNIRS = str(Path(sys.executable).with_name("unirs"))
ENCODER, LAYER, SIZE = "resnet10t", 3, 64
OPTIONS = {"stem_width": 8, "channels": [16, 16, 32, 64]}
LLM = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
VOCABULARY, BATCH = 512, 8
TRAINER = {
    "max_steps": 1,
    "limit_val_batches": 0,
    "num_sanity_val_steps": 0,
    "gradient_clip_val": 1.0,
    "accelerator": "cpu",
    "precision": "32-true",
}


def main() -> None:
    """Runs the measurements of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("commands", "fit"), default=["commands", "fit"])
    parser.add_argument("--rounds", type=int, default=7, help="of each side (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=1, help="rounds before (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=64, help="training pairs (default: %(default)s)")
    options = parser.parse_args()
    rows: list[Row] = []
    if "commands" in options.parts:
        rows += commands(options.rounds, options.warmup)
    if "fit" in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(fit(Path(folder), options.pairs, options.rounds, options.warmup))
    report("start.py", rows)


def commands(rounds: int, warmup: int) -> list[Row]:
    """Complete processes of the two commands that must be fast; neither is the other's baseline."""
    help_seconds, tasks_seconds = in_turn(
        lambda: _run([UNIRS, "--help"]), lambda: _run([UNIRS, "tasks"]), rounds=rounds, warmup=warmup
    )
    return [
        Row("unirs --help, complete process (bar 0.2 s)", statistics.median(help_seconds), None, "s", None),
        Row("unirs tasks, complete process (bar 0.5 s)", statistics.median(tasks_seconds), None, "s", None),
    ]


def fit(folder: Path, pairs: int, rounds: int, warmup: int) -> Row:
    """A training up to its first step, against a bare LightningCLI program."""
    root = folder / "levir_cc"
    plugins.create("unirs.tasks", {"name": "levir_cc", "root": root}).synthesize(pairs, 0)
    ours = {
        "model": {
            "encoder": {
                "name": "timm",
                "model": ENCODER,
                "pretrained": False,
                "tune": "full",
                "layer": LAYER,
                "image_size": SIZE,
                "options": OPTIONS,
            },
            "projector": {"name": "mlp"},
            "llm": {"config": LLM, "vocab_size": VOCABULARY},
        },
        "data": {"tasks": [{"name": "levir_cc", "root": str(root)}], "batch_size": BATCH},
    }
    special = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    baseline = {
        "model": {"encoder": ENCODER, "layer": LAYER, "options": OPTIONS, "llm": LLM | special},
        "data": {"root": str(root), "size": SIZE, "batch_size": BATCH, "vocab_size": VOCABULARY},
    }
    seconds = in_turn(
        _training([UNIRS], ours, folder / "ours"),
        _training([sys.executable, str(HERE / "start_baseline.py")], baseline, folder / "baseline"),
        rounds=rounds,
        warmup=warmup,
    )
    print(_compare_imports(folder))
    ratio = statistics.median(own / other for own, other in zip(*seconds, strict=True))
    name = "unirs fit, from process start to first optimiser step (ratio ours / baseline, bar 1.1)"
    return Row(name, statistics.median(seconds[0]), statistics.median(seconds[1]), "s", ratio)


def _training(command: Sequence[str], config: dict[str, Any], folder: Path) -> Callable[[], object]:
    """A function that runs a training in a new folder."""
    numbers = itertools.count()

    def train() -> None:
        run = folder / str(next(numbers))
        run.mkdir(parents=True)
        step = {"class_path": "first_step.FirstStep", "init_args": {"packages": str(folder / "packages.json")}}
        trainer = {**TRAINER, "default_root_dir": str(run), "callbacks": [step]}
        (run / "in.yaml").write_text(yaml.safe_dump({**config, "trainer": trainer}))
        _run([*command, "fit", "--config", str(run / "in.yaml")])

    return train


def _run(command: Sequence[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    # As in normal use: modules are compiled once.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"'{' '.join(command)}' failed:\n{done.stderr}")


def _compare_imports(folder: Path) -> str:
    """Reports packages that only one side had imported by its first step; fails if a training ended without one."""
    ours, baseline = (set(json.loads((folder / side / "packages.json").read_text())) for side in ("ours", "baseline"))
    ours -= {"unirs", "unirs_tasks", "unirs_encoders"}
    only = [", ".join(sorted(names)) or "none" for names in (ours - baseline, baseline - ours)]
    both = len(ours & baseline)
    return f"Packages that both sides of fit import: {both}; only ours: {only[0]}; only baseline: {only[1]}"


if __name__ == "__main__":
    main()
