"""The page of `unirs demo` in a browser: uploads, examples, answers, errors, accessibility, and no other host."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest

from unirs import PromptTemplate, Series, UniRS, Video
from unirs.models.pretrained import PromptConfig

pytestmark = pytest.mark.slow

# A call of a Gradio function that the frontend makes, with a file in place of the upload.
_CALL = "/gradio_api/queue/join"


_MAX_PIXELS = 250_000


@contextmanager
def started(model: Path, temporary: Path, *options: str) -> Iterator[str]:
    """The address of a demo on this machine; it ends by Ctrl-C without files left."""
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("unirs"))
    command = [program, "demo", str(model), "--port", str(port), "--max-upload-mb", "1", *options]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary), "UNIRS_MAX_PIXELS": str(_MAX_PIXELS)},
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert f":{port} in a browser" in line, process.communicate()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "unirs: interrupted" in errors
    assert list(temporary.iterdir()) == []


@pytest.fixture(scope="module")
def demo(learnt_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a demo of a model that knows colours."""
    with started(learnt_run, tmp_path_factory.mktemp("temporary"), "--trust-remote-code") as address:
        yield address


@pytest.fixture(scope="module")
def model(learnt_run: Path) -> UniRS:
    """The model of `demo` with one more task, of series, which it has not learnt."""
    learnt = UniRS.from_pretrained(learnt_run, trust_remote_code=True)
    prompts = {**learnt.config.prompts, "years": PromptConfig("series", PromptTemplate("years", "What changes?"))}
    return UniRS(learnt.model, learnt.tokenizer, replace(learnt.config, prompts=prompts))


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


@contextmanager
def opened(browser: Any, address: str, scheme: str = "light", expected: str = "^$") -> Iterator[Any]:  # noqa: ANN401
    """A page; fails if it requests another host, or logs an error that does not match `expected`."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(60_000)
    problems: list[str] = []
    page.on("console", lambda message: problems.extend([message.text] * (message.type == "error")))
    page.on("pageerror", lambda error: problems.append(str(error)))
    local = (address, "data:", "blob:")
    page.on("request", lambda sent: problems.extend([sent.url] * (not sent.url.startswith(local))))
    page.goto(address)
    yield page
    page.close()
    assert [one for one in problems if not re.search(expected, one)] == []


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Any, demo: str) -> Iterator[Any]:  # noqa: ANN401
    """The open page of `demo`."""
    with opened(browser, demo, request.param) as page:
        page.get_by_role("button", name="Ask").wait_for()
        yield page


def choose(page: Any, modality: str, *fields: str) -> None:  # noqa: ANN401
    page.get_by_role("radio", name=modality).check()
    for field in fields:
        page.get_by_label(field, exact=True).or_(page.get_by_text(field, exact=True)).first.wait_for()


def upload(page: Any, *files: Path) -> None:  # noqa: ANN401
    """Uploads one file after the other to the shown fields."""
    for file in files:
        page.locator("input[type=file]").first.set_input_files(file)
        page.get_by_text(re.compile(re.escape(file.stem))).first.wait_for()


def wait_for_answer(page: Any, text: str) -> None:  # noqa: ANN401
    page.wait_for_function("text => document.querySelector('#answer textarea').value == text", arg=text)


def log_in(page: Any, token: str) -> None:  # noqa: ANN401
    page.get_by_label("username").fill("me")
    page.get_by_label("password").fill(token)
    page.get_by_role("button", name="Login").click()


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


def test_film_strip_and_answer_of_a_video(page: Any, model: UniRS, tmp_path: Path) -> None:  # noqa: ANN401
    video = tmp_path / "blue.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 48, "yuv420p", 1
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), (30, 30, 220), dtype=np.uint8), format="rgb24")
        container.mux([*(packet for _ in range(12) for packet in stream.encode(frame)), *stream.encode()])
    choose(page, "Video")
    page.locator("input[type=file][accept*='.mp4']").wait_for(state="attached")
    upload(page, video)
    strip = page.locator("#view .strip img")
    strip.wait_for()
    width, height = strip.evaluate("one => [one.naturalWidth, one.naturalHeight]")
    assert width / height == pytest.approx(8 * 64 / 48, rel=0.1)
    page.get_by_role("button", name="Ask").click()
    wait_for_answer(page, model.answer(Video(video)))
    assert violations(page) == []


def test_large_images_have_a_message(browser: Any, demo: str, tmp_path: Path, colours: Path) -> None:  # noqa: ANN401
    PIL.Image.new("RGB", (600, 500)).save(tmp_path / "wide.png")
    PIL.Image.effect_noise((1200, 1200), 90).save(tmp_path / "heavy.png")
    assert (tmp_path / "heavy.png").stat().st_size > 1_000_000
    with opened(browser, demo) as page:
        upload(page, tmp_path / "wide.png")
        alert = page.get_by_role("alert").get_by_text("wide.png")
        alert.wait_for()
        assert "UNIRS_MAX_PIXELS" in alert.inner_text()
        assert str(tmp_path) not in alert.inner_text()
        page.get_by_label("Clear").or_(page.get_by_label("Remove this file")).first.click()
        page.locator("input[type=file]").first.set_input_files(tmp_path / "heavy.png")
        page.get_by_text(re.compile('exceed the maximum allowed size of .*: "heavy.png"')).wait_for()
        upload(page, colours / "blue.png")
        page.locator("#view img").first.wait_for()


def test_token_and_series(browser: Any, model: UniRS, tmp_path: Path, colours: Path) -> None:  # noqa: ANN401
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "temporary").mkdir()
    options = ("--host", "0.0.0.0", "--token", "secret", "--no-examples")  # noqa: S104
    files = [colours / "red.png", colours / "green.png", colours / "blue.png"]
    with (
        started(tmp_path / "model", tmp_path / "temporary", *options) as address,
        # Chromium logs the status of the refused login.
        opened(browser, address, expected="status of 400") as page,
    ):
        log_in(page, "guess")
        page.get_by_text("Incorrect Credentials").wait_for()
        assert page.get_by_role("button", name="Ask").count() == 0
        log_in(page, "secret")
        page.get_by_role("button", name="Ask").wait_for()
        choose(page, "Series", "Images in time order", "Dates")
        page.locator("input[type=file]").first.set_input_files(files)
        page.locator("#view .strip img").wait_for()
        page.get_by_label("Dates").fill("2016, 2017, 2018")
        page.get_by_label("Dates").press("Enter")
        page.locator("#view").get_by_text("2017").wait_for()
        page.get_by_role("button", name="Ask").click()
        answer = model.answer(Series(files, ["2016", "2017", "2018"]))
        wait_for_answer(page, answer)
        # Gradio's own field of several files.
        assert [one for one in violations(page) if not one.startswith("nested-interactive")] == []


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
