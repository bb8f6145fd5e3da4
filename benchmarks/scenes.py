"""Compares a scene classifier with a linear probe on the same features of its frozen encoder, in one run.

    python benchmarks/scenes.py --root data/rsscn7 --out runs/scenes

The probe is a multinomial logistic regression on standardised, average-pooled tokens, fitted on the training and
validation images; its weight decay is chosen on the validation images. Both are scored on the test images.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import yaml
from torch.nn import functional as F

from unirs import plugins
from unirs.cli.main import main as unirs
from unirs.interfaces import Encoder
from unirs.tasks.config import TaskConfig
from unirs.tasks.task import SplitName
from unirs.utils.io import write_atomically
from unirs.utils.progress import track

_DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)


def pooled(
    encoder: Encoder, task: TaskConfig, split: SplitName, classes: list[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean token of each image, `[n, D]`, and its class, `[n]`."""
    samples = list(task.task.load_split(split))
    rows = []
    with torch.inference_mode():
        for sample in track(samples, f"features of {split}", len(samples)):
            rows.append(encoder(sample.media.load_frames(encoder.image_size, encoder.resize)).mean(1)[0])
    return torch.stack(rows), torch.tensor([classes.index(sample.turns[0].category) for sample in samples])


def fit_probe(x: torch.Tensor, y: torch.Tensor, classes: int, decay: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights `[D, classes]` and bias of a logistic regression on standardised features."""
    weight = torch.zeros(x.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weight + bias, y) + decay * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def probe(encoder: Encoder, task: TaskConfig) -> float:
    """Test accuracy of the linear probe."""
    classes = sorted({sample.turns[0].category for sample in task.task.load_split("train")})
    (x, y), (xv, yv), (xt, yt) = (pooled(encoder, task, split, classes) for split in ("train", "val", "test"))
    mean, std = x.mean(0), x.std(0) + 1e-6
    x, xv, xt = ((features - mean) / std for features in (x, xv, xt))

    def accuracy(fitted: tuple[torch.Tensor, torch.Tensor], inputs: torch.Tensor, labels: torch.Tensor) -> float:
        return float(((inputs @ fitted[0] + fitted[1]).argmax(1) == labels).float().mean())

    decay = max(_DECAYS, key=lambda decay: accuracy(fit_probe(x, y, len(classes), decay), xv, yv))
    return accuracy(fit_probe(torch.cat([x, xv]), torch.cat([y, yv]), len(classes), decay), xt, yt)


def main() -> None:
    """Fits the probe, trains and tests the model, prints both scores and writes `<out>/probe.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/scenes.yaml")
    parser.add_argument("--root", required=True, help="folder with train/<class>/ and test/<class>/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("options", nargs="*", help="further options of unirs fit, after --")
    arguments = parser.parse_args()
    config = yaml.safe_load(Path(arguments.config).read_text(encoding="utf-8"))
    (task,) = config["data"]["tasks"]
    tasks = [{**task, "root": arguments.root}]
    start = time.perf_counter()
    frozen = {**config["model"]["encoder"], "tune": "frozen"}
    linear = probe(plugins.create("unirs.encoders", frozen), TaskConfig.from_config(tasks[0]))
    probed = time.perf_counter()
    options = ["--data.tasks", json.dumps(tasks), "--trainer.default_root_dir", str(arguments.out), *arguments.options]
    for command in ("fit", "test"):
        if code := unirs([command, "--config", arguments.config, *options]):
            raise SystemExit(code)
    trained = time.perf_counter()
    metrics = json.loads((arguments.out / "test" / "metrics.json").read_text(encoding="utf-8"))
    (numbers,) = metrics["tasks"].values()
    result = {
        "linear_probe": linear,
        "top1": numbers["top1"],
        "minutes": {"probe": (probed - start) / 60, "fit_and_test": (trained - probed) / 60},
    }
    write_atomically(arguments.out / "probe.json", json.dumps(result, indent=2).encode())
    top1 = numbers["top1"]
    print(f"linear probe  {linear:.4f}")
    print(f"UniRS top1    {top1['value']:.4f} [{top1['ci_low']:.4f}, {top1['ci_high']:.4f}], n = {top1['n']}")
    print(f"probe {result['minutes']['probe']:.1f} min, fit and test {result['minutes']['fit_and_test']:.1f} min")


if __name__ == "__main__":
    main()
