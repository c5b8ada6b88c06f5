"""Make the pictures of README and docs, all or some: `python docs/pictures.py [NAME ...] [--work FOLDER]`.

It needs Chromium, the extras dev and docs, and MNIST. With --work, the runs stay in that folder, and further
calls take them instead of training again.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pexpect
import pyte
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.style import Style
from rich.text import Text

from benchmarks.digits import lit, number, ruled, tilted
from benchmarks.page import draw
from mnist_lab.config.compose import compose
from mnist_lab.data import Distortion
from mnist_lab.training.build import make_data, make_model
from mnist_lab.viz.style import COLOURS, styled

DOCS = Path(__file__).resolve().parent
PICTURES = DOCS / "pictures"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
LIMIT = 100_000  # bytes of a picture
FILM_LIMIT = 750_000  # bytes of an animation; the README has two, for light pages and dark ones
COLUMNS, ROWS = 80, 70
PAGE = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
SIX = "python -m mnist_lab -m model=lenet,mlp seed=0,1,2 sweep=six"
# The number 273: the strokes of its digits in a unit square.
NUMBER = [
    [(0.12, 0.3), (0.18, 0.2), (0.25, 0.22), (0.27, 0.36), (0.2, 0.55), (0.11, 0.76), (0.2, 0.75), (0.29, 0.77)],
    [(0.38, 0.22), (0.49, 0.2), (0.58, 0.22), (0.53, 0.45), (0.47, 0.78)],
    [(0.7, 0.24), (0.8, 0.2), (0.85, 0.32), (0.77, 0.46), (0.86, 0.58), (0.84, 0.73), (0.76, 0.78), (0.69, 0.74)],
]
# A six with a narrow loop, which the second epoch of a training may read as an eight.
SIX_BY_HAND = [(0.55, 0.2), (0.42, 0.4), (0.42, 0.65), (0.5, 0.78), (0.6, 0.65), (0.58, 0.4), (0.44, 0.5)]


def enter(work: Path, name: str) -> None:
    """Make a folder for the runs of some pictures, and change into it."""
    (work / name).mkdir(parents=True, exist_ok=True)
    os.chdir(work / name)


def lab(command: str) -> None:
    """Run a command that no picture shows."""
    words = shlex.split(command)
    subprocess.run(
        [sys.executable, *words[1:]], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "80"}
    )


def spawn(command: str) -> pexpect.spawn:
    """Start a command in a terminal."""
    words = shlex.split(command)
    return pexpect.spawn(sys.executable, words[1:], dimensions=(ROWS, COLUMNS), timeout=600, encoding="utf-8")


def show(name: str, *commands: str, interrupt_at: str = "") -> None:
    """Run commands in a terminal of 80 columns, and draw its screen; Ctrl-C ends the first at a text that it prints."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    for command in commands:
        lines = textwrap.wrap(f"$ {command}", COLUMNS - 2, subsequent_indent="    ", break_on_hyphens=False)
        stream.feed(" \\\r\n".join(lines).replace("$", "\x1b[92m$\x1b[39m", 1) + "\r\n")
        program = spawn(command)
        if interrupt_at:
            program.expect(interrupt_at)
            stream.feed(program.before + program.after)
            program.sendintr()
            interrupt_at = ""
        program.expect(pexpect.EOF)
        stream.feed(program.before)
    draw_screen(name, screen, screen.cursor.y + (screen.cursor.x > 0))


def draw_screen(name: str, screen: pyte.Screen, rows: int) -> None:
    """Draw the first rows of a terminal's screen as SVG."""
    console = Console(record=True, width=COLUMNS, file=StringIO())
    for row in range(rows):
        cells = [screen.buffer[row][column] for column in range(COLUMNS)]
        line = Text()
        for look, group in groupby(cells, lambda cell: (cell.fg, cell.bold, cell.italics)):
            style = Style(color=colour_name(look[0]), bold=look[1], italic=look[2])
            line.append("".join(cell.data for cell in group), style)
        line.rstrip()
        console.print(line, no_wrap=True, end="\n")
    console.print()  # Else the last line's underscores are cut off.
    drawn = console.export_svg(title="mnist_lab", unique_id=name)
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)  # The fonts would be fetched from the web.
    drawn = drawn.replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")
    save(PICTURES / f"{name}.svg", drawn.encode())


