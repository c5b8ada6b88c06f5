"""The digits that a page's JavaScript finds in a drawing are those that Python finds, to the byte."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

import mnist_lab
from benchmarks.digits import lit, number, on_page, ruled
from mnist_lab.data.images import fit_image
from mnist_lab.inference.digits import NoDigit, find_number

PORT = Path(mnist_lab.__file__).parent / "web" / "templates" / "digit.js"
NODE = shutil.which("node")
SIDE, PEN = 256, 0.07  # of a drawing: pixels, and of the side
DRIVER = """
const {readFileSync} = require("fs");
const file = readFileSync(process.argv[2]);
let at = 0;
const found = JSON.parse(readFileSync(process.argv[3], "utf8")).map(([width, height]) => {
  const grey = new Uint8Array(file.subarray(at, at += width * height)), background = Number(process.argv[4]);
  const row = background < 0 ? findNumber(grey, width, height) : fitImage(grey, width, background);
  return row.map((digit) => ({...digit, pixels: [...digit.pixels]}));
});
console.log(JSON.stringify(found));
"""

Random = np.random.Generator
Points = Sequence[tuple[float, float]]

# Digits from 0 to 9 as strokes, each a list of points of a unit square.
DIGITS: list[list[Points]] = [
    [[(0.5, 0), (0.15, 0.2), (0.1, 0.6), (0.4, 1), (0.8, 0.8), (0.85, 0.3), (0.5, 0)]],
    [[(0.3, 0.2), (0.55, 0), (0.5, 1)]],
    [[(0.05, 0.2), (0.3, 0), (0.6, 0.1), (0.6, 0.35), (0, 1), (0.7, 0.95)]],
    [[(0.1, 0.05), (0.7, 0.05), (0.35, 0.4), (0.7, 0.6), (0.6, 0.95), (0.1, 0.9)]],
    [[(0.3, 0), (0, 0.6), (0.75, 0.6)], [(0.55, 0.3), (0.5, 1)]],
    [[(0.15, 0), (0.1, 0.45), (0.6, 0.45), (0.65, 0.85), (0.1, 1)], [(0.15, 0), (0.7, 0)]],
    [[(0.6, 0), (0.15, 0.5), (0.2, 0.95), (0.6, 0.95), (0.65, 0.6), (0.2, 0.6)]],
    [[(0, 0), (0.7, 0), (0.3, 1)]],
    [[(0.6, 0.15), (0.2, 0.1), (0.2, 0.35), (0.65, 0.65), (0.5, 1), (0.1, 0.9), (0.2, 0.6), (0.6, 0.15)]],
    [[(0.6, 0.2), (0.2, 0.1), (0.15, 0.45), (0.6, 0.4), (0.6, 0.1), (0.5, 1)]],
]


def drawing(strokes: Sequence[Points], pen: float = PEN, side: int = SIDE) -> Image.Image:
    """Strokes through points from 0 to 1, black on white, with round ends and smooth edges as on a page."""
    sheet = Image.new("L", (4 * side, 4 * side), 255)
    ink, radius = ImageDraw.Draw(sheet), pen * 2 * side
    for points in strokes:
        places = [(4 * side * x, 4 * side * y) for x, y in points]
        ink.line(places, fill=0, width=max(1, round(2 * radius)), joint="curve")
        for x, y in places:
            ink.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
    return sheet.resize((side, side), Image.Resampling.BOX)


def digit(random: Random, height: float | None = None, left: float | None = None) -> list[Points]:
    """A digit's strokes, bent by chance."""
    height = height or random.uniform(0.2, 0.8)
    left = random.uniform(0.05, 0.95 - 0.8 * height) if left is None else left
    top = random.uniform(0.05, 0.95 - height)
    return [
        [(left + height * x, top + height * y) for x, y in (points + random.normal(0, 0.03, (len(points), 2))).tolist()]
        for points in map(np.array, DIGITS[random.integers(10)])
    ]


def scribble(random: Random) -> Image.Image:
    """One to three smooth strokes."""
    strokes = []
    for _ in range(random.integers(1, 4)):
        time = np.linspace(0, 1, 40)[:, None]
        waves = (random.normal(0, 0.25 / n, 2) * np.sin(n * np.pi * time + random.uniform(0, 6, 2)) for n in (1, 2, 3))
        strokes.append((random.uniform(0.3, 0.7, 2) + sum(waves)).clip(0, 1).tolist())
    return drawing(strokes)


