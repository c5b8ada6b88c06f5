"""Sizes, times and answers of the page with a network inside, in Chromium: `python -m benchmarks.page RUN...`

Prints the size of each run's page and three times in milliseconds: until it can be drawn on, of an answer to 28 x 28
pixels, and of a whole update, which finds the digits, answers and paints all layers. The last column is the share of
drawings, rows of 1 to 6 test images, in which the page reads the same digits as `predict`.
"""

import argparse
import base64
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import eq
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from benchmarks.digits import number
from benchmarks.timing import print_head, print_row
from mnist_lab.inference.digits import NoDigit, find_number
from mnist_lab.inference.recognise import ImageClassifier
from mnist_lab.runs.run import Run
from mnist_lab.training.build import make_data, make_model
from mnist_lab.web.page import find_browser, page_of

THREE = ((0.37, 0.22), (0.6, 0.22), (0.48, 0.44), (0.6, 0.56), (0.57, 0.76), (0.37, 0.74))  # A 3 in a unit square.
REPEATS = 30
PAD = (384, 256)  # Width and height of the drawing in pixels, as in pad.js.


def draw(page: Page, *points: tuple[float, float]) -> None:
    """Draw a stroke with the mouse through points of a unit square."""
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
    """Return the median time of a call in the page."""
    times: list[float] = page.evaluate(
        f"""() => Array.from({{length: {REPEATS}}}, () => {{
            const start = performance.now();
            {call};
            return performance.now() - start;
        }})"""
    )
    return statistics.median(times)


def drawings(images: np.ndarray, count: int) -> Iterator[Image.Image]:
    """Yield drawings of rows of 1 to 6 images, (N, 28, 28) bytes, dark on white like those of the page."""
    random = np.random.default_rng(0)
    for _ in range(count):
        row = number(images[random.integers(len(images), size=random.integers(1, 7))], random)
        factor = random.uniform(0.8, 1) * min(side / room for side, room in zip(PAD, row.size, strict=True))
        row = row.resize([round(factor * side) for side in row.size], Image.Resampling.BICUBIC)
        pad = Image.new("L", PAD, 255)
        place = (int(random.integers(room - side + 1)) for room, side in zip(PAD, row.size, strict=True))
        pad.paste(row, tuple(place))
        yield pad


def read_in_browser(page: Page, pictures: Sequence[Image.Image]) -> list[str]:
    """Return the digits that the page reads in pictures of PAD's size."""
    answers: list[str] = page.evaluate(
        """([pictures, width, height]) => pictures.map((picture) => {
            const grey = Uint8Array.from(atob(picture), (letter) => letter.charCodeAt(0));
            return findNumber(grey, {width, height}).map((digit) => bestClass(classify(digit.pixels))).join("");
        })""",
        [[base64.b64encode(picture.tobytes()).decode() for picture in pictures], *PAD],
    )
    return answers


def read_by_predict(classifier: ImageClassifier, pictures: Sequence[Image.Image]) -> list[str]:
    """Return the digits that `predict` reads in pictures."""
    answers = []
    for picture in pictures:
        try:
            pixels = np.stack([digit.pixels for digit in find_number(picture)])
            answers.append("".join(classifier.classes[best] for best in classifier.probabilities(pixels).argmax(1)))
        except NoDigit:
            answers.append("")
    return answers


def agreement(page: Page, run: Run, images: np.ndarray, count: int) -> float:
    """Return the share of drawings of images in which the page of a run reads the same digits as `predict`."""
    remaining, classifier, same = drawings(images, count), ImageClassifier(run), 0
    while pictures := list(islice(remaining, 100)):
        same += sum(map(eq, read_in_browser(page, pictures), read_by_predict(classifier, pictures)))
    return same / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+")
    parser.add_argument("--drawings", type=int, default=2000, metavar="COUNT", help="drawings to read (default: 2000)")
    options = parser.parse_args()
    runs = [Run.find(name) for name in options.runs]
    cfg = runs[0].config
    images = make_data(cfg, make_model(cfg)).raw_test_set()[0]
    times = ("opens in, ms", "answer, ms", "drawing to picture, ms")
    print_head("network", "parameters", "page, kB", *times, "same digits")
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
            sizes = f"{run.info['parameters']:,}", f"{path.stat().st_size / 1000:,.0f}"
            same = agreement(page, run, images, options.drawings)
            print_row(run.info["model"], *sizes, f"{opened:.0f}", f"{answer:.1f}", f"{update:.1f}", f"{same:.2%}")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
