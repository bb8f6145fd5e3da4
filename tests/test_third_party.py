"""A task of somebody else's: as an installed package and as a file."""

import base64
import csv
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from unirs import plugins
from unirs.tasks.task import SplitName, Task

Cli = Callable[..., int]
WriteConfig = Callable[..., Path]

SOURCE = """\
from pathlib import Path

from unirs import Image, PromptTemplate, Sample, Task, TaskSplit, Turn
from unirs.metrics import VqaAccuracy


def build(root: Path) -> Task:
    def samples(split: str) -> TaskSplit:
        lines = (root / f"{split}.tsv").read_text().splitlines()
        rows = [line.split("\\t") for line in lines]
        return TaskSplit(
            [Sample(name, Image(root / name), (Turn(name, (a,), {"question": q}),)) for name, q, a in rows]
        )

    return Task(
        modality="image",
        load_split=samples,
        prompt=PromptTemplate("vqa", "{question}"),
        metric=VqaAccuracy(),
        required_paths=(root,),
        download_hint="…",
    )
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("strangers_data")
    colours = {"red.png": (200, 0, 0), "green.png": (0, 200, 0)}
    for name, colour in colours.items():
        PIL.Image.new("RGB", (64, 64), colour).save(root / name)
    for split in ("train", "val", "test"):
        (root / f"{split}.tsv").write_text("".join(f"{name}\tWhich colour?\t{name[:-4]}\n" for name in colours))
    return root


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which a wheel with the plugin is installed."""
    folder = tmp_path_factory.mktemp("site")
    wheel = folder / "stranger-1.0-py3-none-any.whl"
    info = "stranger-1.0.dist-info"
    files = {
        "stranger_tasks/__init__.py": "",
        "stranger_tasks/colours.py": SOURCE,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\nRequires-Dist: unirs\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[unirs.tasks]\nstrangers_colours = stranger_tasks.colours:build\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive, (folder / "RECORD").open("w", newline="") as file:
        record = csv.writer(file)
        for name, text in files.items():
            archive.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.writerow([name, f"sha256={digest}", len(text.encode())])
        record.writerow([f"{info}/RECORD", "", ""])
        file.flush()
        archive.write(folder / "RECORD", f"{info}/RECORD")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_installed_package_is_listed(site: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [str(Path(sys.executable).with_name("unirs")), "tasks"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path).stdout
    (line,) = (line for line in listed.splitlines() if line.startswith("strangers_colours"))
    assert line.split() == [
        "strangers_colours",
        "image",
        "exact",
        "missing:",
        "data/strangers_colours",
        "stranger",
        "(stranger_tasks.colours:build)",
    ]
    assert any(line.startswith("era") for line in listed.splitlines())


def test_package_and_file_are_the_same_task(
    site: Path,
    data: Path,
    tmp_path: Path,
    cli: Cli,
    write_config: WriteConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(site)
    (tmp_path / "my_task.py").write_text(SOURCE)
    names = {"installed": "strangers_colours", "file": str(tmp_path / "my_task.py")}
    splits: tuple[SplitName, ...] = ("train", "val", "test")
    samples: dict[str, Any] = {}
    results: dict[str, Any] = {}
    for way, name in names.items():
        task: Task = plugins.create("unirs.tasks", {"name": name, "root": data})
        samples[way] = {split: list(task.load_split(split)) for split in splits}
        config = write_config(tmp_path / way, [{"name": name, "root": str(data), "label": "colours"}])
        assert cli("fit", "--config", config) == 0
        assert cli("test", "--config", config) == 0
        results[way] = json.loads((tmp_path / way / "run" / "test" / "metrics.json").read_text())
    assert len(samples["installed"]["test"]) == 2
    assert samples["installed"] == samples["file"]
    assert results["installed"] == results["file"]
    assert results["file"]["tasks"]["colours"]["accuracy"]["n"] == 2
