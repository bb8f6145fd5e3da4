"""The index of a data set from ten thousand rows to a million: time, memory, and memory of loader workers.

    python benchmarks/speed/scale.py --rows 10000 100000 1000000

The data are RSVQA's three JSON files, as the task `rsvqa_hr` reads them, and the JSON Lines of the task `jsonl`,
generated in the real formats and cached in `data/speed/scale`. Each figure is measured in a new process. Times are
processor times, which do not depend on other programs, except `wall time`.
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
FORMATS = ("rsvqa_hr", "jsonl")
# RSVQA-HR has 1,066,316 questions about 10,659 images.
PER_IMAGE = 100

_SIZES = ("", "small ", "medium ", "large ", "square ", "rectangular ", "circular ")
_THINGS = ("building", "residential building", "commercial building", "road", "water area", "grass area", "parking")
_AT = ("next to", "at the top of", "at the bottom of", "on the left of", "on the right of")
_NAMES = ["".join(words) for words in product(_SIZES, _THINGS)]

Figures = dict[str, float]


def main() -> None:
    """Measures, and writes `runs/speed/scale.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="the smallest first")
    parser.add_argument("--rounds", type=int, default=3, help="how often each size is indexed")
    parser.add_argument("--workers", type=int, default=2, help="processes of the loader")
    parser.add_argument("--items", type=int, default=100_000, help="random samples that the loader reads of each size")
    parser.add_argument("--probe", nargs=3, metavar=("WHAT", "FORMAT", "ROWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        what, name, count = options.probe
        samples = partial(read, name, DATA / count)
        work = partial(working, samples, options.workers, options.items)
        print(json.dumps(work() if what == "work" else indexing(samples, int(count))))
        return
    loader = ("--workers", str(options.workers), "--items", str(options.items))
    for count in options.rows:
        make(DATA / str(count), count)
    rows: list[Row] = []
    for data in FORMATS:
        indexed = [[probe("index", data, count) for count in options.rows] for _ in range(options.rounds)]
        worked = [probe("work", data, count, *loader) for count in options.rows]
        for index, count in enumerate(options.rows):
            name = f"{data}, {count:,} rows"
            of_size = [(figures[index], figures[0]) for figures in indexed]
            rows += [
                against(f"{name}: processor time, of the first's", "us/row", "us_per_row", of_size),
                Row(f"{name}: wall time", median(of_size, "wall"), None, "s", None),
                Row(f"{name}: peak memory", median(of_size, "peak_mb"), None, "MB", None),
                against(f"{name}: random samples, of the first's", "samples/s", "samples_per_s", of_size),
                against(f"{name}: a worker's own memory, of the first's", "MB", "own", [(worked[index], worked[0])]),
                Row(
                    f"{name}: its growth over {options.items:,} random items", worked[index]["growth"], None, "MB", None
                ),
                Row(f"{name}: a worker with its share (PSS)", worked[index]["pss"], None, "MB", None),
            ]
    report(__file__, rows)


def against(name: str, unit: str, figure: str, rounds: Sequence[tuple[Figures, Figures]]) -> Row:
    """A row whose baseline is the smallest data set; the ratio is to its figure in the same round."""
    ratio = statistics.median(ours[figure] / least[figure] for ours, least in rounds)
    return Row(name, median(rounds, figure), statistics.median(least[figure] for _, least in rounds), unit, ratio)


def median(rounds: Sequence[tuple[Figures, Figures]], figure: str) -> float:
    """The median of a figure over rounds."""
    return statistics.median(ours[figure] for ours, _ in rounds)


def probe(what: str, data: str, count: int, *more: str) -> Figures:
    """The figures that this script measures in a new process.

    Raises:
        SystemExit: it failed; its message is on stderr.
    """
    command = [sys.executable, __file__, "--probe", what, data, str(count), *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)  # noqa: S603 - this script
    if done.returncode:
        raise SystemExit(f"'{what}' of {data} with {count} rows failed. Delete {DATA} if its files are damaged.")
    figures: Figures = json.loads(done.stdout)
    return figures


def read(data: str, root: Path) -> TaskSplit:
    """Indexes a data set as a run does."""
    task = rsvqa.build_hr(root, "rsvqa") if data == "rsvqa_hr" else jsonl.build(root)
    return task.load_split("train")


def indexing(samples: "partial[TaskSplit]", count: int) -> Figures:
    """Time and memory of the index, and the rate of random samples."""
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
    """Mean memory of a loader's workers in MB after `count` random samples, the same number for all sizes."""
    # Imported here, so that it does not add to the memory of the indexing processes.
    from torch.utils.data import DataLoader, Dataset, RandomSampler

    from unirs.data.dataset import TaskDataset

    class Touched(Dataset[int]):
        """Builds examples and discards them; each item is the worker's process id."""

        def __init__(self, examples: TaskDataset) -> None:
            self.examples = examples

        def __len__(self) -> int:
            return len(self.examples)

        def __getitem__(self, index: int) -> int:
            self.examples[index]
            return os.getpid()

    split = samples()
    examples = TaskDataset("scale", split, range(len(split)), max_turns=8)
    loader = DataLoader(
        Touched(examples),
        batch_size=64,
        sampler=RandomSampler(examples, replacement=True, num_samples=count),
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
    """Memory of a process in MB: private memory, and with its share of shared memory."""
    sizes: Figures = {}
    for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]:
        name, amount, *_ = line.split()
        sizes[name] = int(amount) / 1e3
    return {"own": sizes["Private_Clean:"] + sizes["Private_Dirty:"], "pss": sizes["Pss:"]}


def make(root: Path, count: int) -> None:
    """Writes a training split in both formats unless it exists, with the fields of the published files."""
    if root.exists():
        return
    num_images = -(-count // PER_IMAGE)
    with replacing_folder(root) as folder:
        for name in ("questions", "answers", "images"):
            with (folder / f"USGS_split_train_{name}.json").open("w", encoding="utf-8") as file:
                write_list(file, name, rows_of(name, count, num_images))
        with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
            for index, (category, question, answer) in enumerate(questions(count)):
                image = f"Data/{index // PER_IMAGE}.tif"
                row = {"image": image, "question": question, "answer": answer, "category": category}
                file.write(json.dumps(row) + "\n")


def write_list(file: TextIO, name: str, rows: Iterator[dict[str, Any]]) -> None:
    """Writes `{name: [rows]}`, row by row."""
    file.write(f'{{"{name}": [')
    for index, row in enumerate(rows):
        file.write(", " * bool(index) + json.dumps(row))
    file.write("]}")


def rows_of(name: str, count: int, num_images: int) -> Iterator[dict[str, Any]]:
    """The rows of one of RSVQA's files."""
    if name == "images":
        for image in range(num_images):
            ids = list(range(image * PER_IMAGE, min(count, (image + 1) * PER_IMAGE)))
            yield {"id": image, "date_added": 1.5e9, "people_id": 0, "questions_ids": ids, "active": True}
        return
    for index, (category, question, answer) in enumerate(questions(count)):
        row = {"id": index, "date_added": 1.5e9 + index, "people_id": 0, "active": True}
        if name == "questions":
            image = index // PER_IMAGE
            yield row | {"img_id": image, "type": category, "question": question, "answers_ids": [index]}
        else:
            yield row | {"question_id": index, "answer": answer}


def questions(count: int) -> Iterator[tuple[str, str, str]]:
    """Types, questions and answers; the same in each call."""
    chooser = random.Random(0)  # noqa: S311 - not a secret
    for _ in range(count):
        one, other = chooser.choice(_NAMES), chooser.choice(_NAMES)
        category = chooser.choice(("presence", "comp", "count", "area"))
        if category == "presence":
            yield category, f"Is there a {one} {chooser.choice(_AT)} a {other}?", chooser.choice(("yes", "no"))
        elif category == "comp":
            yield category, f"Are there more {one}s than {other}s?", chooser.choice(("yes", "no"))
        elif category == "count":
            yield (
                category,
                f"How many {one}s are there {chooser.choice(_AT)} a {other}?",
                str(chooser.randrange(60)),
            )
        else:
            yield category, f"What is the area covered by {one}s?", f"{chooser.randrange(9000)}m2"


if __name__ == "__main__":
    main()
