import re
import subprocess
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"unirs", "unirs_encoders", "unirs_tasks"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    pytest.importorskip("hatchling")
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return zipfile.ZipFile(path)


def test_wheel_holds_three_typed_packages(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel.namelist())
    modules = {name for name in wheel.namelist() if name.endswith(".py")}
    folders = {"unirs": ROOT, "unirs_tasks": ROOT / "tasks", "unirs_encoders": ROOT / "encoders"}
    written = {str(path.relative_to(root)) for name, root in folders.items() for path in (root / name).rglob("*.py")}
    assert modules == written


def test_wheel_metadata(wheel: zipfile.ZipFile) -> None:
    metadata, entries = (
        next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith(f".dist-info/{file}"))
        for file in ("METADATA", "entry_points.txt")
    )
    assert "License-Expression: Apache-2.0" in metadata
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())
    assert "unirs = unirs.cli.main:main" in entries
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"Version: {project['version']}\n" in metadata


def test_version_is_defined_once() -> None:
    import unirs

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == unirs.__version__


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_commands_of_a_page_exist(page: str, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    made = set(re.findall(r"\bmake ([a-z][\w-]*)(?=\s|`)", "\n".join(code(text))))
    assert made
    assert made <= targets
    assert cli("--help") == 0
    commands = set(re.findall(r"^    (\w+)(?: |$)", capsys.readouterr().out, flags=re.MULTILINE))
    assert set(re.findall(r"\bunirs ([a-z]+)", "\n".join(code(text)))) - {"import"} <= commands


def code(text: str) -> list[str]:
    """What a page shows as code: blocks and spans."""
    blocks = re.findall(r"```.*?```", text, flags=re.DOTALL)
    return blocks + re.findall(r"`[^`\n]+`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def tracked() -> list[Path]:
    try:
        done = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True, cwd=ROOT)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_links_between_pages_have_targets() -> None:
    broken = {
        (str(page.relative_to(ROOT)), link)
        for page in tracked()
        if page.suffix == ".md"
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if "://" not in link and not (page.parent / link).exists()
    }
    assert broken == set()


MACHINE = re.compile(r"(?<![\w.~/-])/(?:home|root|Users|mnt|tmp|work|scratch|opt|srv)/[\w.-]+")


def test_no_file_contains_a_path_of_a_machine() -> None:
    found = {}
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if paths := MACHINE.findall(text):
            found[str(path.relative_to(ROOT))] = paths
    assert found == {}
