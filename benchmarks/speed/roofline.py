"""The share of a machine's peak performance in matrix products that a training step reaches.

    python benchmarks/speed/roofline.py

The peak is the fastest of several large square products, measured in the same run between the steps, in the same
precision. A step is the forward and backward pass and the optimiser step, with the model and the packed mixed batches
of train.py and cached features, as in steady state. Only operations of executed matrix products are counted
(`torch.utils.flop_counter`).
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from components import components
from measure import Row, report
from torch.utils.flop_counter import FlopCounterMode
from train import Work, loaded

from unirs.models.dtypes import resolve_dtype

_SIDES = (1024, 2048, 4096)


def peak(dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of the fastest square matrix product."""
    fastest = 0.0
    for side in _SIDES:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        seconds = min(timed(lambda a=a, b=b: a @ b, device) for _ in range(4))  # type: ignore[misc]
        fastest = max(fastest, 2 * side**3 / seconds)
    return fastest


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call."""
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Runs the measurements of the command line."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=int, nargs=3, default=[2, 1, 1], metavar=("IMAGES", "PAIRS", "VIDEOS"))
    parser.add_argument("--steps", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="tiny components, to try the script")
    options = parser.parse_args()
    options.dtype = resolve_dtype(options.dtype, "lora")
    dtype, device = getattr(torch, options.dtype), torch.device("cuda" if gpu else "cpu")
    with components(tiny=options.tiny) as folder, TemporaryDirectory() as data:
        work = Work.synthetic(folder, Path(data), tuple(options.media), dtype)
        module, batches = loaded(work, Path(data) / "features", device)
        optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4)

        def step(batch: object) -> None:
            optimizer.zero_grad()
            module.model.loss(batch, "token_mean").backward()  # type: ignore[arg-type]
            optimizer.step()

        shares, reached, peaks = [], [], []
        for number, batch in enumerate(itertools.islice(itertools.cycle(batches), options.steps + 1)):
            with FlopCounterMode(display=False) as counter:
                step(batch)
            seconds = min(timed(lambda batch=batch: step(batch), device) for _ in range(2))  # type: ignore[misc]
            fastest = peak(dtype, device)
            # The first step warms up.
            if number:
                reached.append(counter.get_total_flops() / seconds)
                peaks.append(fastest)
                shares.append(reached[-1] / fastest)
    giga = [statistics.median(values) / 1e9 for values in (reached, peaks)]
    name = f"training step of the peak, {options.dtype} on {device.type}"
    report("roofline.py", [Row(name, giga[0], giga[1], "GFLOP/s", statistics.median(shares))])


if __name__ == "__main__":
    main()
