"""The code blocks of README, CONTRIBUTING and docs/ run page by page, in order; what cannot run is parsed.

A page runs in a folder with scaled-down configs, synthetic data in `data/`, tiny runs in `runs/`, and media. A block
with `title="FILE"` is written to that file, for the commands after it.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml
from packaging.requirements import Requirement
from sybil import Document, Example, Region
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from unirs.cli.main import TRAINER_COMMANDS, build_parser
from unirs.evaluation.ablation_suite import AblationSuite
from unirs.evaluation.suite import Suite
from unirs.utils.typed_yaml import read_yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
Cli = Callable[..., int]

# What a command names on a page, and what stands for it here.
SUBSTITUTES = {
    r"\.venv/bin/": "",  # the environment of the tests
    r"\bRUN\b": "runs/quickstart",  # a placeholder
    r"\bOTHER\b": "runs/elsewhere",  # a placeholder
    r"\bHOST\b": "localhost",  # a placeholder
}
# Commands that are parsed instead of run, and why.
PARSED = {
    r"^hf download": "needs a model hub",
    r"checkpoints/VILA|configs/unirs_3b": "needs published weights; test_importers.py converts tiny ones",
    r"checkpoints/llava|models/llava": "needs published weights; test_hf_families.py converts tiny ones",
    r"checkpoints/SmolVLM|models/smolvlm|configs/smolvlm": "needs published weights; see test_smolvlm_config.py",
    r"HuggingFaceTB/": "needs a model hub",
    r"runs/lora": "needs a run with adapters; test_api.py merges and saves them",
    r"^unirs ablate": "takes hours; test_ablation.py runs a tiny suite",
    r"^unirs report runs/bench$": "benchmark.md runs it after its benchmark",
    r"rsvqa_hr": "needs downloaded data",
    r"wandb\.yaml": "needs the package wandb; test_weights_and_biases runs it if it is installed",
    r"configs/cluster|^srun|^torchrun|^sbatch": "needs GPUs and machines",
    r"^lmms-eval": "needs its package in an environment of its own; test_lmms_eval.py runs it",
    r"^tensorboard|^unirs (demo|serve)|^curl": "a server without end; their tests start it",
    r"opencv_reader|video-reader decord": "needs opencv or decord; see test_video_readers.py",
}
# Modules whose blocks are compiled only, and why.
COMPILED = {
    "cv2": "opencv is installed for benchmarks/speed only",
    "openai": "needs a running server; the tests of unirs serve have one",
}
# Pages that take more than two seconds.
SLOW = {"benchmark.md", "cluster.md", "components.md", "encoders.md", "own_data.md", "quickstart.md", "rasters.md"}
SLOW |= {"results.md", "training.md"}
LANGUAGES = {"python", "sh", "bash", "yaml", "json"}


def lex(document: Document) -> list[Region]:
    return list(RawFencedCodeBlockLexer(re.compile(r"(?P<info>[^\n]*)\n"))(document))


class Page:
    """Runs the blocks of one page in the current folder."""

    def __init__(self, path: Path, cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self.cli, self.capsys = path, cli, capsys

    def run(self) -> None:
        for example in Document.parse(str(self.path), self._parse).examples():
            example.evaluate()

    def _parse(self, document: Document) -> list[Region]:
        regions = lex(document)
        for region in regions:
            region.parsed, region.evaluator = region.lexemes["source"], self._evaluate
        return regions

    def _evaluate(self, example: Example) -> None:
        language, title = parse_info(example.region.lexemes["info"])
        text = str(example.parsed)
        if title:
            Path(title).parent.mkdir(parents=True, exist_ok=True)
            Path(title).write_text(text, encoding="utf-8")
        if language == "python":
            self._python(example, title)
        elif language == "yaml":
            self._yaml(text)
        elif language == "json":
            for line in text.splitlines():
                json.loads(line)
        else:
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)
            for command in commands(text):
                self._command(command, parse=bool(title))

    def _python(self, example: Example, title: str) -> None:
        if title or any(f"import {name}" in example.parsed or f"from {name} " in example.parsed for name in COMPILED):
            compile(example.parsed, title or str(self.path), "exec")  # the commands after it run the file
        else:
            PythonEvaluator()(example)

    def _yaml(self, text: str) -> None:
        try:
            content = yaml.load(text, _UniqueKeys)  # noqa: S506 - a SafeLoader
        except yaml.constructor.ConstructorError:
            # Alternatives of one component, a line each.
            for line in text.splitlines():
                self._config({"model": yaml.safe_load(line)})
            return
        path = Path("block.yaml")
        path.write_text(text, encoding="utf-8")
        if "groups" in content:
            read_yaml(path, AblationSuite)
        elif "tasks" in content:
            read_yaml(path, Suite)
        else:
            self._config(content)

    def _config(self, content: dict[str, Any]) -> None:
        components = content.keys() & {"encoder", "change", "projector", "llm"}
        content = {"model": content} if components else content
        path = Path("block.yaml")
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        self._unirs(["fit", "--config", str(path)], parse=True)

    def _command(self, command: list[str], *, parse: bool = False) -> None:
        line = " ".join(command)
        for pattern, substitute in SUBSTITUTES.items():
            line = re.sub(pattern, substitute, line)
            command = [re.sub(pattern, substitute, word) for word in command]
        parse = parse or any(re.search(pattern, line) for pattern in PARSED)
        COMMANDS[command[0]](self, command[1:], parse)

    def _unirs(self, arguments: list[str], parse: bool = False) -> None:
        if not parse:
            assert self.cli(*arguments) == 0, (arguments, self.capsys.readouterr())
        elif arguments[0] in TRAINER_COMMANDS:
            assert self.cli(*arguments, "--print_config") == 0, (arguments, self.capsys.readouterr())
        else:
            build_parser(arguments).parse_args(arguments)

    def _make(self, arguments: list[str], _parse: bool) -> None:
        subprocess.run(["make", "-n", *arguments], check=True, capture_output=True, cwd=ROOT)

    def _pip(self, arguments: list[str], _parse: bool) -> None:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]
        assert arguments[0] == "install"
        for requirement in map(Requirement, arguments[1:]):
            assert requirement.name != "unirs" or requirement.extras <= extras.keys()

    def _python_file(self, arguments: list[str], parse: bool) -> None:
        subprocess.run([sys.executable, *arguments, *["--help"] * parse], check=True, capture_output=True)

    def _pytest(self, arguments: list[str], _parse: bool) -> None:
        subprocess.run([sys.executable, "-m", "pytest", "-q", *arguments], check=True, capture_output=True)

    def _srun(self, arguments: list[str], parse: bool) -> None:
        assert arguments[0] == "unirs"
        self._unirs(arguments[1:], parse)

    def _torchrun(self, arguments: list[str], parse: bool) -> None:
        from torch.distributed.run import get_args_parser

        options = get_args_parser().parse_args(arguments)
        assert (options.no_python, options.training_script) == (True, "unirs")
        self._unirs(options.training_script_args, parse)

    def _hf(self, arguments: list[str], _parse: bool) -> None:
        command = [str(Path(sys.executable).with_name("hf")), arguments[0], "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert all(word in done.stdout for word in arguments if word.startswith("--"))

    def _tensorboard(self, arguments: list[str], _parse: bool) -> None:
        from tensorboard import program  # type: ignore[import-untyped]

        program.TensorBoard().configure(argv=["tensorboard", *arguments])
        assert list(Path(arguments[1]).rglob("events.out.tfevents.*"))

    def _lmms_eval(self, arguments: list[str], _parse: bool) -> None:
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        assert options["--model"] == "unirs"
        exported = "".join(path.read_text(encoding="utf-8") for path in Path(options["--include_path"]).iterdir())
        assert options["--tasks"] in exported

    def _curl(self, arguments: list[str], _parse: bool) -> None:
        assert arguments[0].startswith("http://127.0.0.1:")


COMMANDS: dict[str, Callable[[Page, list[str], bool], None]] = {
    "unirs": Page._unirs,
    "make": Page._make,
    "pip": Page._pip,
    "python": Page._python_file,
    "pytest": Page._pytest,
    "srun": Page._srun,
    "torchrun": Page._torchrun,
    "hf": Page._hf,
    "tensorboard": Page._tensorboard,
    "curl": Page._curl,
    "lmms-eval": Page._lmms_eval,
}


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that occurs twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if len(keys) > len(set(keys)):
            raise yaml.constructor.ConstructorError(problem="a key occurs twice")
        return super().construct_mapping(node, deep)


def parse_info(info: str) -> tuple[str, str]:
    """Language and title of a block."""
    match = re.fullmatch(r'(\w*)(?: title="([^"]+)")?', info.strip())
    assert match, f"unknown block: {info}"
    return match[1], match[2] or ""


def commands(text: str) -> list[list[str]]:
    """The commands of a shell block, without comments and here-documents; continued lines are joined."""
    text = re.sub(r"<<(\w+)\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [words for line in text.replace("\\\n", " ").splitlines() if (words := shlex.split(line, comments=True))]


def blocks(path: Path) -> list[tuple[str, str, str]]:
    """Language, title and text of each block of a page."""
    document = Document(path.read_text(encoding="utf-8"), str(path))
    return [(*parse_info(region.lexemes["info"]), str(region.lexemes["source"])) for region in lex(document)]


def name(path: Path) -> str:
    return path.relative_to(ROOT if path.parent == ROOT else ROOT / "docs").as_posix()


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_block_has_a_rule(path: Path) -> None:
    found = blocks(path)
    assert path.read_text(encoding="utf-8").count("```") == 2 * len(found), "a fence is not closed"
    assert {language for language, _, _ in found} <= LANGUAGES
    for language, _, text in found:
        if language in ("sh", "bash"):
            assert {command[0].removeprefix(".venv/bin/") for command in commands(text)} <= COMMANDS.keys()


def test_every_exception_is_needed() -> None:
    lines = [
        " ".join(words) for path in PAGES for language, _, text in blocks(path) if language in ("sh", "bash")
        for words in commands(text)
    ]  # fmt: skip
    unused = [pattern for pattern in [*PARSED, *SUBSTITUTES] if not any(re.search(pattern, line) for line in lines)]
    assert unused == []
    assert {name(path) for path in PAGES} >= SLOW


@pytest.fixture
def world(tmp_path: Path, synthetic: Path, joint_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a page."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    shutil.copytree(ROOT / "benchmarks", "benchmarks")
    trained = yaml.safe_load((joint_run / "config.yaml").read_text(encoding="utf-8"))
    small = {key: trained[key] for key in ("model", "data", "trainer")} | {"seed_everything": 0}
    small["trainer"] |= {"default_root_dir": "runs/quickstart", "max_epochs": 1}
    Path("configs/quickstart.yaml").write_text(yaml.safe_dump(small))
    Path("data").mkdir()
    for folder in [path for path in synthetic.iterdir() if path.is_dir()]:
        Path("data", folder.name).symlink_to(folder)
    Path("data/quick").symlink_to(synthetic)
    for run in ("quickstart", "mine", "other", "A", "B"):
        shutil.copytree(joint_run, Path("runs", run))
    pair = [next((synthetic / "levir_cc" / "images" / "test" / time).iterdir()) for time in "AB"]
    for path, target in zip([pair[0], *pair], ["image.png", "before.png", "after.png"], strict=True):
        shutil.copy(path, target)
    shutil.copy(next((synthetic / "era" / "Test").rglob("*.mp4")), "video.mp4")
    return tmp_path


def write_scenes() -> None:
    """GeoTIFF files of four bands, and a folder of them in classes."""
    import rasterio
    from affine import Affine

    profile = {"driver": "GTiff", "count": 4, "height": 300, "width": 300, "dtype": "uint16", "crs": "EPSG:32633"}
    for seed, file in enumerate(["scene.tif", "before.tif", "after.tif", "S2_T33UVP_20240611.tif"]):
        values = np.random.default_rng(seed).integers(1, 3000, (4, 300, 300)).astype(np.uint16)
        with rasterio.open(file, "w", transform=Affine(10, 0, 500_000, 0, -10, 5_000_000), **profile) as out:
            out.write(values)


def write_class_folders() -> None:
    for colour, class_name in enumerate(("field", "forest", "river")):
        folder = Path("my_data", "images", class_name)
        folder.mkdir(parents=True)
        for number in range(10):
            PIL.Image.new("RGB", (64, 64), (80 * colour, 20 * number, 90)).save(folder / f"{number}.png")


def write_lines() -> None:
    """The JSON lines of the page on tasks for each split, with an image for each."""
    (lines,) = (text for language, _, text in blocks(ROOT / "docs" / "tasks.md") if language == "json")
    for shade, split in enumerate(("train", "val", "test")):
        rows = [json.loads(line) for line in lines.splitlines()]
        for row in rows:
            row["image"] = row["image"].replace("images", f"images_{split}")
            Path("my_data", row["image"]).parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.new("RGB", (32, 32), (50 * shade, 90, 90)).save(Path("my_data", row["image"]))
        Path("my_data", f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_answers() -> None:
    rows = [json.loads(line) for line in Path("runs/mine/test/predictions/rsvqa_lr.jsonl").read_text().splitlines()]
    answers = [{key: row[key] for key in ("id", "text", "references", "category")} for row in rows]
    answers[0]["category"] = "count"
    Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    Path("questions.jsonl").write_text("".join(json.dumps(row | {"text": None}) + "\n" for row in answers))


SETUP = {
    "own_data.md": write_class_folders,
    "rasters.md": write_scenes,
    "scoring.md": write_answers,
    "tasks.md": write_lines,
}


def check_template() -> None:
    """The plugin on the page on tasks is the one that `unirs tasks new` writes."""
    shown = [text for language, _, text in blocks(ROOT / "docs" / "tasks.md") if language == "python"]
    assert Path("my_task.py").read_text(encoding="utf-8") == shown[0]


CHECKS = {"tasks.md": check_template}


def page_marks(path: Path) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if name(path) in SLOW else []


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=page_marks(path), id=name(path)) for path in PAGES if blocks(path)]
)
@pytest.mark.usefixtures("world")
def test_blocks_run(path: Path, cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    SETUP.get(name(path), lambda: None)()
    with warnings.catch_warnings():
        # Runs are copied, and so are not where they were trained.
        warnings.filterwarnings("ignore", "The dirpath has changed")
        warnings.filterwarnings("ignore", "html5lib's sanitizer")  # TensorBoard's own use
        Page(path, cli, capsys).run()
    CHECKS.get(name(path), lambda: None)()


@pytest.mark.slow
@pytest.mark.usefixtures("world")
def test_weights_and_biases(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for _, title, text in blocks(ROOT / "docs" / "training.md"):
        if title == "wandb.yaml":
            Path(title).write_text(text, encoding="utf-8")
    root = ("--trainer.default_root_dir", "runs/my_run")
    assert cli("fit", "--config", "configs/quickstart.yaml", "--config", "wandb.yaml", *root) == 0
    assert list(Path("wandb").glob("offline-run-*/*.wandb"))
    assert list(Path("runs/my_run/logs").rglob("events.out.tfevents.*"))
