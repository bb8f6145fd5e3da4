"""Options of `unirs demo`."""

import sys
from collections.abc import Callable

import pytest

from unirs.utils.hosts import is_loopback


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("192.0.2.1", False), ("gpu1", False)]
)
def test_hosts_of_this_machine(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_other_hosts_need_a_token(
    cli: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNIRS_TOKEN", raising=False)
    assert cli("demo", "runs/none", "--host", "192.0.2.1") == 1
    assert "set a password with --token or UNIRS_TOKEN" in capsys.readouterr().err
    assert cli("demo", "runs/none", "--port", "0") == 1
    assert cli("demo", "runs/none", "--max-upload-mb", "0") == 1


def test_without_gradio(
    cli: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert cli("demo", "runs/none") == 1
    assert "pip install 'unirs[demo]'" in capsys.readouterr().err
