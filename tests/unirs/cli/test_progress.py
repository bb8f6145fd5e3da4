import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

COLOUR = re.compile(r"\x1b\[[\d;]*m")


def errors_in_terminal(answers: Path, **environment: str) -> str:
    """What `unirs score` writes to a terminal as stderr."""
    reader, terminal = pty.openpty()
    code = "from unirs.cli.main import main; import sys; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "score", str(answers), "--as", "all"]
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        command, env=inherited | {"TERM": "xterm"} | environment, stdout=subprocess.DEVNULL, stderr=terminal
    )
    os.close(terminal)
    text = bytearray()
    try:
        while chunk := os.read(reader, 65536):
            text += chunk
    except OSError:  # how Linux reports that no process has the terminal any more
        pass
    os.close(reader)
    assert process.wait() == 0
    return text.decode()


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": "1", "answer": "yes", "ground_truth": "yes", "category": "presence"}\n')
    return path


def test_bars_in_a_terminal(answers: Path) -> None:
    shown = errors_in_terminal(answers)
    assert "scores" in shown
    assert "left:" in shown
    assert COLOUR.search(shown)


def test_bars_without_colours(answers: Path) -> None:
    shown = errors_in_terminal(answers, NO_COLOR="1")
    assert "scores" in shown
    assert {code for code in COLOUR.findall(shown) if re.search(r"[34]\d", code)} == set()


def test_no_control_characters_in_a_dumb_terminal(answers: Path) -> None:
    assert "\x1b" not in errors_in_terminal(answers, TERM="dumb")
