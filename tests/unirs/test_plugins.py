import ast
import importlib
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import unirs
from unirs.errors import PluginError
from unirs.models.builder import ProjectorConfig
from unirs.models.change_extractors import ChangeExtraction
from unirs.plugins import Group, create, list_plugins, load, origin, short_name
from unirs.tasks.config import check_task_options
from unirs.tasks.task import Task

TASKS: Group = "unirs.tasks"
ENCODERS: Group = "unirs.encoders"

OUR_TASKS = [
    "cdvqa",
    "changechat",
    "crsvqa",
    "dior_rsvg",
    "earthvqa",
    "era",
    "fmow_series",
    "geochat_instruct",
    "jsonl",
    "levir_cc",
    "lrs_vqa",
    "nwpu_captions",
    "rsicd",
    "rsvqa_hr",
    "rsvqa_lr",
    "scene_folder",
    "sydney_captions",
    "ucm_captions",
    "vrsbench",
    "xbd",
]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to import from, where distributions can be installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def install(site: Path, distribution: str, module: str, name: str = "mine") -> None:
    (site / f"{module}.py").write_text(f"def build(width: int = 3) -> str:\n    return f'{distribution} {{width}}'\n")
    info = site / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENCODERS}]\n{name} = {module}:build\n")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_first_party_plugins() -> None:
    assert list(list_plugins("unirs.tasks")) == OUR_TASKS
    assert list(list_plugins("unirs.encoders")) == ["hf", "timm"]
    assert list(list_plugins("unirs.change_extractors")) == ["change_extraction", "concat", "difference"]
    assert list(list_plugins("unirs.projectors")) == ["downsample", "mlp", "pixel_shuffle", "pool"]
    assert list_plugins("unirs.vision_towers").keys() <= list_plugins("unirs.encoders").keys()
    assert origin(list_plugins("unirs.tasks")["era"]) == "unirs (unirs_tasks.era:build)"


@pytest.mark.parametrize("name", OUR_TASKS)
def test_tasks_build(name: str, tmp_path: Path) -> None:
    assert isinstance(create(TASKS, {"name": name, "root": tmp_path}), Task)


def test_framework_arguments_come_first() -> None:
    change = create("unirs.change_extractors", {"name": "change_extraction", "n_layers": 1, "heads": 2}, (2, 3), 4)
    assert isinstance(change, ChangeExtraction)
    assert change(torch.zeros(1, 6, 4), torch.zeros(1, 6, 4)).shape == (1, 6, 4)
    with pytest.raises(PluginError, match="no option 'dim'"):
        create("unirs.change_extractors", {"name": "change_extraction", "dim": 4}, (2, 3), 4)


def test_plugin_of_another_package(site: Path) -> None:
    install(site, "stranger", "stranger_encoder")
    assert list(list_plugins(ENCODERS)) == ["hf", "mine", "timm"]
    assert create(ENCODERS, {"name": "mine", "width": 4}) == "stranger 4"


def test_name_taken_twice(site: Path) -> None:
    install(site, "stranger_a", "encoder_a")
    install(site, "stranger_b", "encoder_b")
    with pytest.raises(PluginError, match=r"Two plugins.*named 'mine'") as caught:
        load(ENCODERS, "mine")
    assert "stranger_a (encoder_a:build)" in str(caught.value)
    assert "stranger_b (encoder_b:build)" in str(caught.value)
    # The remedy in the message.
    assert create(ENCODERS, {"name": "encoder_b:build"}) == "stranger_b 3"
    assert list(list_plugins(TASKS)) == OUR_TASKS


def test_dotted_path(site: Path) -> None:
    write(site / "dotted.py", "def make(a, b=2):\n    return a, b\n")
    assert create(ENCODERS, {"name": "dotted:make", "a": 1}) == (1, 2)
    with pytest.raises(PluginError, match=r"dotted has no function 'maik'.*Did you mean 'make'"):
        load(ENCODERS, "dotted:maik")
    with pytest.raises(PluginError, match=r"'absent_module:make' does not import: .*absent_module"):
        load(ENCODERS, "absent_module:make")


LOCAL = """\
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    count: ClassVar[int] = 0
    width: int

def build(width: int) -> Part:
    return Part(width=width)

def wide() -> Part:
    return Part(width=99)
"""


def test_local_file(tmp_path: Path) -> None:
    path = write(tmp_path / "plugin.py", LOCAL)
    part = create(ENCODERS, {"name": str(path), "width": 5})
    assert asdict(part) == {"width": 5}
    wide = create(ENCODERS, {"name": f"{path}:wide"})
    assert wide.width == 99
    # Imported once: else there would be two copies of a class, and `isinstance` would fail.
    assert type(wide) is type(part)


def test_local_files_of_equal_name_are_two_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "plugin.py", f"def build():\n    return '{folder}'\n")
    monkeypatch.chdir(tmp_path)
    assert [create(ENCODERS, {"name": f"{folder}/plugin.py"}) for folder in ("a", "b")] == ["a", "b"]


def test_local_file_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PluginError, match=f"folder/plugin.py does not exist.*{tmp_path}"):
        load(ENCODERS, "folder/plugin.py")


def test_local_file_without_build(tmp_path: Path) -> None:
    path = write(tmp_path / "plugin.py", "def built():\n    pass\nbuild = 3\n")
    with pytest.raises(PluginError, match=r"has no function 'build'.*Did you mean 'built'"):
        load(ENCODERS, str(path))


