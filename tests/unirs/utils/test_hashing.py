import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import unirs
from unirs.errors import DataError, UniRSError
from unirs.training.manifest import write_manifest
from unirs.utils.hashing import fingerprint, hash_files, hash_tensors

Hash = Callable[[Mapping[str, torch.Tensor]], str]


def write(folder: Path, **changes: object) -> dict[str, Any]:
    options: dict[str, Any] = {
        "seed": 7,
        "tasks": {"era": {"data": "aa", "prompt": "bb"}},
        "weights": None,
        "decoding": {"num_beams": 1},
        "video_reader": "pyav 1",
        "command": ["unirs", "test"],
    }
    write_manifest(folder, **options | changes)
    document: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return document


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(folder)
    return folder


def commit(folder: Path) -> None:
    (folder / "file.txt").write_text("one")
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "file.txt"], [*identity, "commit", "-q", "-m", "m"]):
        subprocess.run(["git", *arguments], check=True, cwd=folder)


def test_manifest_content(tmp_path: Path) -> None:
    document = write(tmp_path / "run", weights="cc", decoding={"num_beams": 1, "device": torch.device("cpu")})
    assert document["seed"] == 7
    assert document["tasks"] == {"era": {"data": "aa", "prompt": "bb"}}
    assert document["weights"] == "cc"
    assert document["decoding"] == {"num_beams": 1, "device": "cpu"}
    assert document["command"] == ["unirs", "test"]
    assert document["versions"]["unirs"] == unirs.__version__
    assert document["versions"]["torch"] == metadata.version("torch")
    assert document["versions"]["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert {"lightning", "transformers", "timm", "torchmetrics", "numpy"} < set(document["versions"])
    assert document["platform"]


def test_manifest_is_independent_of_the_order_of_tasks(tmp_path: Path) -> None:
    tasks = {"b": {"prompt": "1", "data": "2"}, "a": {"data": "3", "prompt": "4"}}
    write(tmp_path / "one", tasks=tasks)
    write(tmp_path / "two", tasks=dict(reversed(tasks.items())))
    assert (tmp_path / "one/manifest.json").read_bytes() == (tmp_path / "two/manifest.json").read_bytes()


def test_argument_that_is_not_utf8(tmp_path: Path) -> None:
    assert write(tmp_path, command=["caf\udce9"])["command"] == ["caf\udce9"]


def test_interrupted_write_keeps_the_previous_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UniRSError, match="disk full"):
        write(tmp_path, seed=8)
    assert json.loads((tmp_path / "manifest.json").read_text())["seed"] == 7


def test_commit_is_null_without_a_checkout(tmp_path: Path, checkout: Path) -> None:
    assert checkout.is_dir()
    assert write(tmp_path)["git"] is None


def test_commit_is_null_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert write(tmp_path)["git"] is None


def test_commit_and_dirty_state_of_a_checkout(tmp_path: Path, checkout: Path) -> None:
    commit(checkout)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (checkout / "unknown.txt").write_text("not known to git")
    assert write(tmp_path)["git"] == {"commit": head, "dirty": False}
    (checkout / "file.txt").write_text("two")
    assert write(tmp_path)["git"] == {"commit": head, "dirty": True}