def colour_name(name: str) -> str | None:
    """Return rich's name for one of pyte's colours."""
    if name == "default":
        return None
    is_hex = re.fullmatch(r"[0-9a-f]{6}", name)
    return f"#{name}" if is_hex else name.replace("brown", "yellow").replace("bright", "bright_")


def save(path: Path, content: bytes, limit: int = LIMIT) -> None:
    """Save a picture unless it is too large."""
    assert len(content) <= limit, f"{path}: {len(content):,} bytes"
    path.write_bytes(content)
    print(f"{path.relative_to(DOCS.parent)}: {len(content):,} bytes", flush=True)


def save_png(name: str, picture: Image.Image, width: int = 1200, colours: int = 256) -> None:
    """Save a picture as a PNG of at most this width and number of colours."""
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    file = BytesIO()
    picture.convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    save(PICTURES / f"{name}.png", file.getvalue())


def save_page(page: Page, name: str, width: int = 0, height: int = 0) -> None:
    """Save what a page shows, or its upper left part; the site shows a picture at most 930 pixels wide."""
    picture = Image.open(BytesIO(page.screenshot()))
    save_png(name, picture.crop((0, 0, width or picture.width, height or picture.height)), width=2000)


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


class Studio:
    """A folder for the runs that the pictures show, and a browser for their pages; a public method makes a picture."""

    def __init__(self, work: Path, browser: Browser) -> None:
        self.work, self.browser = work, browser

    @contextmanager
    def _page(self, width: int, height: int, **settings: object) -> Iterator[Page]:
        page = self.browser.new_page(viewport={"width": width, "height": height}, **settings)
        yield page
        page.close()

    def _photograph(self, name: str, path: str, height: int = 800, hidden: str = "") -> None:
        """Save a picture of an HTML file, without some of its elements."""
        with self._page(1000, height) as page:
            page.goto(Path(path).absolute().as_uri())
            if hidden:
                page.add_style_tag(content=f"{hidden} {{ display: none }}")
            save_page(page, name)

    def _enter_lenet(self) -> None:
        """Enter the folder of a LeNet of five epochs."""
        enter(self.work, "lenet")
        if not Path("runs").exists():
            show("terminal", "python -m mnist_lab")

    def _enter_six(self) -> None:
        """Enter the folder of a sweep over two networks and three seeds; photograph its state while it runs."""
        enter(self.work, "six")
        if Path("runs").exists():
            return
        program = spawn(f"{SIX} trainer.max_epochs=3 hydra/launcher=processes hydra.launcher.n_jobs=2")
        while len(list(Path("runs/sweeps/six").glob("*/checkpoints/best.ckpt"))) < 3:
            time.sleep(0.5)
        show("clusters", "python -m mnist_lab status six")
        program.expect(pexpect.EOF)

    # Terminals.

    def terminal(self) -> None:
        self._enter_lenet()

    def train(self) -> None:
        enter(self.work, "train")
        show("train", "python -m mnist_lab model=mlp optimizer=adam optimizer.lr=0.001 trainer.max_epochs=3 seed=0")

    def resume(self) -> None:
        enter(self.work, "resume")
        command = "python -m mnist_lab model=mlp trainer.max_epochs=3"
        show("resume", command, "python -m mnist_lab resume=latest", interrupt_at=r"2/3 ")

    def search(self) -> None:
        enter(self.work, "halving")
        given = "optimizer.lr=0.003,0.01,0.03 optimizer.momentum=0,0.5,0.9 trainer.max_epochs=9 sweep=halved"
        show(
            "search", f"python -m mnist_lab -m hydra/sweeper=halving model=mlp {given} trainer.limit_train_batches=100"
        )

    def clusters(self) -> None:
        self._enter_six()

    def ensemble(self) -> None:
        self._enter_six()
        show("ensemble", "python -m mnist_lab ensemble runs/sweeps/six --top 3")

    def housekeeping(self) -> None:
        self._enter_six()
        Path("six.zip").unlink(missing_ok=True)
        ls = 'python -m mnist_lab ls --where "test/acc > 0.98 and model == lenet"'
        show("housekeeping", ls, "python -m mnist_lab archive runs/sweeps/six six.zip")

    def reproduce(self) -> None:
        save_png("reproduce", Image.open(DOCS.parent / "results" / "dropout_cnn.png"))

    def own_network(self) -> None:
        enter(self.work, "own")
        write_files_of_guide("own-network")
        show(
            "own-network", "python -m mnist_lab --config-dir my_conf model=my_net model.width=128 trainer.max_epochs=2"
        )

    def extend(self) -> None:
        enter(self.work, "own")
        write_files_of_guide("extend")
        given = "callbacks=stop_at callbacks.stop_at.accuracy=0.95 logger=json_lines scheduler=warm_up model=mlp"
        show("extend", f"python -m mnist_lab --config-dir my_conf {given}")

    # Figures.

    def learning_rate(self) -> None:
        enter(self.work, "lr")
        lab("python -m mnist_lab lr model=lenet --out lr.png")
        save_png("learning-rate", Image.open("lr.png"))

    def sweeps(self) -> None:
        enter(self.work, "rates")
        if not Path("runs").exists():
            given = "optimizer.lr=0.001,0.003,0.01,0.03 optimizer.momentum=0,0.5,0.9 sweep=rates model=mlp"
            lab(f"python -m mnist_lab -m {given} trainer.max_epochs=1 trainer.limit_train_batches=300")
        save_png("sweeps", Image.open("runs/sweeps/rates/heat_map.png"))

    def compare(self) -> None:
        self._enter_six()
        lab("python -m mnist_lab compare runs/sweeps/six --group seed --out curves.png")
        save_png("compare", Image.open("curves.png"))

    def robustness(self) -> None:
        self._enter_six()
        lenet, mlp = (next(Path("runs/sweeps/six").glob(f"model={model},seed=0*")) for model in ("lenet", "mlp"))
        lab(f"python -m mnist_lab robustness {lenet} {mlp} --only shift,rotation,noise --out robustness.png")
        save_png("robustness", Image.open("robustness.png"))

    def recipes(self) -> None:
        """Draw a digit as the augmentations change it, each eight times."""
        cfg = compose("model=mlp")
        data = make_data(cfg, make_model(cfg))
        image = torch.from_numpy(np.array(data.raw_test_set()[0][0])).float()[None, None] / 255
        amounts = {
            "affine": {},
            "elastic": {"shear": 7, "elastic": 1},
            "elastic, cutout=10": {"elastic": 1, "cutout": 10},
        }
        with styled:
            figure = Figure(figsize=(8, 3))
            grid = figure.subplots(len(amounts), 9)
            for row, (name, amount) in zip(grid, amounts.items(), strict=True):
                distort = Distortion(shift=2, degrees=10, scale=0.1, **amount)
                made = distort(image.repeat(8, 1, 1, 1), torch.Generator().manual_seed(1), 0.0)
                for axes, seen in zip(row, torch.cat([image, made]), strict=True):
                    axes.imshow(seen[0], cmap="gray_r", vmin=0, vmax=1)
                    axes.set(xticks=[], yticks=[])
                    axes.spines[:].set(visible=True, color=COLOURS["line"])
                row[0].set_ylabel(name.replace(", ", ",\n"), rotation=0, ha="right", va="center", color=COLOURS["ink"])
            figure.text(0.125, 0.96, "test digit")
            figure.text(0.215, 0.96, "as training would see it, each time anew")
            figure.get_layout_engine().set(rect=(0, 0, 1, 0.95))
            figure.savefig(file := BytesIO(), dpi=150)
        save_png("recipes", Image.open(file))

    # Pages.

    def report(self) -> None:
        self._enter_lenet()
        lab("python -m mnist_lab report latest --out report.html")
        self._photograph("report", "report.html", height=1100, hidden="section:has(#configuration)")

    def sweep_report(self) -> None:
        enter(self.work, "search")
        if not Path("runs").exists():
            lab(
                "python -m mnist_lab -m hydra/sweeper=optuna hydra.sweeper.n_trials=16 sweep=search model=mlp"
                " 'optimizer.lr=tag(log,interval(0.001,0.3))' 'optimizer.momentum=interval(0,0.95)'"
                " data.batch_size=32,64,128 trainer.max_epochs=2 trainer.limit_train_batches=200"
            )
        lab("python -m mnist_lab report runs/sweeps/search --out report.html")
        self._photograph("sweep-report", "report.html", height=1100)

    def tensorboard(self) -> None:
        self._enter_lenet()
        url = "http://127.0.0.1:8031"
        with served("tensorboard.main", "--logdir", "runs", "--port", "8031", url=url), self._page(1200, 720) as page:
            page.goto(f"{url}/#custom_scalars&_smoothingWeight=0")
            page.wait_for_timeout(8000)
            save_page(page, "tensorboard", 1020, 452)

    def trackers(self) -> None:
        enter(self.work, "trackers")
        if not Path("runs").exists():
            given = "model=mlp optimizer.lr=0.01,0.03,0.1 logger=mlflow sweep=tracked"
            lab(f"python -m mnist_lab -m {given} trainer.max_epochs=4 trainer.limit_train_batches=200")
        url = "http://127.0.0.1:8033"
        store = ("--backend-store-uri", "sqlite:///runs/mlflow.db", "--port", "8033", "--workers", "1")
        with served("mlflow", "ui", *store, url=url), self._page(1200, 720) as page:
            page.goto(f"{url}/#/experiments/1/runs?compareRunsMode=CHART&workflowType=machine_learning")
            page.get_by_role("button", name="Close").click()
            page.get_by_placeholder("Search metric charts").fill("^val/")
            page.wait_for_selector(".scatterlayer path")
            page.wait_for_timeout(3000)
            save_page(page, "trackers", 960, 690)

    def draw(self) -> None:
        self._enter_lenet()
        self._write_page()
        with self._page(1280, 800) as page:
            page.goto(Path("page.html").absolute().as_uri())
            for stroke in NUMBER:
                draw(page, *stroke)
            page.wait_for_timeout(500)
            save_page(page, "draw")

    def export(self) -> None:
        """Photograph the page with a network inside on two phones, a light one and a dark one."""
        self._enter_lenet()
        self._write_page()
        sheet = Image.new("RGB", (2 * 390 + 20, 786), "white")
        for i, scheme in enumerate(("light", "dark")):
            with self._page(390, 786, color_scheme=scheme) as page:
                page.goto(Path("page.html").absolute().as_uri())
                page.wait_for_timeout(500)
                sheet.paste(Image.open(BytesIO(page.screenshot())), (i * 410, 0))
        save_png("export", sheet)

    def film(self) -> None:
        """Film a digit that is drawn, the layers that it passes, and the slider over the epochs."""
        self._enter_lenet()
        self._write_page()
        for scheme in ("light", "dark"):
            with self._page(1280, 770, color_scheme=scheme, device_scale_factor=1.25) as page:
                page.goto(Path("page.html").absolute().as_uri())
                page.add_style_tag(content="#counts { display: none }")  # It follows only when the pen rests.
                frames = [(Image.open(BytesIO(page.screenshot())), wait) for wait in play(page)]
            file = BytesIO()
            images, waits = zip(*frames, strict=True)
            images[0].save(
                file, "WEBP", save_all=True, append_images=images[1:], duration=waits, loop=0, lossless=True, method=6
            )
            save(PICTURES / f"film-{scheme}.webp", file.getvalue(), FILM_LIMIT)

    def _write_page(self) -> None:
        """Write the page of the run in the current folder."""
        if not Path("page.html").exists():
            lab("python -m mnist_lab export latest --format html --to page.html")

    def look_at_data(self) -> None:
        self._enter_lenet()
        lab("python -m mnist_lab data latest --out data.html")
        self._photograph("look-at-data", "data.html", hidden=":has(~ [aria-labelledby=doubts])")

    def data(self) -> None:
        enter(self.work, "mnist")
        lab("python -m mnist_lab data data=mnist --out data.html")
        self._photograph("data", "data.html", hidden=":has(~ [aria-labelledby=classes])")

    def own_data(self) -> None:
        enter(self.work, "shapes")
        write_shapes(Path("shapes"))
        lab("python -m mnist_lab data data=image_folder data.source.path=shapes --out data.html")
        self._photograph("own-data", "data.html", height=720, hidden=":has(~ [aria-labelledby=values])")

    def predict(self) -> None:
        """Read a number on ruled paper, in shade; its preview shows what was found."""
        self._enter_lenet()
        cfg = compose("model=mlp")
        images = make_data(cfg, make_model(cfg)).raw_test_set()[0]
        random = np.random.default_rng(4)
        written = number(np.array(images[[1, 35, 18, 11]]), random)
        Path("photos").mkdir(exist_ok=True)
        lit(ruled(tilted(written, random), random).convert("L"), random).save("photos/1.jpg")
        lab("python -m mnist_lab predict latest photos --show seen")
        save_png("predict", Image.open(next(Path("seen").iterdir())), colours=64)


