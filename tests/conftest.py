# Slow imports are in the fixtures that need them, since many tests do not.
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from unirs.tasks.media import Image, Media, Pair, Video
from unirs.tasks.series import Series

if TYPE_CHECKING:
    import numpy as np
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from unirs.models.unirs_model import UniRSModel


END = "</s>"

# The tensors of these tests are too small for threads to pay, and pytest-xdist runs one worker per core. Processes that
# tests start inherit the limit.
os.environ["OMP_NUM_THREADS"] = "1"
# `auto` is float32 on all processors: the tests compare values to the last digits.
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"
torch.set_num_threads(1)
# The same examples in each run; those of `make test-all` vary.
settings.register_profile("reproducible", derandomize=True)
settings.load_profile("reproducible")
# Background jobs of a shell ignore Ctrl-C; these tests, and processes that they start, do not.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def build_once(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[[str, Callable[[Path], object]], Path]:
    """Fills a named folder once for all workers of pytest-xdist; the other workers wait.

    A failed build is repeated, and fails, in each worker that needs it.
    """
    base = tmp_path_factory.getbasetemp()
    # The folders of all workers are in one folder of the run.
    root = base.parent if hasattr(request.config, "workerinput") else base

    def build(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = root / name, root / f".{name}.done"
        with FileLock(root / f".{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return build


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    """Token ids are ASCII codes; 128 is the end-of-sequence token."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    characters = Tokenizer(models.BPE(vocab={chr(code): code for code in range(128)}, merges=[]))
    return PreTrainedTokenizerFast(tokenizer_object=characters, eos_token=END, clean_up_tokenization_spaces=False)


@pytest.fixture
def make_model() -> Callable[..., UniRSModel]:
    """Makes models for `tokenizer`: frames of 64x64 pixels, four visual tokens per image."""
    from unirs_encoders.timm_encoder import build as build_timm

    from unirs.models.change_extractors import ChangeExtraction
    from unirs.models.llm import LLMConfig, build_llm
    from unirs.models.unirs_model import UniRSModel

    def make(*, change: bool = True, seed: int = 0) -> UniRSModel:
        torch.manual_seed(seed)
        options = {"channels": [16, 16, 32, 64]}
        encoder = build_timm("resnet18", pretrained=False, tune="full", layer=3, image_size=64, options=options)
        config = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
        llm, _ = build_llm(LLMConfig(config={**config, "num_hidden_layers": 2}, vocab_size=130))
        # Wide enough for answers to differ between prompts, as a trained model's do.
        llm.get_output_embeddings().weight.data.mul_(20)
        return UniRSModel(encoder, ChangeExtraction(encoder.grid, encoder.embed_dim) if change else None, llm)

    return make


@pytest.fixture
def media() -> dict[str, Media]:
    """One input of each modality; the files do not exist."""
    return {
        "image": Image(Path("a.png")),
        "pair": Pair(Path("before.png"), Path("after.png")),
        "video": Video(Path("a.mp4"), 3),
        "series": Series([Path("a.png"), Path("b.png"), Path("c.png")], ["2016-05", "2017-05", "2018-06"]),
    }


# Runs of the command line.

TINY_MODEL = {
    "encoder": {
        "name": "timm",
        "model": "resnet18",
        "pretrained": False,
        "tune": "full",
        "layer": 3,
        "image_size": 64,
        "options": {"channels": [16, 16, 32, 64]},
    },
    "change": {"name": "change_extraction"},
    "llm": {
        "config": {
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        "vocab_size": 320,
    },
    "optim": {"lr": 5.0e-3, "warmup_ratio": 0.1},
    "max_new_tokens": 12,
}

COLOURS = '''\
"""Images, pairs and videos of one colour each: small, quick to write, and quick to learn."""

import json
from pathlib import Path

from unirs import Image, Pair, PromptTemplate, Sample, Task, TaskSplit, Turn, Video
from unirs.metrics.vqa import VqaAccuracy


def build(root: Path, modality: str = "image") -> Task:
    def sample(id: str, files: list[str], turns: list[tuple[str, str]]) -> Sample:
        paths = [root / file for file in files]
        media = Video(paths[0], 2) if modality == "video" else {"image": Image, "pair": Pair}[modality](*paths)
        made = (Turn(f"{id}-{n}", (a,), {"question": q}, category=q) for n, (q, a) in enumerate(turns))
        return Sample(id, media, tuple(made))

    def samples(split: str) -> TaskSplit:
        return TaskSplit([sample(**row) for row in json.loads((root / f"{modality}.json").read_text())])

    return Task(
        modality=modality,
        load_split=samples,
        prompt=PromptTemplate(*(("vqa", "{question}") if modality == "image" else (modality, "What happens?"))),
        metric=VqaAccuracy(),
        required_paths=(root / f"{modality}.json",),
        download_hint="Run the test that writes it.",
    )
'''


@pytest.fixture(autouse=True)
def no_process_group() -> Iterator[None]:
    """Lightning leaves its process group to the end of the process: processes that fork from it would wait for it."""
    yield
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def cli() -> Callable[..., int]:
    """Calls the command line in this process and returns its exit code."""
    from lightning.fabric.utilities.warnings import PossibleUserWarning

    from unirs.cli.main import main

    # Reports have tests of their own, and take a second each.
    quick = {"test": ["--report", "false"], "validate": ["--report", "false"], "bench": ["--no-report"]}

    def call(*arguments: object, report: bool = False) -> int:
        chosen = report or "--report" in arguments or len(arguments) < 3
        added = [] if chosen else quick.get(str(arguments[0]), [])
        with warnings.catch_warnings(), patch.dict(os.environ):
            # Lightning's advice, and warnings from its own use of jsonargparse.
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            warnings.filterwarnings("ignore", r"\s*`*(instantiate_classes|By default only one)", DeprecationWarning)
            warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
            try:
                return main([*map(str, arguments), *added])
            except SystemExit as stop:
                return int(stop.code or 0)

    return call


@pytest.fixture
def tiny_model() -> dict[str, Any]:
    """The `model` section of a config that trains in seconds."""
    return deepcopy(TINY_MODEL)


@pytest.fixture(scope="session")
def write_config() -> Callable[..., Path]:
    """Writes the config of a tiny run, `<folder>/config-in.yaml`, whose results go to `<folder>/run`."""
    import yaml

    def write(folder: Path, tasks: list[dict[str, Any]], *, epochs: int = 1, **sections: dict[str, Any]) -> Path:
        config = {
            "seed_everything": 0,
            "model": TINY_MODEL | sections.get("model", {}),
            "data": {"tasks": tasks, "batch_size": 8} | sections.get("data", {}),
            "trainer": {
                "default_root_dir": str(folder / "run"),
                "max_epochs": epochs,
                "accelerator": "cpu",
                "enable_progress_bar": False,
            }
            | sections.get("trainer", {}),
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "config-in.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def synthetic(build_once: Callable[[str, Callable[[Path], object]], Path], cli: Callable[..., int]) -> Path:
    """A folder with synthetic RSVQA-LR, LEVIR-CC and ERA; read-only."""

    def write(root: Path) -> None:
        # ERA's validation split takes videos of classes with two or more: of 20 videos, some of 15 classes have two.
        assert cli("synth", "--out", root, "--size", 16, "--tasks", "rsvqa_lr", "levir_cc") == 0
        assert cli("synth", "--out", root, "--size", 20, "--tasks", "era") == 0

    return build_once("synthetic", write)


@pytest.fixture(scope="session")
def colours(build_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A folder with four inputs of each modality and `plugin.py`, a task that reads them; all splits are equal."""
    return build_once("colours", write_colours)


def write_colours(root: Path) -> None:
    import av
    import numpy as np
    import PIL.Image

    (root / "plugin.py").write_text(COLOURS)
    palette = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}
    for name, colour in palette.items():
        PIL.Image.new("RGB", (64, 64), colour).save(root / f"{name}.png")
        with av.open(str(root / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=8)
            stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 64, "yuv420p", 1
            for _ in range(4):
                frame = np.full((64, 64, 3), colour, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    names = list(palette)
    rows = {
        "image": [([f"{n}.png"], [("Which colour?", n), ("Is it red?", "yes" if n == "red" else "no")]) for n in names],
        "pair": [
            ([f"{n}.png", f"{after}.png"], [("", f"from {n} to {after}")])
            for n, after in zip(names, [*names[1:], names[0]], strict=True)
        ],
        "video": [([f"{n}.mp4"], [("", f"a {n} video")]) for n in names],
    }
    for modality, content in rows.items():
        listed = [{"id": f"{modality}{n}", "files": files, "turns": turns} for n, (files, turns) in enumerate(content)]
        (root / f"{modality}.json").write_text(json.dumps(listed))


@pytest.fixture(scope="session")
def colour_tasks(colours: Path) -> list[dict[str, Any]]:
    """Config entries of the tasks of `colours`, one per modality."""
    return [
        {"name": str(colours / "plugin.py"), "root": str(colours), "modality": modality, "label": modality}
        for modality in ("image", "pair", "video")
    ]


@pytest.fixture(scope="session")
def joint_run(
    build_once: Callable[[str, Callable[[Path], object]], Path],
    synthetic: Path,
    cli: Callable[..., int],
    write_config: Callable[..., Path],
) -> Path:
    """The folder of a tiny run on all three benchmarks, trained by the installed command and tested; read-only."""
    tasks = [
        {"name": "rsvqa_lr", "root": str(synthetic / "rsvqa_lr")},
        {"name": "levir_cc", "root": str(synthetic / "levir_cc"), "weight": 0.5},
        {"name": "era", "root": str(synthetic / "era"), "num_frames": 2},
    ]

    def train(folder: Path) -> None:
        config = write_config(folder, tasks, epochs=2)
        command = [str(Path(sys.executable).with_name("unirs")), "fit", "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        assert done.returncode == 0, done.stderr
        (folder / "stderr.txt").write_text(done.stderr)
        # Without Java: METEOR takes seconds to start, and has its own tests.
        with patch.dict(os.environ, {"PATH": ""}):
            assert cli("test", "--config", folder / "run" / "config.yaml", "--report", "true") == 0

    return build_once("joint", train) / "run"


@pytest.fixture
def write_geotiff(tmp_path: Path) -> Callable[..., Path]:
    """Writes a GeoTIFF from values [C, H, W]: 10 m pixels in UTM, unless `profile` has other options of rasterio."""
    import rasterio
    from affine import Affine
    from rasterio.errors import NotGeoreferencedWarning

    utm = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}

    def call(name: str, values: np.ndarray, **profile: object) -> Path:
        count, height, width = values.shape
        shape = {"count": count, "height": height, "width": width, "dtype": values.dtype}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(tmp_path / name, "w", driver="GTiff", **shape, **(utm | profile)) as file:
                file.write(values)
        return tmp_path / name

    return call


@pytest.fixture(scope="session")
def learnt_run(
    build_once: Callable[[str, Callable[[Path], object]], Path],
    colour_tasks: list[dict[str, Any]],
    cli: Callable[..., int],
    write_config: Callable[..., Path],
) -> Path:
    """The folder of a run that has memorised `colours` in 100 steps of one batch, and was tested; read-only."""

    def train(folder: Path) -> None:
        trainer = {"check_val_every_n_epoch": 100, "log_every_n_steps": 1}
        config = write_config(folder, colour_tasks, epochs=100, data={"batch_size": 12}, trainer=trainer)
        assert cli("fit", "--config", config) == 0
        assert cli("test", "--config", config) == 0

    return build_once("learnt", train) / "run"