def test_module_that_fails_to_import(site: Path) -> None:
    path = write(site / "broken.py", "import absent_dependency\n")
    for name in ("broken:build", str(path)):
        with pytest.raises(PluginError, match=r"does not import: .*absent_dependency") as caught:
            load(ENCODERS, name)
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_module_that_raises(site: Path) -> None:
    path = write(site / "raising.py", "raise ZeroDivisionError('in the module')\n")
    for name in ("raising:build", str(path)):
        with pytest.raises(ZeroDivisionError, match="in the module"):
            load(ENCODERS, name)
    # A file that failed is read again once it is mended.
    write(path, "def build():\n    return 1\n")
    assert create(ENCODERS, {"name": str(path)}) == 1


@pytest.mark.parametrize(
    ("group", "name", "hint"),
    [(TASKS, "rsvqa-lr", "rsvqa_lr"), (ENCODERS, "tim", "timm"), (TASKS, "levircc", "levir_cc")],
)
def test_unknown_name(group: Group, name: str, hint: str) -> None:
    with pytest.raises(
        PluginError, match=rf"Unknown plugin '{name}' in group '{group}'\. Did you mean '{hint}'\? Known: "
    ):
        create(group, {"name": name})


@pytest.mark.parametrize("spec", [{}, {"name": None}, {"model": "resnet18"}])
def test_no_name(spec: dict[str, object]) -> None:
    with pytest.raises(PluginError, match=r"needs a name.*Known: hf, timm\."):
        create(ENCODERS, spec)


def test_unknown_option(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"Plugin 'rsvqa_lr' has no option 'protokol'.*Did you mean 'protocol'"):
        create(TASKS, {"name": "rsvqa_lr", "root": tmp_path, "protokol": "vlm"})


def test_options_of_every_task_are_suggested() -> None:
    with pytest.raises(PluginError, match=r"Task 'era' has no option 'weigt'\. Did you mean 'weight'\? Known: allow_"):
        check_task_options({"name": "era", "weigt": 3})


def test_projector_options_are_checked_with_the_config() -> None:
    with pytest.raises(PluginError, match=r"Plugin 'downsample' has no option 'width'"):
        ProjectorConfig(options={"width": 3})


def test_any_option(site: Path) -> None:
    write(site / "anything.py", "def build(**options):\n    return options\n")
    assert create(ENCODERS, {"name": "anything:build", "a": 1}) == {"a": 1}


def test_missing_option() -> None:
    with pytest.raises(PluginError, match=r"Plugin 'era': missing a required argument: 'root'.*frames"):
        create(TASKS, {"name": "era"})


@pytest.mark.parametrize("error", ["TypeError", "PluginError", "KeyError", "ImportError"])
def test_errors_inside_a_plugin_propagate(site: Path, error: str) -> None:
    path = write(
        site / "constructor.py",
        f"from unirs.errors import PluginError\ndef build(a=1):\n    raise {error}('build() got it wrong')\n",
    )
    with pytest.raises(Exception, match="build\\(\\) got it wrong") as caught:
        create(ENCODERS, {"name": str(path), "a": 2})
    assert type(caught.value).__name__ == error
    assert caught.value.__cause__ is None


LAZY = """
import sys
from pathlib import Path

def loaded(*names):
    return sorted(m for m in sys.modules if m.split('.')[0] in names or m.startswith('unirs_'))

import unirs
assert loaded('torch', 'transformers', 'numpy', 'PIL') == [], loaded('torch', 'transformers', 'numpy', 'PIL')
from unirs.plugins import Group, create, list_plugins
for group in ('unirs.tasks', 'unirs.encoders', 'unirs.change_extractors'):
    list_plugins(group)
assert loaded('torch') == [], loaded('torch')
for name in list_plugins('unirs.tasks'):
    create('unirs.tasks', {'name': name, 'root': Path('.')})
assert 'unirs_tasks.era' in sys.modules
assert [m for m in loaded('torch') if not m.startswith('unirs_tasks')] == [], loaded('torch')
"""


def test_nothing_is_imported_before_it_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


PACKAGES = {"unirs", "unirs.metrics", "unirs.models", "unirs.tasks"}
FACES = PACKAGES | {"unirs.errors", "unirs.interfaces", "unirs.ranges", "unirs.utils.progress"}
ROOT = Path(__file__).parents[2]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module))
    return names


def test_framework_imports_no_plugin() -> None:
    files = sorted(Path(unirs.__file__).parent.rglob("*.py"))
    imports = {path: imported(path) for path in files}
    assert "torch" in set().union(*imports.values())
    assert {path: names for path, names in imports.items() if any(name.startswith("unirs_") for name in names)} == {}


@pytest.mark.parametrize("folder", ["tasks/unirs_tasks", "encoders/unirs_encoders", "tests/tasks/short"])
def test_plugins_import_public_modules_only(folder: str) -> None:
    imports = {path: imported(path) for path in (ROOT / folder).rglob("*.py")}
    assert "unirs.errors" in set().union(*imports.values())
    private = {path: {n for n in names if n.partition(".")[0] == "unirs"} - FACES for path, names in imports.items()}
    assert {path: names for path, names in private.items() if names} == {}


@pytest.mark.parametrize("face", sorted(PACKAGES))
def test_public_names_exist(face: str) -> None:
    module = importlib.import_module(face)
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match=f"module '{face}' has no attribute 'absent'"):
        _ = module.absent


@pytest.mark.parametrize("name", ["mine", "mine.py", "tasks/mine.py", "tasks/mine.py:build", "some.mine:build"])
def test_the_short_name_has_no_folder_ending_or_function(name: str) -> None:
    assert short_name(name) == "mine"
