"""Progress bars: on terminals only, without colours if `NO_COLOR` is set, and none in a dumb terminal."""

import os
import pty
import re
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

Cli = Callable[..., int]
Capture = pytest.CaptureFixture[str]

COLOUR = re.compile(r"\x1b\[[\d;]*m")

# Commands, and the description of their bars.
COMMANDS = {
    "score": ("score ANSWERS --as all", "scores"),
    "compare": ("compare RUN RUN --task era --resamples 20", "comparison"),
    "report": ("report RUN --out OUT --no-change-maps --samples 3", "thumbnails"),
    "synth": ("synth --out OUT --size 2 --tasks rsvqa_lr", "rsvqa_lr"),
    "convert": ("convert RUN OUT", "write"),
}
SLOW = {"report", "synth"}
EACH = [pytest.param(name, id=name, marks=[pytest.mark.slow] if name in SLOW else []) for name in COMMANDS]


@pytest.fixture
def arguments(name: str, tmp_path: Path, joint_run: Path) -> list[str]:
    """The words of the command `name`."""
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"id": "1", "answer": "yes", "ground_truth": "yes", "category": "presence"}\n')
    paths = {"ANSWERS": answers, "RUN": joint_run, "OUT": tmp_path / "out"}
    return [str(paths.get(word, word)) for word in COMMANDS[name][0].split()]


def errors_in_terminal(cli: Cli, arguments: list[str], monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    """What a command writes to a terminal as stderr."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm"} | environment).items():
        monkeypatch.setenv(name, value)
    reader, terminal = pty.openpty()
    text = bytearray()

    def read() -> None:
        # Not to the end of the file: multiprocessing's tracker of resources may keep the terminal as its stderr.
        while not text.endswith(b"\0"):
            text.extend(os.read(reader, 65536))

    thread = Thread(target=read, daemon=True)
    thread.start()
    with os.fdopen(terminal, "w", encoding="utf-8") as stderr, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        code = cli(*arguments)
        stderr.write("\0")
    thread.join()
    os.close(reader)
    assert code == 0, text.decode()
    return text.decode()


@pytest.mark.parametrize("name", EACH)
def test_bars_in_a_terminal(cli: Cli, arguments: list[str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = errors_in_terminal(cli, arguments, monkeypatch)
    assert COMMANDS[name][1] in shown
    assert "left:" in shown
    assert COLOUR.search(shown)


@pytest.mark.parametrize("name", EACH)
def test_bars_without_colours(cli: Cli, arguments: list[str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = errors_in_terminal(cli, arguments, monkeypatch, NO_COLOR="1")
    assert COMMANDS[name][1] in shown
    assert {code for code in COLOUR.findall(shown) if re.search(r"[34]\d", code)} == set()


@pytest.mark.parametrize("name", EACH)
def test_no_control_characters_in_a_dumb_terminal(
    cli: Cli, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\x1b" not in errors_in_terminal(cli, arguments, monkeypatch, TERM="dumb")


@pytest.mark.parametrize("name", EACH)
def test_no_bars_in_a_pipe(cli: Cli, arguments: list[str], capfd: Capture) -> None:
    assert cli(*arguments) == 0
    errors = capfd.readouterr().err
    assert "left:" not in errors
    assert "\x1b" not in errors
    assert "%|" not in errors  # tqdm's
