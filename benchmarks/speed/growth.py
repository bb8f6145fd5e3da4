"""Cost by number of frames, resolution, questions and processes, as a table and a plot.

    python benchmarks/speed/growth.py --plot docs/speed.png

Answers of eight tokens by the components in components.py, in float32, from files to texts: videos of 1 to 8 frames,
images of 112 to 336 pixels, 1 to 32 questions about an image. Then training of a small model from scratch by `unirs
fit`, in one process and in two, on the same number of cores. Needs `matplotlib`, of the dependency group `speed`.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import yaml
from components import TINY, components, images, questions
from matplotlib import pyplot as plt
from measure import Row, machine, report

from unirs import plugins
from unirs.data.dataset import Example
from unirs.inference.api import UniRS
from unirs.models.llm import LLMConfig, build_llm
from unirs.models.pretrained import UniRSConfig
from unirs.models.unirs_model import UniRSModel
from unirs.tasks.media import Media, Video
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, Turn

TOKENS = 8
ENCODER = {"name": "timm", "model": "resnet10t", "pretrained": False, "tune": "full", "layer": 3, "image_size": 64}
# The logged rate is a running mean: after many steps, the slow first one has little weight.
STEPS = 80


def load(folder: Path, size: int | None) -> UniRS:
    """The model, for images of another size than its vision tower's if one is given."""
    options = {"name": "hf", "source": str(folder / "vision_tower"), "image_size": size}
    encoder = plugins.create("unirs.encoders", options)
    llm, tokenizer = build_llm(LLMConfig(source=str(folder / "llm"), tune="frozen"))
    if tokenizer is None:
        raise TypeError("The language model has no tokenizer.")
    config = UniRSConfig(options, None, "mlp", {}, {})
    return UniRS(UniRSModel(encoder, None, llm, "mlp").eval(), tokenizer, config)


def seconds(model: UniRS, media: Media, texts: Sequence[str], rounds: int) -> float:
    """Median seconds from the file to the answers, after one warm-up round."""
    turns = tuple(Turn(str(number), (), {"question": text}) for number, text in enumerate(texts))
    example = Example("", Sample("", media, turns))
    taken = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        list(model.predict_examples({"": PromptTemplate("", "{question}")}, [example], max_new_tokens=TOKENS))
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def processes(folder: Path, count: int) -> float:
    """Samples per second of each of `count` processes of `unirs fit`, which share this process's cores."""
    config = {
        "model": {
            "encoder": ENCODER,
            "llm": {"config": {"model_type": "llama", **TINY, "hidden_size": 64}, "vocab_size": 512},
        },
        "data": {
            "tasks": [{"name": "levir_cc", "root": str(folder / "levir_cc"), "synthetic": {"size": 64, "seed": 0}}],
            "batch_size": 16 // count,
        },
        "trainer": {
            "default_root_dir": str(folder / f"run{count}"),
            "max_steps": STEPS,
            "max_epochs": -1,
            "limit_val_batches": 0,
            "accelerator": "cpu",
            "devices": count,
            "strategy": "ddp" if count > 1 else "auto",
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
        },
    }
    path = folder / f"fit{count}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    subprocess.run(  # noqa: S603
        [str(Path(sys.executable).with_name("unirs")), "fit", "--config", str(path)],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    return _rate(folder / f"run{count}")


def _rate(run: Path) -> float:
    (log,) = run.glob("logs/*/metrics.csv")
    with log.open(encoding="utf-8") as file:
        rates = [float(row["samples/s"]) for row in csv.DictReader(file) if row.get("samples/s")]
    return rates[-1]


def plot(panels: dict[str, tuple[str, dict[int, float]]], path: Path) -> None:
    """Draws one panel per measurement."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 3.0), layout="constrained")
    for axis, (what, (unit, points)) in zip(axes, panels.items(), strict=True):
        axis.plot(list(points), list(points.values()), marker="o", color="#1f5f8b")
        axis.set_xlabel(what)
        axis.set_ylabel(unit)
        axis.set_xticks(list(points))
        axis.set_ylim(0, 1.1 * max(points.values()))
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(machine(), fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Runs the measurements of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, default=Path("runs/speed/growth.png"), help="default: %(default)s")
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 224, 336], help="pixels")
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="tiny components, to try the script")
    options = parser.parse_args()
    with components(tiny=options.tiny) as folder, TemporaryDirectory() as data, torch.inference_mode():
        (image,) = images(Path(data) / "rsvqa_lr", 1)
        task = plugins.create("unirs.tasks", {"name": "era", "root": Path(data) / "era"})
        task.synthesize(30, 0)
        (video,) = task.load_split("train")[0].media.sources
        model, texts = load(folder, None), questions(max(options.questions), 0)
        panels = {
            "frames of a video": (
                "seconds per answer",
                {k: seconds(model, Video(video, k), texts[:1], options.rounds) for k in options.frames},
            ),
            "pixels of a side": (
                "seconds per answer",
                {s: seconds(load(folder, s), image, texts[:1], options.rounds) for s in options.sizes},
            ),
            "questions about an image": (
                "seconds per image",
                {q: seconds(model, image, texts[:q], options.rounds) for q in options.questions},
            ),
            "training processes": (
                "samples per second",
                {p: processes(Path(data), p) * p for p in options.processes},
            ),
        }
    plot(panels, options.plot)
    rows = []
    for what, (unit, points) in panels.items():
        first = next(iter(points.values()))
        rows += [Row(f"{what}: {x}", value, first, unit, value / first) for x, value in points.items()]
    report("growth.py", rows)
    print(f"Drawn: {options.plot}")


if __name__ == "__main__":
    main()