def play(page: Page) -> Iterator[int]:
    """Draw a digit with the mouse, then move the slider over the epochs; yield the milliseconds of each frame."""
    page.click("#clear")
    yield 700
    box = page.locator("#pad").bounding_box()
    assert box is not None
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in SIX_BY_HAND]
    page.mouse.move(*points[0])
    page.mouse.down()
    for (x, y), (u, v) in pairwise(points):
        for share in (0.33, 0.67, 1):
            page.mouse.move(x + share * (u - x), y + share * (v - y))
            page.wait_for_timeout(150)
            yield 90
    page.mouse.up()
    page.wait_for_timeout(150)
    yield 1200
    slider = page.locator("#epoch")
    tested = int(slider.input_value())
    last = int(slider.get_attribute("max") or 0)
    for place in [*range(last + 1), tested]:
        slider.evaluate("(slider, place) => { slider.value = place; slider.dispatchEvent(new Event('input')); }", place)
        page.wait_for_timeout(200)
        yield 700


def write_shapes(folder: Path) -> None:
    """Write 60 images each of circles, crosses and squares."""
    random = np.random.default_rng(3)
    for shape in ("circle", "cross", "square"):
        (folder / shape).mkdir(parents=True, exist_ok=True)
        for i in range(60):
            picture = Image.new("L", (64, 48), 255)
            x, y, side, width = random.integers((6, 3, 30, 2), (22, 8, 38, 6)).tolist()
            box, pen = (x, y, x + side, y + side), ImageDraw.Draw(picture)
            if shape == "cross":
                pen.line(box, 0, width)
                pen.line((x, y + side, x + side, y), 0, width)
            else:
                (pen.ellipse if shape == "circle" else pen.rectangle)(box, outline=0, width=width)
            picture.save(folder / shape / f"{i}.png")


def write_files_of_guide(name: str) -> None:
    """Write the files that a guide shows, whose code blocks begin with a comment that names them."""
    text = (DOCS / "guides" / f"{name}.md").read_text(encoding="utf-8")
    for path, content in re.findall(r"^```\w+\n# (\S+\.(?:py|yaml))\b(.*?)^```", text, re.MULTILINE | re.DOTALL):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("#" + content, encoding="utf-8")


def main() -> None:
    scenes = [name for name in vars(Studio) if not name.startswith("_")]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help=", ".join(scenes))
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=PAGE)
        studio = Studio((options.work or Path(folder)).absolute(), browser)
        for name in options.names or scenes:
            start = time.perf_counter()
            getattr(studio, name)()
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
