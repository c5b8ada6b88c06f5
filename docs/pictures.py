"""Make the README's pictures: `python docs/pictures.py`. It needs Chromium, and a minute and a half on two cores.

They show the terminal of `python -m mnist_lab` (SVG), TensorBoard, a report and the page to draw on (PNG).
"""

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO
from pathlib import Path

import pexpect
import pyte
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.style import Style
from rich.text import Text

from benchmarks.page import draw

PICTURES = Path(__file__).parent / "pictures"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
LIMIT = 200_000  # bytes
# The number 273: the strokes of its digits in a unit square.
NUMBER = [
    [(0.12, 0.3), (0.18, 0.2), (0.25, 0.22), (0.27, 0.36), (0.2, 0.55), (0.11, 0.76), (0.2, 0.75), (0.29, 0.77)],
    [(0.38, 0.22), (0.49, 0.2), (0.58, 0.22), (0.53, 0.45), (0.47, 0.78)],
    [(0.7, 0.24), (0.8, 0.2), (0.85, 0.32), (0.77, 0.46), (0.86, 0.58), (0.84, 0.73), (0.76, 0.78), (0.69, 0.74)],
]


def record_terminal() -> None:
    """Run the README's first command in a terminal of 80 columns, and draw its screen."""
    program = pexpect.spawn(sys.executable, ["-m", "mnist_lab"], dimensions=(40, 80), timeout=600, encoding="utf-8")
    program.expect(pexpect.EOF)
    screen = pyte.Screen(80, 40)
    pyte.Stream(screen).feed(program.before or "")
    console = Console(record=True, width=80, file=StringIO())
    for row in range(screen.cursor.y):
        cells = [screen.buffer[row][column] for column in range(80)]
        line = Text()
        for cell in cells:
            line.append(cell.data, Style(color=colour_name(cell.fg), bold=cell.bold, italic=cell.italics))
        console.print(line, no_wrap=True, end="\n")
    drawn = console.export_svg(title="python -m mnist_lab")
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)  # The fonts would be fetched from the web.
    drawn = drawn.replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")
    (PICTURES / "terminal.svg").write_text(drawn, encoding="utf-8")


def colour_name(name: str) -> str | None:
    """Return rich's name for one of pyte's colours."""
    if name == "default":
        return None
    is_hex = re.fullmatch(r"[0-9a-f]{6}", name)
    return f"#{name}" if is_hex else name.replace("brown", "yellow").replace("bright", "bright_")


@contextmanager
def served(*module: str, url: str) -> Iterator[None]:
    """Start a server, and run it from its first answer to the end of the block."""
    command = [sys.executable, "-m", *module]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(url, timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield
        finally:
            server.terminate()


def save_page(page: Page, name: str) -> None:
    """Save a page as a PNG of at most 256 colours and LIMIT bytes."""
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    path = PICTURES / f"{name}.png"
    picture.save(path, optimize=True)
    assert path.stat().st_size < LIMIT, f"{path}: {path.stat().st_size} bytes"


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        os.chdir(folder)
        record_terminal()
        lab = [sys.executable, "-m", "mnist_lab"]
        subprocess.run([*lab, "report", "latest", "--out", "report.html"], check=True)
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": 1000, "height": 1100})
        page.goto(Path("report.html").absolute().as_uri())
        page.evaluate("document.getElementById('configuration').parentNode.remove()")  # The picture shows charts only.
        save_page(page, "report")
        page.set_viewport_size({"width": 1200, "height": 800})
        url = "http://127.0.0.1:8031"
        with served("tensorboard.main", "--logdir", "runs", "--port", "8031", url=url):
            page.goto(f"{url}/#custom_scalars")
            page.wait_for_timeout(8000)
            save_page(page, "tensorboard")
        url = "http://127.0.0.1:8032"
        with served("mnist_lab", "draw", "latest", "--port", "8032", "--no-browser", url=url):
            page.set_viewport_size({"width": 1280, "height": 800})
            page.goto(url)
            for stroke in NUMBER:
                draw(page, *stroke)
            page.wait_for_timeout(1500)
            save_page(page, "draw")
        browser.close()


if __name__ == "__main__":
    main()
