"""The documentation site: it builds without warnings, and pages load nothing from other hosts."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


class _Resources(HTMLParser):
    """Collects what a browser loads with a page: scripts, style sheets, images and frames, but no links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.found += [url for key in ("src", "data") if (url := values.get(key))]
        if tag == "link" and values.get("rel") != "canonical":
            self.found.append(values.get("href") or "")


def test_pages_name_no_resource_of_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert {"index.html", "own_data.html", "tasks.html"} <= {page.relative_to(site).name for page in pages}
    for page in pages:
        resources = _Resources()
        resources.feed(page.read_text(encoding="utf-8"))
        assert resources.found
        assert [url for url in resources.found if "//" in url] == [], page


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(_QuietHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        pass


def test_search_finds_a_page_in_a_browser_without_network(address: str) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("needs Chromium")
    requested: list[str] = []
    problems: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        for name in ("architecture.html", "api/tasks.html", "index.html"):
            page.goto(address + name)
            assert page.locator("img, .doc-heading").count() > 0
        page.locator("[data-md-component=search-query]").press_sequentially("video reader")
        page.locator(".md-search-result__link").first.wait_for()
        assert "reader" in page.locator(".md-search-result__link").first.inner_text().lower()
        browser.close()
    assert problems == []
    assert {url for url in requested if not url.startswith((address, "data:"))} == set()