def test_manifest_imports_no_heavy_package(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from unirs.training.manifest import write_manifest\n"
        "write_manifest(pathlib.Path(sys.argv[1]), seed=1, tasks={}, weights=None, decoding={}, video_reader=None, "
        "command=[])\n"
        "print([name for name in ('torch', 'numpy', 'transformers') if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    root = Path(unirs.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]"


def dataset(root: Path) -> list[Path]:
    (root / "images/deep").mkdir(parents=True)
    (root / "questions.json").write_text("[1]")
    (root / "images/a.png").write_bytes(b"abc")
    (root / "images/deep/b.png").write_bytes(b"de")
    return [root / "questions.json", root / "images"]


def test_hash_is_independent_of_location_and_order(tmp_path: Path) -> None:
    one, two = dataset(tmp_path / "one"), dataset(tmp_path / "two")
    assert hash_files(one, tmp_path / "one") == hash_files(reversed(two), tmp_path / "two")


@pytest.mark.parametrize(
    ("name", "content", "changes"),
    [
        ("questions.json", "[2]", True),
        ("images/deep/b.png", "def", True),
        ("images/new.png", "", True),
        ("images/a.png", "xyz", False),
        ("unused.txt", "x", False),
    ],
)
def test_hash_covers_file_contents_and_folder_listings(tmp_path: Path, name: str, content: str, changes: bool) -> None:
    paths = dataset(tmp_path)
    before = hash_files(paths, tmp_path)
    (tmp_path / name).write_text(content)
    assert (hash_files(paths, tmp_path) != before) == changes


def test_hash_covers_names(tmp_path: Path) -> None:
    paths = dataset(tmp_path)
    before = hash_files(paths, tmp_path)
    (tmp_path / "images/a.png").rename(tmp_path / "images/c.png")
    assert hash_files(paths, tmp_path) != before


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json"):
        hash_files([tmp_path / "gone.json"], tmp_path)


def test_broken_link_in_a_folder(tmp_path: Path) -> None:
    paths = dataset(tmp_path)
    (tmp_path / "images/link.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"link\.png"):
        hash_files(paths, tmp_path)


def state() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3), "c": torch.ones(2).bfloat16()}


@pytest.mark.parametrize("hashed", [hash_tensors, fingerprint])
def test_tensor_hash_is_independent_of_order_and_layout(hashed: Hash) -> None:
    other = dict(reversed(state().items()))
    other["a"] = torch.nn.Parameter(other["a"].T.contiguous().T)
    assert hashed(other) == hashed(state())


@pytest.mark.parametrize("hashed", [hash_tensors, fingerprint])
@pytest.mark.parametrize(
    "change",
    [
        {"a": torch.arange(6.0).reshape(3, 2)},
        {"a": torch.arange(6.0, dtype=torch.float64).reshape(2, 3)},
        {"a": torch.arange(6.0).reshape(2, 3) + 1e-6},
        {"b": torch.tensor(4)},
        {"c": torch.ones(2).half()},
        {"d": torch.empty(0)},
    ],
)
def test_tensor_hash_changes_with_each_property(change: dict[str, torch.Tensor], hashed: Hash) -> None:
    assert hashed(state() | change) != hashed(state())


@pytest.mark.parametrize("size", [4096, 4097, 10_000, 1_000_003])
def test_fingerprint_samples_from_first_to_last_value(size: int) -> None:
    values = torch.arange(size)
    before = fingerprint({"a": values})
    assert fingerprint({"a": values.clone()}) == before
    assert fingerprint({"a": values[:-1]}) != before
    for index in (0, -1):
        changed = values.clone()
        changed[index] += 1
        assert fingerprint({"a": changed}) != before
    partly_changed = values.clone()
    partly_changed[size // 3 : size // 3 + size // 1000] += 1
    assert fingerprint({"a": partly_changed}) != before


def test_fingerprint_does_not_read_all_values() -> None:
    # 10 TB, were they there.
    assert len(fingerprint({"a": torch.zeros(1).expand(2_500_000_000_000)})) == 64


@given(st.dictionaries(st.text(max_size=5), st.lists(st.integers(0, 255), max_size=5), max_size=4))
def test_equal_hashes_mean_equal_tensors(values: dict[str, list[int]]) -> None:
    tensors = {name: torch.tensor(numbers, dtype=torch.uint8) for name, numbers in values.items()}
    renamed = {f"{name}x": tensor for name, tensor in tensors.items()}
    longer = {name: torch.cat([tensor, torch.zeros(1, dtype=torch.uint8)]) for name, tensor in tensors.items()}
    assert hash_tensors(dict(reversed(tensors.items()))) == hash_tensors(tensors)
    if tensors:
        assert len({hash_tensors(tensors), hash_tensors(renamed), hash_tensors(longer)}) == 3
