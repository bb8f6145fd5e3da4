"""The page of `unirs demo` in a browser: uploads, examples, answers, errors, accessibility, and no other host."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

# A call of a Gradio function that the frontend makes, with a file in place of the upload.
_CALL = "/gradio_api/queue/join"


@pytest.fixture(scope="module")
def demo(learnt_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a demo of a model that knows colours; it ends by Ctrl-C without files left."""
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = tmp_path_factory.mktemp("temporary")
    program = str(Path(sys.executable).with_name("unirs"))
    command = [program, "demo", str(learnt_run), "--port", str(port), "--max-upload-mb", "1", "--trust-remote-code"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert f"http://127.0.0.1:{port}" in line, process.communicate()[1]
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "unirs: interrupted" in errors
    assert list(temporary.iterdir()) == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Any, demo: str) -> Iterator[Any]:  # noqa: ANN401
    """The open page; fails if it logs an error or requests another host."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=request.param)
    opened.set_default_timeout(60_000)
    problems: list[str] = []
    opened.on("console", lambda message: problems.extend([message.text] * (message.type == "error")))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    local = (demo, "data:", "blob:")
    opened.on("request", lambda sent: problems.extend([sent.url] * (not sent.url.startswith(local))))
    opened.goto(demo)
    opened.get_by_role("button", name="Ask").wait_for()
    yield opened
    opened.close()
    assert problems == []


def choose(page: Any, modality: str, *fields: str) -> None:  # noqa: ANN401
    page.get_by_role("radio", name=modality).check()
    for field in fields:
        page.get_by_label(field, exact=True).or_(page.get_by_text(field, exact=True)).first.wait_for()


def upload(page: Any, *files: Path) -> None:  # noqa: ANN401
    """Uploads one file after the other to the shown fields."""
    for file in files:
        page.locator("input[type=file]").first.set_input_files(file)
        page.get_by_text(re.compile(re.escape(file.stem))).first.wait_for()


def violations(page: Any) -> list[str]:  # noqa: ANN401
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


def test_answer_about_an_uploaded_pair(page: Any, colours: Path) -> None:  # noqa: ANN401
    choose(page, "Pair", "Before", "After")
    upload(page, colours / "red.png", colours / "green.png")
    page.locator("#view img").first.wait_for()
    page.get_by_label("Question").fill("What happens?")
    page.get_by_role("button", name="Ask").focus()
    page.keyboard.press("Enter")
    page.locator("#view .map").wait_for()
    assert page.locator("#answer textarea").input_value() == "from red to green"
    page.get_by_label("show the map of change").uncheck()
    assert not page.locator("#view .map").is_visible()
    slider = page.locator("#view .slider")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert "99%" in page.locator("#view .over").evaluate("one => one.style.clipPath")
    assert violations(page) == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_example_with_choices(page: Any) -> None:  # noqa: ANN401
    page.locator(".example:visible").first.click()
    page.locator("#view img").first.wait_for()
    reference = page.get_by_label("Reference of the example").input_value()
    page.get_by_label("Choices", exact=True).fill(f"{reference}\nsomething")
    page.get_by_role("button", name="Ask").click()
    page.get_by_text(f"{reference} (").first.wait_for()
    assert page.locator("#answer textarea").input_value() == reference
    assert violations(page) == []


def test_bad_uploads_have_a_message_and_the_page_goes_on(page: Any, tmp_path: Path, colours: Path) -> None:  # noqa: ANN401
    (tmp_path / "text.png").write_text("this is text")
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("alert").get_by_text("Upload an input, or choose an example.").wait_for()
    upload(page, tmp_path / "text.png")
    alert = page.get_by_role("alert").get_by_text("text.png does not decode")
    alert.wait_for()
    assert str(tmp_path) not in alert.inner_text()
    assert violations(page) == []
    page.get_by_label("Clear").or_(page.get_by_label("Remove this file")).first.click()
    upload(page, colours / "blue.png")
    page.locator("#view img").first.wait_for()
    assert page.get_by_role("alert").count() == 0


def test_only_uploaded_files_are_read(demo: str, colours: Path) -> None:
    httpx = pytest.importorskip("httpx")
    with httpx.Client(base_url=demo, timeout=60) as client:
        config = client.get("/config").json()
        types = {one["id"]: one["type"] for one in config["components"]}
        (call, *_) = (one for one in config["dependencies"] if "file" in [types[name] for name in one["inputs"]])

        def status(path: str) -> str:
            files = [{"path": path, "meta": {"_type": "gradio.FileData"}}, ""]
            body = {"data": files, "fn_index": call["id"], "session_hash": path[-9:]}
            joined = client.post(_CALL, json=body)
            if joined.status_code != 200:
                return str(joined.status_code)
            with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": path[-9:]}) as events:
                return str(next(line for line in events.iter_lines() if "process_completed" in line))

        name = colours / "red.png"
        assert '"success":false' in status(str(name))
        assert status("http://192.0.2.1/a.png") == "400"
        sent = client.post("/gradio_api/upload", files={"files": ("../../red.png", name.read_bytes())}).json()[0]
        assert "unirs-demo-" in sent
        assert "data:image/webp" in status(sent)
        for path in (f"/gradio_api/file={name}", "/gradio_api/file=/etc/passwd"):
            assert client.get(path).status_code == 403
        large = client.post("/gradio_api/upload", files={"files": ("a.png", b"0" * 2_000_000)})
        assert large.status_code == 413
        assert client.get("/", headers={"host": "other.example"}).status_code == 400