def several(random: Random) -> Image.Image:
    count = int(random.integers(2, 5))
    return drawing([stroke for n in range(count) for stroke in digit(random, 0.8 / count, (n + 0.15) / count)], 0.03)


def dots(random: Random) -> Image.Image:
    strokes: list[Points] = [[(x, y), (x, y)] for x, y in random.uniform(0, 1, (random.integers(1, 9), 2)).tolist()]
    return drawing(strokes + digit(random) if random.random() < 0.5 else strokes, random.uniform(0.004, 0.07))


def framed(random: Random) -> Image.Image:
    picture = drawing(digit(random, 0.45, random.uniform(0.2, 0.4)), 0.04)
    box = (*random.integers(2, 30, 2).tolist(), *random.integers(226, 254, 2).tolist())
    ImageDraw.Draw(picture).rectangle(box, outline=0, width=int(random.integers(1, 8)))
    return picture


def symmetric(random: Random) -> Image.Image:
    """A shape whose centre lies between two pixels or on one, to within the last bit."""
    picture = Image.new("L", (SIDE, SIDE), 255)
    x, y = random.integers(20, 110, 2).tolist()
    box, pen, width = (x, y, SIDE - 1 - x, SIDE - 1 - y), ImageDraw.Draw(picture), int(random.integers(3, 20))
    kind = random.integers(4)
    if kind == 0:
        pen.ellipse(box, outline=0, width=width)
    elif kind == 1:
        pen.rectangle(box, outline=0, width=width)
    else:
        pen.line((128, y, 128, SIDE - 1 - y), fill=0, width=width)
        if kind == 2:
            pen.line((x, 128, SIDE - 1 - x, 128), fill=0, width=width)
    return picture.filter(ImageFilter.GaussianBlur(random.uniform(0, 2)))


def small(random: Random) -> np.ndarray:
    """A digit like MNIST's: 28 x 28 bytes, light on dark."""
    picture = drawing(digit(random, 20 / 28, 0.2), random.uniform(0.05, 0.11)).resize((28, 28), Image.Resampling.BOX)
    return 255 - np.asarray(picture)


def photographed(random: Random) -> Image.Image:
    return lit(ruled(ImageOps.invert(on_page(small(random), random)), random).convert("L"), random)


def enlarged(random: Random) -> Image.Image:
    how = (Image.Resampling.NEAREST, Image.Resampling.BICUBIC, Image.Resampling.BOX)[random.integers(3)]
    return Image.fromarray(small(random)).resize([int(random.choice((112, 256, 280, 640)))] * 2, how)


def pale(random: Random) -> Image.Image:
    """Ink and paper of any two shades, clearly distinct or not."""
    ink, paper = random.integers(0, 256, 2).tolist()
    return drawing(digit(random)).point(lambda value: ink + (paper - ink) * value // 255)


def noisy(random: Random) -> Image.Image:
    noise = random.normal(random.uniform(0, 255), random.uniform(0, 40), (SIDE, SIDE))
    noise += np.add.outer(*(random.uniform(0, 100) * np.linspace(0, 1, SIDE) for _ in range(2)))
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8))


def any_size(random: Random) -> Image.Image:
    width, height = random.integers(5, 641, 2).tolist()
    return drawing(digit(random)).resize((max(width, 112), height), Image.Resampling.BILINEAR)


def cut_off(random: Random) -> Image.Image:
    """A digit that runs over the edge, or fills the image."""
    picture, (left, top) = drawing(digit(random, 0.6)), random.integers(0, 140, 2).tolist()
    return picture.crop((left, top, left + 116, top + 130))


KINDS: dict[str, Callable[[Random], Image.Image]] = {
    "a digit": lambda random: drawing(digit(random)),
    "by a thin pen": lambda random: drawing(digit(random), random.uniform(0.004, 0.03)),
    "a scribble": scribble,
    "several digits": several,
    "a number": lambda random: number(np.stack([small(random) for _ in range(random.integers(2, 6))]), random),
    "two rows": lambda random: drawing(
        [stroke for n in range(3) for stroke in digit(random, 0.3, 0.1 + 0.3 * n)] + digit(random, 0.25, 0.3), 0.03
    ),
    "dots": dots,
    "in a frame": framed,
    "symmetric": symmetric,
    "light on dark": lambda random: ImageOps.invert(drawing(digit(random))),
    "pale": pale,
    "photographed": photographed,
    "enlarged": enlarged,
    "on a page": lambda random: on_page(small(random), random),
    "noise": noisy,
    "any size": any_size,
    "cut off": cut_off,
    "blank": lambda random: Image.new("L", (SIDE, SIDE), int(random.integers(256))),
}


