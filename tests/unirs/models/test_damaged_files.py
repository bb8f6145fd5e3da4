"""Damaged files of models: each ends in one error that names the file, or does not change the answer."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from unirs import UniRS, UniRSError

SEED = 0


def truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def flip(content: bytes, rng: random.Random) -> bytes:
    index = rng.randrange(len(content))
    return content[:index] + bytes([content[index] ^ (1 << rng.randrange(8))]) + content[index + 1 :]


def garble(content: bytes, rng: random.Random) -> bytes:
    index = rng.randrange(len(content))
    return content[:index] + rng.randbytes(16) + content[index + 16 :]


def empty(content: bytes, rng: random.Random) -> bytes:  # noqa: ARG001
    return b""


def swap_type(content: bytes, rng: random.Random) -> bytes:
    """A document with one value of another type or range; other files are replaced by a JSON list."""
    try:
        document: Any = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError):
        document = None
    if not isinstance(document, dict) or not document:
        return b"[1]"
    node: Any = document
    while True:
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.7:
            node = node[key]
        else:
            node[key] = rng.choice([None, -1, "x", [], {}, {"a": 1}, True, 0.5, "\0"])
            return json.dumps(document).encode()


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "truncate": truncate,
    "flip": flip,
    "garble": garble,
    "empty": empty,
    "swap_type": swap_type,
}


def damage(path: Path, rng: random.Random) -> str:
    """Damages a file in a random way; returns the way."""
    way = rng.choice([*MUTATIONS, "delete", "folder"])
    if way in MUTATIONS:
        path.write_bytes(MUTATIONS[way](path.read_bytes(), rng))
        return way
    path.unlink()
    if way == "folder":
        path.mkdir()
    return way


def answer(folder: Path, image: Path) -> str:
    model = UniRS.from_pretrained(folder, device="cpu", trust_remote_code=True)
    text: str = model.answer(image, "Which colour?")
    return text


def attempts(
    source: Path, scratch: Path, files: list[str], count: int, run: Callable[[Path], str], *, exact: bool = True
) -> list[str]:
    """Damages a copy `count` times; returns what is no error that names the file, and no correct answer.

    Without `exact`, an answer may be any: the damaged file is another valid one.
    """
    rng = random.Random(SEED)  # noqa: S311 - not for security
    expected = run(source)
    faults = []
    for number in range(count):
        copy = scratch / str(number)
        shutil.copytree(source, copy)
        name = files[number % len(files)]
        way = damage(copy / name, rng)
        try:
            found = run(copy)
        except UniRSError as error:
            message = str(error)
            if str(copy) not in message:
                faults.append(f"{number} {way} {name}: does not name the file: {message}")
            if len(message) > 2000:
                faults.append(f"{number} {way} {name}: {len(message)} characters")
        except Exception as error:  # noqa: BLE001 - listed as a fault
            faults.append(f"{number} {way} {name}: {type(error).__name__}: {error}")
        else:
            if exact and found != expected:
                faults.append(f"{number} {way} {name}: {found!r}, not {expected!r}")
        shutil.rmtree(copy)
    return faults


@pytest.fixture(scope="session")
def saved(build_once: Callable[[str, Callable[[Path], object]], Path], learnt_run: Path) -> Path:
    """The saved model of `learnt_run`; read-only."""
    return build_once(
        "saved",
        lambda folder: UniRS.from_pretrained(learnt_run, trust_remote_code=True).save_pretrained(folder / "model"),
    )


def test_saved_model(saved: Path, colours: Path, tmp_path: Path) -> None:
    files = sorted(path.name for path in (saved / "model").iterdir() if path.name != "README.md")
    assert {"config.json", "model.safetensors", "tokenizer.json", "checksums.json"} <= set(files)
    faults = attempts(saved / "model", tmp_path, files, 60, lambda folder: answer(folder, colours / "red.png"))
    assert faults == []


def test_saved_model_without_checksums(saved: Path, colours: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(saved / "model", source)
    (source / "checksums.json").unlink()
    files = sorted(path.name for path in source.iterdir() if path.suffix in (".json", ".jinja"))
    faults = attempts(source, tmp_path, files, 40, lambda folder: answer(folder, colours / "red.png"), exact=False)
    assert faults == []


def test_a_limit_of_length_that_is_no_number(saved: Path, colours: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(saved / "model", model)
    (model / "checksums.json").unlink()
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": []}))
    with pytest.raises(UniRSError, match=rf"{tmp_path}.*model_max_length.* is \[\], it must be a number"):
        answer(model, colours / "red.png")


def test_a_missing_limit_of_answers_names_the_config(learnt_run: Path, colours: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(learnt_run, run, ignore=shutil.ignore_patterns("logs", "test", "last.ckpt"))
    path = run / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content["model"]["max_new_tokens"] = None
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UniRSError, match=rf"{path}.*max_new_tokens"):
        answer(run, colours / "red.png")


def test_config_of_a_run(learnt_run: Path, colours: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(learnt_run, source, ignore=shutil.ignore_patterns("logs", "test", "last.ckpt"))
    faults = attempts(
        source, tmp_path, ["config.yaml"], 40, lambda folder: answer(folder, colours / "red.png"), exact=False
    )
    assert faults == []


def test_checkpoint_of_a_run(learnt_run: Path, colours: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(learnt_run, source, ignore=shutil.ignore_patterns("logs", "test", "last.ckpt"))
    files = ["checkpoints/best.ckpt"]
    assert attempts(source, tmp_path, files, 25, lambda folder: answer(folder, colours / "red.png")) == []


@pytest.mark.parametrize("command", ["test", "fit"])
def test_configs_on_the_command_line(
    command: str, learnt_run: Path, tmp_path: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(SEED)  # noqa: S311 - not for security
    # No weights exist here, so that each command ends after it has read the config.
    for number in range(15):
        path = tmp_path / f"{number}.yaml"
        shutil.copy(learnt_run / "config.yaml", path)
        way = damage(path, rng)
        code = cli(
            command, "--config", path, "--trainer.default_root_dir", tmp_path / "none", "--ckpt_path", "none.ckpt"
        )
        error = capsys.readouterr().err
        assert code == 1, (number, way)
        assert error.rstrip().rpartition("\n")[2].startswith("unirs: error: "), (number, way, error)
