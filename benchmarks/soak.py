"""Memory, file handles and shared memory of a long training: many short epochs with loader workers and caches.

    python benchmarks/soak.py --epochs 200 --plot runs/soak.png

Samples the processes of `unirs fit` from outside. Exits with 1 if the last tenths of the run need more than the first.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import yaml

UNIRS = str(Path(sys.executable).with_name("unirs"))

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"

COLUMNS = {"memory": "MB", "handles": "open files", "shared": "MB in shared memory"}


def config(folder: Path, epochs: int, workers: int) -> Path:
    """Writes the config of the training: the quickstart's model on few samples."""
    content = yaml.safe_load(QUICKSTART.read_text())
    synthetic = {"size": 16, "seed": 0}
    tasks = [
        {"name": "rsvqa_lr", "root": str(folder / "rsvqa_lr"), "synthetic": synthetic},
        {"name": "levir_cc", "root": str(folder / "levir_cc"), "synthetic": synthetic},
        # Augmented, so that frames are cached, too.
        {"name": "era", "root": str(folder / "era"), "num_frames": 2, "augment": True, "synthetic": synthetic},
    ]
    content["data"] |= {
        "tasks": tasks,
        "batch_size": 8,
        "num_workers": workers,
        "val_samples": 4,
        "cache_gb": 0.1,
        "feature_cache": str(folder / "features"),
    }
    content["trainer"] |= {"default_root_dir": str(folder / "run"), "max_epochs": epochs, "logger": False}
    path = folder / "soak.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def tree(root: int) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def sample(root: int) -> dict[str, float]:
    """Proportional memory, open files, and proportional shared memory of the process and its descendants."""
    memory = shared = handles = 0.0
    for process in tree(root):
        folder = Path("/proc") / str(process)
        try:
            rollup = dict(line.split()[:2] for line in (folder / "smaps_rollup").read_text().splitlines()[1:])
            handles += len(list((folder / "fd").iterdir()))
        except OSError:
            continue
        memory += int(rollup["Pss:"]) / 1024
        shared += int(rollup["Pss_Shmem:"]) / 1024
    return {"memory": memory, "handles": handles, "shared": shared}


def plot(rows: list[dict[str, float]], path: Path) -> None:
    """Draws the curves."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(COLUMNS), sharex=True, figsize=(7, 6))
    for axis, (name, unit) in zip(axes, COLUMNS.items(), strict=True):
        axis.plot([row["seconds"] / 60 for row in rows], [row[name] for row in rows])
        axis.set_ylabel(unit)
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path)


def main() -> int:
    """Trains, samples and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=Path("runs/soak"), help="default: %(default)s")
    parser.add_argument("--plot", type=Path, help="draw the curves; needs matplotlib")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    command = [UNIRS, "fit", "--config", str(config(options.folder, options.epochs, options.workers))]
    log = options.folder / "log.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)  # noqa: S603 - the command is this file's
    rows: list[dict[str, float]] = []
    last = options.folder / "run" / "checkpoints" / "last.ckpt"
    start = time.monotonic()
    while process.poll() is None:
        if last.exists():  # the first epoch is over, and all workers and caches are there
            rows.append({"seconds": time.monotonic() - start, **sample(process.pid)})
        time.sleep(1)
    if process.returncode:
        print(f"The training failed; its output is in {log}.", file=sys.stderr)
        return 1
    if options.plot:
        plot(rows, options.plot)
    tenths = [rows[len(rows) * part // 10 : len(rows) * (part + 1) // 10] for part in range(10)]
    print(f"{len(rows)} samples, {options.epochs} epochs, {options.workers} workers; medians of tenths of the time")
    flat = True
    for name, unit in COLUMNS.items():
        curve = [median(row[name] for row in part) for part in tenths]
        print(f"{unit:>20}: {' '.join(f'{value:.0f}' for value in curve)}")
        # A first tenth may still fill caches; from there to the end, no more than noise.
        flat &= median(curve[7:]) <= 1.05 * max(curve[1:4]) + 1
    print("flat" if flat else "NOT FLAT")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
