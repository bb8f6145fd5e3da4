"""How long `unirs` takes to start: its help, its list of tasks, and a training up to its first optimiser step.

    python benchmarks/speed/start.py

The baseline of `unirs fit` is `start_baseline.py`, a bare LightningCLI program with the same encoder, language
model and pairs. Both get `first_step.FirstStep`, which ends their process right after the first optimiser step, and
both are timed from outside, so that everything from the start of Python on counts. Files are cached and compiled by the
rounds that warm up.
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
    """Times what the command line names."""
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
    """Whole processes of the two commands that must answer at once; neither is the other's baseline."""
    shown, listed = in_turn(
        lambda: _run([UNIRS, "--help"]), lambda: _run([UNIRS, "tasks"]), rounds=rounds, warmup=warmup
    )
    return [
        Row("unirs --help, whole process (bar 0.2 s)", statistics.median(shown), None, "s", None),
        Row("unirs tasks, whole process (bar 0.5 s)", statistics.median(listed), None, "s", None),
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
    """One training after the other, each in a folder of its own."""
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
    # As a user has it: compiled once, and kept.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"'{' '.join(command)}' failed:\n{done.stderr}")


def _compare_imports(folder: Path) -> str:
    """What only one side had imported by its first step; fails where a training ended without one."""
    ours, baseline = (set(json.loads((folder / side / "packages.json").read_text())) for side in ("ours", "baseline"))
    ours -= {"unirs", "unirs_tasks", "unirs_encoders"}
    alone = [", ".join(sorted(names)) or "none" for names in (ours - baseline, baseline - ours)]
    both = len(ours & baseline)
    return f"Packages that both sides of fit import: {both}; ours alone: {alone[0]}; baseline alone: {alone[1]}"


if __name__ == "__main__":
    main()
