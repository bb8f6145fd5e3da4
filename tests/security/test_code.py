"""Live exploits: configs, checkpoints and weights that run code when they are opened. None runs."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
import yaml

from unirs import Image, UniRS
from unirs.errors import UniRSError

Error = Callable[..., str]
Edit = Callable[..., Path]


class Trap(Protocol):
    """Code in several forms, which has not run as long as a file is missing: see `conftest.py`."""

    plugin: Path
    command: str

    @property
    def ran(self) -> bool: ...

    def pickled(self) -> bytes: ...


def names_of(trap: Trap) -> list[str]:
    return ["os:system", str(trap.plugin), f"{trap.plugin}:build", "runpy:run_path"]


def options_of(name: str, trap: Trap) -> dict[str, Any]:
    return {"name": name} | ({"command": trap.command} if name == "os:system" else {})


@pytest.mark.parametrize("component", ["encoder", "change", "projector"])
def test_components_of_a_saved_model(saved: Edit, trap: Trap, component: str, error: Error) -> None:
    for name in names_of(trap):
        folder = saved(**{component: options_of(name, trap)})
        with pytest.raises(UniRSError, match=r"not an installed plugin and is not run.*trust_remote_code=True"):
            UniRS.from_pretrained(folder, device="cpu")
    assert "not an installed plugin" in error("convert", saved(**{component: {"name": str(trap.plugin)}}), "out")
    assert not trap.ran
    # The trap works.
    with pytest.raises(Exception, match=r".*"):
        UniRS.from_pretrained(saved(**{component: {"name": str(trap.plugin)}}), device="cpu", trust_remote_code=True)
    assert trap.ran


@pytest.mark.parametrize("command", ["predict", "bench"])
def test_commands_that_load_a_saved_model(
    saved: Edit, trap: Trap, command: str, error: Error, colours: Path, tmp_path: Path
) -> None:
    folder = saved(change={"name": str(trap.plugin)})
    suite = tmp_path / "suite.yaml"
    task = {"title": "t", "task": {"name": str(colours / "plugin.py"), "root": str(colours)}, "columns": {"a": "A"}}
    suite.write_text(yaml.safe_dump({"title": "s", "tasks": [task]}))
    arguments = {
        "predict": ("predict", folder, colours / "red.png", "--question", "?"),
        "bench": ("bench", "--suite", suite, "--model", folder, "--device", "cpu", "--out", tmp_path / "out"),
    }
    assert "not an installed plugin" in error(*arguments[command])
    assert not trap.ran


def test_classes_among_the_options_of_an_installed_plugin(saved: Edit, trap: Trap) -> None:
    # Parsers of typed options build such values.
    (trap.plugin.parent / "gadget_module.py").write_text(trap.plugin.read_text() + "class Gadget: pass\n")
    spec = {"class_path": "gadget_module.Gadget", "init_args": {}}
    for entries in ({"encoder": {"options": {"x": spec}}}, {"change": {"x": spec}}, {"llm": {"config": {"x": [spec]}}}):
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(trap.plugin.parent))
            with pytest.raises(UniRSError, match=r"the class 'gadget_module\.Gadget', which is not an installed"):
                UniRS.from_pretrained(saved(**entries), device="cpu")
    assert not trap.ran


@pytest.mark.parametrize(
    "options",
    [
        {"pretrained": True},
        {"pretrained": True, "options": {"pretrained_cfg_overlay": {"file": "FILE", "custom_load": False}}},
        {"options": {"checkpoint_path": "FILE"}},
        {"weights": "FILE"},
    ],
)
def test_weights_that_a_saved_encoder_names(saved: Edit, trap: Trap, options: dict[str, Any]) -> None:
    weights = trap.plugin.with_name("weights.pth")
    weights.write_bytes(trap.pickled())
    options = json.loads(json.dumps(options).replace("FILE", str(weights)))
    with pytest.raises(UniRSError, match=r"other weights|exclude each other"):
        UniRS.from_pretrained(saved(encoder=options), device="cpu")
    assert not trap.ran


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("reference", ["code.Class", "somebody/repository--code.Class"])
def test_auto_map(saved: Edit, trap: Trap, file: str, reference: str) -> None:
    folder = saved()
    (folder / "code.py").write_text(trap.plugin.read_text() + "class Class: pass\n")
    path = folder / file
    content = json.loads(path.read_text())
    entries = {"auto_map": {"AutoTokenizer": [reference, reference], "AutoModelForCausalLM": reference}}
    if file == "config.json":
        content["llm"]["config"] |= entries
    else:
        content |= {**entries, "tokenizer_class": "Class"}
    path.write_text(json.dumps(content))
    with suppress(UniRSError):  # some entries have no effect
        UniRS.from_pretrained(folder, device="cpu")
    assert not trap.ran


def test_pickles_instead_of_files_of_a_saved_model(saved: Edit, trap: Trap) -> None:
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        folder = saved()
        (folder / name).write_bytes(trap.pickled())
        with pytest.raises(UniRSError, match=name.split(".")[0]):
            UniRS.from_pretrained(folder, device="cpu")
    folder = saved()
    (folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "model.pt", "vocab.pkl", "tokenizer.pkl"):
        (folder / name).write_bytes(trap.pickled())
    with pytest.raises(UniRSError, match=r"no model\.safetensors"):
        UniRS.from_pretrained(folder, device="cpu")
    assert not trap.ran


def test_clue_paths_of_a_saved_model(saved: Edit, trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads((saved() / "config.json").read_text())["clue"].keys() == {"max_new_tokens", "batch_size"}
    cache = tmp_path / "anywhere" / "cache.sqlite"
    folder = saved(clue={"cache": str(cache), "source": str(trap.plugin.parent)})
    model = UniRS.from_pretrained(folder, device="cpu")
    assert model.config.clue.source is None
    monkeypatch.chdir(tmp_path)
    import PIL.Image

    PIL.Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    model.predict([Image(tmp_path / "a.png")], "?", details=False, max_new_tokens=1)
    assert not cache.parent.exists()
    assert (tmp_path / "runs" / "clues.sqlite").exists()


def test_a_model_of_foreign_clues_names_no_silent_default(saved: Edit, tmp_path: Path) -> None:
    model = UniRS.from_pretrained(saved(foreign_clues=True), device="cpu")
    with pytest.raises(UniRSError, match="clue_source"):
        model.predict([Image(tmp_path / "a.png")], "?", details=False)


# Run folders.


@pytest.fixture
def run(tmp_path: Path, colours: Path, tiny_model: dict[str, Any]) -> Callable[..., Path]:
    """A run folder with entries of its config replaced; its checkpoint is never reached."""

    def write(model: dict[str, Any], **data: Any) -> Path:  # noqa: ANN401
        folder = tmp_path / "run"
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints" / "best.ckpt").write_bytes(b"")
        task = {"name": "jsonl", "root": str(colours)}
        content = {"model": tiny_model | model, "data": {"tasks": [task], "max_length": 99} | data}
        (folder / "config.yaml").write_text(yaml.safe_dump(content))
        return folder

    return write


def test_config_of_a_run(run: Callable[..., Path], trap: Trap, tmp_path: Path) -> None:
    hf = tmp_path / "hf"
    hf.mkdir()
    (hf / "code.py").write_text(trap.plugin.read_text())
    auto = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model", "AutoTokenizer": ["code.T", "code.T"]}
    (hf / "config.json").write_text(json.dumps({"model_type": "unknown", "auto_map": auto}))
    spec = {"class_path": "runpy.run_path", "init_args": {"path_name": str(trap.plugin)}}
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"unirs": 1}))
    models: list[dict[str, Any]] = [
        {component: options_of(name, trap) if component != "projector" else {"name": name}}
        for component in ("encoder", "change", "projector")
        for name in names_of(trap)
    ]
    models += [
        {"encoder": spec},
        {"change": {"class_path": str(trap.plugin)}},
        {"encoder": {"name": "timm", "model": "resnet18", "options": {"x": spec}}},
        {"llm": {"source": str(hf), "trust_remote_code": True}},
        {"init": str(other), "encoder": None, "trust_remote_code": True},
    ]
    for model in models:
        with pytest.raises(UniRSError, match=r"not an installed plugin and is not run.*trust_remote_code=True"):
            UniRS.from_pretrained(run(model), device="cpu")
    assert not trap.ran


@pytest.mark.parametrize("command", ["predict", "convert", "bench", "compare"])
def test_tasks_and_metrics_of_a_run(
    run: Callable[..., Path], trap: Trap, command: str, error: Error, colours: Path, tmp_path: Path
) -> None:
    for name in (str(trap.plugin), "os:system", "jsonl"):
        task = {"name": name, "root": str(colours), "label": "jsonl", "metric": f"{trap.plugin}:build"}
        folder = run({"encoder": {"name": str(trap.plugin)}} if command != "compare" else {}, tasks=[task])
        stage = folder / "test"
        (stage / "predictions").mkdir(parents=True, exist_ok=True)
        document = {
            "stage": "test",
            "step": 1,
            "tasks": {"jsonl": {}},
            "baselines": {},
            "excluded": {},
            "evaluated": {},
        }
        (stage / "metrics.json").write_text(json.dumps(document))
        row = {"id": "1", "task": "jsonl", "media": ["a"], "category": "", "prompt": "", "clue": "", "text": "a"}
        (stage / "predictions" / "jsonl.jsonl").write_text(json.dumps(row | {"references": ["a"]}) + "\n")
        suite = Path(__file__).parents[2] / "benchmarks" / "suites" / "quick.yaml"
        arguments: dict[str, tuple[object, ...]] = {
            "predict": ("predict", folder, colours / "red.png"),
            "convert": ("convert", folder, tmp_path / "out"),
            "compare": ("compare", folder, folder),
            "bench": ("bench", "--suite", suite, "--model", folder, "--out", tmp_path / "b", "--device", "cpu"),
        }
        if command == "bench" and not Path("data").exists():
            from unirs.data.datamodule import UniRSDataModule
            from unirs.evaluation.benchmark import BenchOptions, load_evaluation

            data = UniRSDataModule([{"name": "jsonl", "root": str(colours)}])
            with pytest.raises(UniRSError, match="not an installed plugin"):
                load_evaluation(str(folder), data, BenchOptions())
        else:
            assert "not an installed plugin" in error(*arguments[command])
    assert not trap.ran


def test_trainer_section_of_a_run_is_not_read(run: Callable[..., Path], trap: Trap) -> None:
    folder = run({"encoder": {"name": "no_such_encoder"}, "optimizer": {"class_path": "runpy.run_path"}})
    content = yaml.safe_load((folder / "config.yaml").read_text())
    spec = {"class_path": "runpy.run_path", "init_args": {"path_name": str(trap.plugin)}}
    content["trainer"] = {"logger": spec, "callbacks": [spec], "plugins": [spec], "profiler": spec}
    content["model"] |= {"optimizer": None, "lr_scheduler": None}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UniRSError, match="no_such_encoder"):
        UniRS.from_pretrained(folder, device="cpu")
    assert not trap.ran


TAGS = (
    "!!python/object/apply:os.system [COMMAND]",
    "!!python/object/new:os.system [COMMAND]",
    "!!python/name:os.system",
)


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_tags(run: Callable[..., Path], trap: Trap, tag: str, error: Error, tmp_path: Path) -> None:
    text = f"x: {tag.replace('COMMAND', json.dumps(trap.command))}\n"
    folder = run({})
    (folder / "config.yaml").write_text(text)
    path = tmp_path / "file.yaml"
    path.write_text(text)
    for arguments in (
        ("predict", folder, path.with_suffix(".png")),
        ("fit", "--config", path),
        ("bench", "--suite", path, "--model", folder),
        ("ablate", "--suite", path, "--out", tmp_path / "out"),
    ):
        path.with_suffix(".png").touch()
        assert "python" in error(*arguments)
    assert not trap.ran


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_checkpoints(trap: Trap, tmp_path: Path) -> None:
    from unirs.models.checkpoint import read_checkpoint
    from unirs.training.module import UniRSModule

    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {}, "trap": trap}, path)
    with zipfile.ZipFile(path) as file:
        assert any(b"system" in file.read(name) for name in file.namelist())
    for content in (path.read_bytes(), trap.pickled()):
        path.write_bytes(content)
        with pytest.raises(UniRSError, match=r"a\.ckpt"):
            read_checkpoint(path)
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        UniRSModule.load_from_checkpoint(path, weights_only=False)
    # Hyperparameters that name code.
    hyper = {"encoder": {"name": str(trap.plugin)}, "_instantiator": "lightning.pytorch.cli.instantiate_module"}
    torch.save({"state_dict": {}, "hyper_parameters": hyper, "pytorch-lightning_version": "2.6.0"}, path)
    with pytest.raises(UniRSError, match="not an installed plugin"):
        UniRSModule.load_from_checkpoint(path)
    assert not trap.ran


def test_checkpoints_at_urls(
    error: Error, write_config: Callable[..., Path], colour_tasks: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = write_config(tmp_path, colour_tasks)
    for url in ("http://127.0.0.1:9/a.ckpt", "s3://bucket/a", "file:///a.ckpt"):
        assert "is a URL" in error("test", "--config", config, "--ckpt_path", url)


def test_other_programs_checkpoints(trap: Trap, tmp_path: Path, error: Error) -> None:
    llava = tmp_path / "llava"
    llava.mkdir()
    (llava / "code.py").write_text(trap.plugin.read_text() + "class C: pass\n")
    auto = {"AutoConfig": "code.C", "AutoProcessor": "code.C", "AutoModel": "code.C"}
    (llava / "config.json").write_text(json.dumps({"model_type": "llava", "auto_map": auto}))
    (llava / "processor_config.json").write_text(json.dumps({"auto_map": auto, "processor_class": "C"}))
    (llava / "pytorch_model.bin").write_bytes(trap.pickled())
    assert "does not load" in error("convert", llava, tmp_path / "out")
    assert not trap.ran


def test_encoder_sources(trap: Trap, tmp_path: Path) -> None:
    from unirs import create_encoder

    source = tmp_path / "encoder"
    source.mkdir()
    (source / "code.py").write_text(trap.plugin.read_text() + "class C: pass\n")
    for content in (
        {"model_type": "vit", "architectures": ["pipeline"]},
        {"model_type": "vit", "architectures": ["AutoModel"], "auto_map": {"AutoModel": "code.C"}},
        {"model_type": "mine", "auto_map": {"AutoConfig": "code.C"}},
        {"model_type": "vit", "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8},
    ):
        (source / "config.json").write_text(json.dumps(content))
        (source / "pytorch_model.bin").write_bytes(trap.pickled())
        with pytest.raises(UniRSError, match=r"does not load|no model of transformers|preprocessor_config"):
            create_encoder("hf", source=str(source))
    assert not trap.ran


def test_sources_in_packages(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    from unirs.utils.sources import resolve_source

    package = trap.plugin.parent / "some_package"
    package.mkdir()
    (package / "__init__.py").write_text(trap.plugin.read_text())
    monkeypatch.syspath_prepend(str(package.parent))
    for source in ("package:some_package.inner/a", "package:some_package/../plugin.py", "package:/etc/passwd"):
        with pytest.raises(UniRSError, match="package"):
            resolve_source(source)
    assert not trap.ran
