"""Sizes and times of the page with the network inside, in Chromium: `python -m benchmarks.page RUN...`

Prints a table in Markdown: the size of each run's page, the milliseconds until it can be drawn on, those of an answer
to 28 x 28 pixels, and those of a whole update: the drawing looked at, the answer, and all layers painted.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from mnist_lab.runs.run import Run
from mnist_lab.web.browser import find_browser
from mnist_lab.web.page import page_of

THREE = ((0.37, 0.22), (0.6, 0.22), (0.48, 0.44), (0.6, 0.56), (0.57, 0.76), (0.37, 0.74))  # a 3, from 0 to 1
REPEATS = 30


def draw(page: Page, *points: tuple[float, float]) -> None:
    """Draw a stroke with the mouse, through points from 0 to 1."""
    box = page.locator("#pad").bounding_box()
    assert box is not None
    first, *others = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*first)
    page.mouse.down()
    for place in others:
        page.mouse.move(*place, steps=8)
    page.mouse.up()
    page.wait_for_timeout(100)


def milliseconds(page: Page, call: str) -> float:
    """The median time of a call in the page."""
    times: list[float] = page.evaluate(
        f"""() => Array.from({{length: {REPEATS}}}, () => {{
            const start = performance.now();
            {call};
            return performance.now() - start;
        }})"""
    )
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+")
    runs = [Run.find(name) for name in parser.parse_args().runs]
    print("| network | parameters | page, kB | opens in, ms | answer, ms | drawing to picture, ms |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "page.html"
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        for run in runs:
            path.write_text(page_of(run))
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            start = time.perf_counter()
            page.goto(path.as_uri())
            opened = 1000 * (time.perf_counter() - start)
            draw(page, *THREE)
            answer, update = milliseconds(page, "classify(digits[0].pixels)"), milliseconds(page, "update()")
            size, parameters = path.stat().st_size / 1000, run.info["parameters"]
            print(
                f"| {run.info['model']} | {parameters:,} | {size:,.0f} | {opened:.0f} | {answer:.1f} | {update:.1f} |",
                flush=True,
            )
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
