"""Takes the pictures of docs/demo.md and docs/results.md in Chromium, from a run such as runs/quickstart.

`python benchmarks/screenshots.py runs/quickstart` needs the dependency group `browser`.
"""

import argparse
import io
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parents[1] / "docs"
PORT = 7869


def save(page: Any, path: Path) -> None:  # noqa: ANN401 - playwright
    """Writes what the window shows."""
    image = PIL.Image.open(io.BytesIO(page.screenshot()))
    image.convert("RGB").save(path, format="WEBP", quality=82, method=6)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def demo(browser: Any) -> None:  # noqa: ANN401
    """An answer about an example of a pair, with its map of change."""
    page = browser.new_page(viewport={"width": 1280, "height": 880})
    page.set_default_timeout(60_000)
    page.goto(f"http://127.0.0.1:{PORT}")
    page.get_by_role("radio", name="Pair").check()
    page.get_by_text("Before", exact=True).first.wait_for()
    page.locator(".example:visible").first.click()
    page.locator("#view img").first.wait_for()
    page.get_by_role("button", name="Ask").click()
    page.locator("#view .map").wait_for()
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)
    save(page, DOCS / "demo.webp")


def report(browser: Any, path: Path) -> None:  # noqa: ANN401
    """Pairs in the gallery of a report."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(path.resolve().as_uri())
    page.get_by_label("task").select_option("levir_cc")
    page.get_by_label("choice").select_option("random")
    page.get_by_label("show maps of change").check()
    page.evaluate("document.querySelector('#samples').scrollIntoView()")
    page.wait_for_timeout(1000)
    save(page, DOCS / "report.webp")


def main() -> None:
    """Starts the demo and a browser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--report", type=Path, help="default: that of the run's test")
    options = parser.parse_args()
    command = [str(Path(sys.executable).with_name("unirs")), "demo", str(options.run), "--port", str(PORT)]
    with sync_playwright() as playwright, subprocess.Popen(command, stdout=subprocess.PIPE) as server:  # noqa: S603
        next(iter(server.stdout or ()))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        demo(browser)
        report(browser, options.report or options.run / "test" / "report.html")
        browser.close()
        server.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
