"""How the index of a data set behaves from ten thousand rows to a million: time, memory, and what workers cost.

    python benchmarks/speed/scale.py --rows 10000 100000 1000000

Measured are RSVQA's three JSON files, as the task `rsvqa_hr` reads them, and the JSON lines of the task `jsonl`, made
here in the real formats and kept in `data/speed/scale`. Each figure comes from a process of its own. Times are the
processor's, since sizes are compared and other programs should not count; `wall time` is the clock's.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TextIO

from measure import Row, report
from unirs_tasks import jsonl, rsvqa

from unirs.tasks.sample import TaskSplit
from unirs.utils.io import replacing_folder

DATA = Path("data/speed/scale")
KINDS = ("rsvqa_hr", "jsonl")
# RSVQA-HR has 1,066,316 questions about 10,659 pictures.
PER_PICTURE = 100

_SIZES = ("", "small ", "medium ", "large ", "square ", "rectangular ", "circular ")
_THINGS = ("building", "residential building", "commercial building", "road", "water area", "grass area", "parking")
_PLACES = ("next to", "at the top of", "at the bottom of", "on the left of", "on the right of")
_NAMES = ["".join(parts) for parts in product(_SIZES, _THINGS)]

Figures = dict[str, float]


def main() -> None:
    """Measures, and writes `runs/speed/scale.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="the least first")
    parser.add_argument("--rounds", type=int, default=3, help="how often each size is indexed, sizes in turn")
    parser.add_argument("--workers", type=int, default=2, help="processes of the loader")
    parser.add_argument("--items", type=int, default=100_000, help="how many random ones the loader reads of each size")
    parser.add_argument("--probe", nargs=3, metavar=("WHAT", "KIND", "ROWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        what, kind, count = options.probe
        samples = partial(read, kind, DATA / count)
        work = partial(working, samples, options.workers, options.items)
        print(json.dumps(work() if what == "work" else indexing(samples, int(count))))
        return
    loader = ("--workers", str(options.workers), "--items", str(options.items))
    for count in options.rows:
        make(DATA / str(count), count)
    rows: list[Row] = []
    for kind in KINDS:
        indexed = [[probe("index", kind, count) for count in options.rows] for _ in range(options.rounds)]
        worked = [probe("work", kind, count, *loader) for count in options.rows]
        for place, count in enumerate(options.rows):
            name = f"{kind}, {count:,} rows"
            of_size = [(figures[place], figures[0]) for figures in indexed]
            rows += [
                against(f"{name}: processor time, of the first's", "us/row", "us_per_row", of_size),
                Row(f"{name}: wall time", median(of_size, "wall"), None, "s", None),
                Row(f"{name}: peak memory", median(of_size, "peak_mb"), None, "MB", None),
                against(f"{name}: random samples, of the first's", "samples/s", "samples_per_s", of_size),
                against(f"{name}: a worker's own memory, of the first's", "MB", "own", [(worked[place], worked[0])]),
                Row(
                    f"{name}: its growth over {options.items:,} random items", worked[place]["growth"], None, "MB", None
                ),
                Row(f"{name}: a worker with its share (PSS)", worked[place]["pss"], None, "MB", None),
            ]
    report(__file__, rows)


def against(name: str, unit: str, figure: str, rounds: Sequence[tuple[Figures, Figures]]) -> Row:
    """A row whose baseline is the smallest data set; the ratio is to its figure in the same round."""
    ratio = statistics.median(ours[figure] / least[figure] for ours, least in rounds)
    return Row(name, median(rounds, figure), statistics.median(least[figure] for _, least in rounds), unit, ratio)


def median(rounds: Sequence[tuple[Figures, Figures]], figure: str) -> float:
    """The median of a figure over rounds."""
    return statistics.median(ours[figure] for ours, _ in rounds)


def probe(what: str, kind: str, count: int, *more: str) -> Figures:
    """The figures that this script finds in a process of its own.

    Raises:
        SystemExit: it failed; its message is on stderr.
    """
    command = [sys.executable, __file__, "--probe", what, kind, str(count), *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)  # noqa: S603 - this script
    if done.returncode:
        raise SystemExit(f"'{what}' of {kind} with {count} rows failed. Delete {DATA} if its files are damaged.")
    figures: Figures = json.loads(done.stdout)
    return figures


def read(kind: str, root: Path) -> TaskSplit:
    """Indexes a data set as a user's run does."""
    task = rsvqa.build_hr(root, "rsvqa") if kind == "rsvqa_hr" else jsonl.build(root)
    return task.load_split("train")


def indexing(samples: "partial[TaskSplit]", count: int) -> Figures:
    """Time and memory of the index, and how fast samples come out of it."""
    wall, used = [], []
    for _ in range(max(1, 50_000 // count)):
        start, begun = time.perf_counter(), time.process_time()
        split = samples()
        used.append(time.process_time() - begun)
        wall.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    chooser = random.Random(0)  # noqa: S311 - not a secret
    chosen = [chooser.randrange(len(split)) for _ in range(2000)]
    begun = time.process_time()
    for index in chosen:
        split[index]
    seconds = time.process_time() - begun
    return {
        "us_per_row": statistics.median(used) / count * 1e6,
        "wall": statistics.median(wall),
        "peak_mb": peak,
        "samples_per_s": len(chosen) / seconds,
    }


def working(samples: "partial[TaskSplit]", workers: int, count: int) -> Figures:
    """Memory of a loader's workers after `count` random items, for all sizes as many; the workers' mean in MB."""
    # Not above: the indexing processes would count it as memory of the index.
    from torch.utils.data import DataLoader, Dataset, RandomSampler

    from unirs.data.dataset import TaskDataset

    class Touched(Dataset[int]):
        """Items, made and thrown away."""

        def __init__(self, items: TaskDataset) -> None:
            self.items = items

        def __len__(self) -> int:
            return len(self.items)

        def __getitem__(self, index: int) -> int:
            self.items[index]
            return os.getpid()

    split = samples()
    items = TaskDataset("scale", split, range(len(split)), max_turns=8)
    loader = DataLoader(
        Touched(items),
        batch_size=64,
        sampler=RandomSampler(items, replacement=True, num_samples=count),
        num_workers=workers,
        persistent_workers=True,
        collate_fn=set,
    )
    begun: dict[int, Figures] = {}
    for batch in loader:
        begun |= {process: memory(process) for process in batch - set(begun)}
    ended = {process: memory(process) for process in begun}
    return {
        "own": statistics.mean(figures["own"] for figures in ended.values()),
        "growth": statistics.mean(ended[process]["own"] - begun[process]["own"] for process in ended),
        "pss": statistics.mean(figures["pss"] for figures in ended.values()),
    }


def memory(process: int) -> Figures:
    """Memory of a process in MB: its own, which no other shares, and with its share of what several use."""
    sizes: Figures = {}
    for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]:
        name, amount, *_ = line.split()
        sizes[name] = int(amount) / 1e3
    return {"own": sizes["Private_Clean:"] + sizes["Private_Dirty:"], "pss": sizes["Pss:"]}


def make(root: Path, count: int) -> None:
    """Writes a training split in both formats where it is not there: the fields of the published files, other texts."""
    if root.exists():
        return
    pictures = -(-count // PER_PICTURE)
    with replacing_folder(root) as folder:
        for name in ("questions", "answers", "images"):
            with (folder / f"USGS_split_train_{name}.json").open("w", encoding="utf-8") as file:
                write_list(file, name, rows_of(name, count, pictures))
        with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
            for index, (kind, question, answer) in enumerate(asked(count)):
                picture = f"Data/{index // PER_PICTURE}.tif"
                row = {"image": picture, "question": question, "answer": answer, "category": kind}
                file.write(json.dumps(row) + "\n")


def write_list(file: TextIO, name: str, rows: Iterator[dict[str, Any]]) -> None:
    """Writes `{name: [rows]}`, row by row."""
    file.write(f'{{"{name}": [')
    for index, row in enumerate(rows):
        file.write(", " * bool(index) + json.dumps(row))
    file.write("]}")


def rows_of(name: str, count: int, pictures: int) -> Iterator[dict[str, Any]]:
    """The rows of one of RSVQA's files."""
    if name == "images":
        for picture in range(pictures):
            ids = list(range(picture * PER_PICTURE, min(count, (picture + 1) * PER_PICTURE)))
            yield {"id": picture, "date_added": 1.5e9, "people_id": 0, "questions_ids": ids, "active": True}
        return
    for index, (kind, question, answer) in enumerate(asked(count)):
        row = {"id": index, "date_added": 1.5e9 + index, "people_id": 0, "active": True}
        if name == "questions":
            picture = index // PER_PICTURE
            yield row | {"img_id": picture, "type": kind, "question": question, "answers_ids": [index]}
        else:
            yield row | {"question_id": index, "answer": answer}


def asked(count: int) -> Iterator[tuple[str, str, str]]:
    """Types, questions and answers; the same each time."""
    chooser = random.Random(0)  # noqa: S311 - not a secret
    for _ in range(count):
        one, other = chooser.choice(_NAMES), chooser.choice(_NAMES)
        kind = chooser.choice(("presence", "comp", "count", "area"))
        if kind == "presence":
            yield kind, f"Is there a {one} {chooser.choice(_PLACES)} a {other}?", chooser.choice(("yes", "no"))
        elif kind == "comp":
            yield kind, f"Are there more {one}s than {other}s?", chooser.choice(("yes", "no"))
        elif kind == "count":
            yield kind, f"How many {one}s are there {chooser.choice(_PLACES)} a {other}?", str(chooser.randrange(60))
        else:
            yield kind, f"What is the area covered by {one}s?", f"{chooser.randrange(9000)}m2"


if __name__ == "__main__":
    main()