def run_port(
    pictures: Sequence[Image.Image], folder: Path, background: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Have node run the port on pictures; it prints what it found as a list.

    With a background, it takes each picture as a whole, for training images with such edges.
    """
    if NODE is None:
        pytest.skip("node, which runs JavaScript, is not installed")
    (folder / "port.js").write_text(f'"use strict";\n{PORT.read_text()}{DRIVER}')
    (folder / "pictures").write_bytes(b"".join(picture.tobytes() for picture in pictures))
    (folder / "sizes.json").write_text(json.dumps([picture.size for picture in pictures]))
    files = [str(folder / name) for name in ("port.js", "pictures", "sizes.json")]
    command = [NODE, *files, str(-1 if background is None else background)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def found_by_port(
    pictures: Sequence[Image.Image], folder: Path, background: int | None = None
) -> list[list[dict[str, Any]]]:
    done = run_port(pictures, folder, background)
    assert done.returncode == 0, done.stderr
    found: list[list[dict[str, Any]]] = json.loads(done.stdout)
    return found


def found_by_python(picture: Image.Image) -> list[dict[str, Any]]:
    try:
        row = find_number(picture)
    except NoDigit:
        return []
    return [{**digit._asdict(), "pixels": digit.pixels.ravel().tolist(), "box": list(digit.box)} for digit in row]


def differences(answer: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> int:
    """Check that the same digits were found, to a grey level, and return how many of them differ by one."""
    assert [digit["candidates"] for digit in answer] == [digit["candidates"] for digit in expected]
    for digit, its in zip(answer, expected, strict=True):
        assert digit["box"] == pytest.approx(its["box"], abs=1e-6)
        assert np.abs(np.subtract(digit["pixels"], its["pixels"])).max() <= 1
    return sum(digit["pixels"] != its["pixels"] for digit, its in zip(answer, expected, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_port_finds_the_same_digits_as_python(kind: str, tmp_path: Path) -> None:
    pictures = [KINDS[kind](np.random.default_rng(seed)) for seed in range(6)]
    expected = [found_by_python(picture) for picture in pictures]
    answers = found_by_port(pictures, tmp_path)
    different = sum(differences(answer, row) for answer, row in zip(answers, expected, strict=True))
    if int(PIL.__version__.split(".")[0]) >= 13:  # whose order of rounding the port has
        assert different <= 1


def test_some_pictures_have_a_digit_and_some_have_none_or_several() -> None:
    found = [found_by_python(make(np.random.default_rng(seed))) for make in KINDS.values() for seed in range(3)]
    assert sum(len(row) == 0 for row in found) >= 4
    assert sum(len(row) > 1 for row in found) >= 4
    assert any(row and row[0]["candidates"] > len(row) for row in found)


def test_port_sees_a_canvas_as_python_sees_its_png(tmp_path: Path) -> None:
    pictures = [drawing(digit(np.random.default_rng(seed))) for seed in range(6)]
    for answer, picture in zip(found_by_port(pictures, tmp_path), pictures, strict=True):
        expected = found_by_python(picture.convert("RGBA"))
        assert expected
        differences(answer, expected)


@pytest.mark.parametrize("background", [0, 128, 255])
def test_port_takes_a_whole_picture_as_python_does(background: int, tmp_path: Path) -> None:
    makers = list(KINDS.values())
    pictures = [make(np.random.default_rng(seed)).resize((SIDE, SIDE)) for seed, make in enumerate(makers)]
    for (answer,), picture in zip(found_by_port(pictures, tmp_path, background), pictures, strict=True):
        expected = fit_image(picture, background)
        assert np.abs(np.subtract(answer["pixels"], expected.ravel().astype(int))).max() <= 1


@pytest.mark.parametrize("size", [(111, 100), (300, 641)])
def test_port_refuses_sizes_that_python_would_change(size: tuple[int, int], tmp_path: Path) -> None:
    done = run_port([Image.new("L", size)], tmp_path)
    assert done.returncode != 0 and "the longer side must have 112 to 640 pixels" in done.stderr
