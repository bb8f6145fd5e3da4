import base64
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from PIL import Image as Pillow

from unirs import UniRS


class Process:
    """A service in a process of its own, on a free port."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        command = [Path(sys.executable).with_name("unirs"), "serve", *arguments, "--port", "0", "--trust-remote-code"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=pipe, stderr=pipe, text=True, env=os.environ | environment
        )
        self.line = self._out.readline()
        assert self.line.startswith("Serving "), self.process.communicate()[1]
        self.url = self.line.split()[3].removesuffix("/v1;")

    @property
    def _out(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Exit code and remaining output."""
        self.process.send_signal(number)
        out, error = self.process.communicate(timeout=60)
        return self.process.returncode, out, error


@pytest.fixture(scope="session")
def service(joint_run: Path) -> Iterator[Process]:
    process = Process(joint_run, "--max-body-mb", 1, "--max-new-tokens", 64)
    yield process
    code, out, error = process.stop()
    # One line when it is ready, and no other.
    assert (code, out, error) == (143, "", "")


@pytest.fixture(scope="session")
def model(joint_run: Path) -> UniRS:
    return UniRS.from_pretrained(joint_run, device="cpu", trust_remote_code=True)


def png(colour: str, size: int = 64) -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (size, size), colour).save(file, "PNG")
    return file.getvalue()


def data_url(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
