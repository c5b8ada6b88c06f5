"""Test accuracy when test digits come as pictures: inverted, enlarged and shifted, photographed.

`python -m benchmarks.digits RUN... [--count N]` saves each picture as a file, finds the digit in it and has each run
answer, as `predict --single` does. The table has accuracies and, in brackets, their share of the accuracy on the test
set, and the share of the right answers with a note that they are doubtful.

The last rows are for numbers of 2 to 6 digits, read as `predict` reads them: the share of digits that are right (1 less
the character error rate) and, in brackets, of numbers.
"""

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from torchmetrics.functional.text import char_error_rate

from benchmarks.timing import print_head, print_row
from mnist_lab.data.images import read_image
from mnist_lab.inference.digits import NetworkInput, NoDigit, find_digit, find_number
from mnist_lab.inference.recognise import Answer, ImageClassifier
from mnist_lab.runs.run import Run
from mnist_lab.training.build import make_data, make_model

PAGE = (400, 300)  # pixels, width and height
Random = np.random.Generator


def on_page(digit: np.ndarray, random: Random, *, smallest: float = 3, largest: float = 10) -> Image.Image:
    """Enlarge a digit, (28, 28) bytes, and put it somewhere on a black page."""
    side = round(28 * random.uniform(smallest, largest))
    left, top = (int(random.integers(0, room - side + 1)) for room in PAGE)
    page = Image.new("L", PAGE)
    page.paste(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC), (left, top))
    return page


def inverted(picture: Image.Image) -> Image.Image:
    return picture.point(lambda value: 255 - value)


def on_paper(digit: np.ndarray, random: Random) -> Image.Image:
    """Enlarge a digit, (28, 28) bytes, and put it somewhere on a page, dark on light."""
    return inverted(on_page(digit, random))


def thin(digit: np.ndarray, random: Random) -> Image.Image:
    """Draw a digit dark on light, by a pen of about half the width."""
    page = on_page(digit, random, smallest=6)
    box = page.getbbox()
    side = max(box[2] - box[0], box[3] - box[1]) if box else 0
    return inverted(page.filter(ImageFilter.MinFilter(2 * round(side / 20 / 2) + 1)))


def tilted(page: Image.Image, random: Random) -> Image.Image:
    """Show a page from some side: its corners are moved by up to a twelfth, and it is turned by up to 10 degrees."""
    width, height = page.size
    corners = [(0, 0), (0, height), (width, height), (width, 0)]
    moved = [(x + random.uniform(-1, 1) * width / 12, y + random.uniform(-1, 1) * height / 12) for x, y in corners]
    equations, values = [], []
    for (x, y), (u, v) in zip(corners, moved, strict=True):
        equations += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    coefficients = np.linalg.solve(np.array(equations), np.array(values)).tolist()
    perspective, smooth = Image.Transform.PERSPECTIVE, Image.Resampling.BICUBIC
    seen = page.transform(page.size, perspective, coefficients, smooth, fillcolor=255)
    return seen.rotate(random.uniform(-10, 10), smooth, fillcolor=255)


def lit(page: Image.Image, random: Random) -> Image.Image:
    """Light a dark-on-light page as on a photo: shading to a third, a shadow on half of the pages, blur, noise."""
    reflected = 0.25 + 0.75 * np.asarray(page.filter(ImageFilter.GaussianBlur(1)), np.float32) / 255
    down, across = np.mgrid[0 : page.height, 0 : page.width]
    angle, edge = random.uniform(0, 2 * np.pi, 2)
    ramp = np.cos(angle) * across / page.width + np.sin(angle) * down / page.height
    light = 80 + 155 * (ramp - ramp.min()) / np.ptp(ramp)
    if random.random() < 0.5:
        side = np.cos(edge) * (across / page.width - 0.5) + np.sin(edge) * (down / page.height - 0.5)
        shadow = Image.fromarray(np.where(side > random.uniform(-0.3, 0.3), 165, 255).astype(np.uint8))
        light *= np.asarray(shadow.filter(ImageFilter.GaussianBlur(3)), np.float32) / 255
    return Image.fromarray((reflected * light + random.normal(0, 5, light.shape)).clip(0, 255).astype(np.uint8))


def ruled(page: Image.Image, random: Random) -> Image.Image:
    """Draw the pale blue lines and the red margin of an exercise book on a dark-on-light page."""
    lines = Image.new("RGB", page.size, "white")
    pen, gap = ImageDraw.Draw(lines), int(random.integers(18, 40))
    for y in range(int(random.integers(0, gap)), page.height, gap):
        pen.line((0, y, page.width, y), fill=(175, 200, 230), width=1)
    pen.line((40, 0, 40, page.height), fill=(240, 160, 160), width=1)
    return Image.fromarray(np.minimum(np.asarray(lines), np.asarray(page.convert("RGB"))))


PICTURES: dict[str, Callable[[np.ndarray, Random], Image.Image]] = {
    "as it is": lambda digit, random: Image.fromarray(digit),
    "inverted": lambda digit, random: inverted(Image.fromarray(digit)),
    "enlarged, shifted": on_page,
    "enlarged, shifted, inverted": on_paper,
    "by a thin pen": thin,
    "tilted": lambda digit, random: tilted(on_paper(digit, random), random),
    "on ruled paper": lambda digit, random: ruled(on_paper(digit, random), random),
    "photographed": lambda digit, random: lit(tilted(on_paper(digit, random), random), random),
    "photographed, ruled paper": lambda digit, random: lit(
        ruled(tilted(on_paper(digit, random), random), random).convert("L"), random
    ),
}


def number(digits: np.ndarray, random: Random) -> Image.Image:
    """Put digits, (N, 28, 28) bytes, in a row on light paper, of one size and 2 to 8 of their own pixels apart."""
    pictures = [Image.fromarray(digit) for digit in digits]
    size, inks = random.uniform(3, 5), [picture.crop(picture.getbbox()) for picture in pictures]
    page = Image.new("L", (round(size * (28 * len(digits) + 20)), round(size * (40 + 8 * len(digits)))))
    left = size * random.uniform(8, 12)
    for ink in inks:
        drawn = ink.resize([max(1, round(size * side)) for side in ink.size], Image.Resampling.BICUBIC)
        page.paste(drawn, (round(left), round(page.height / 2 - drawn.height / 2 + size * random.uniform(-2, 2))))
        left += drawn.width + size * random.uniform(2, 8)
    return inverted(page.crop((0, 0, round(left + size * random.uniform(2, 8)), page.height)))


NUMBERS: dict[str, Callable[[np.ndarray, Random], Image.Image]] = {
    "numbers of 2 to 6 digits": number,
    "numbers, photographed": lambda digits, random: lit(tilted(number(digits, random), random), random),
}


def saved_and_read(picture: Image.Image, name: str) -> Image.Image:
    """Save a picture, as JPEG if it is a photo, and read it again."""
    file = io.BytesIO()
    picture.save(file, "JPEG" if "photo" in name else "PNG")
    file.seek(0)
    return read_image(file)


def read_numbers(name: str, images: np.ndarray, labels: np.ndarray) -> tuple[list[str], list[list[NetworkInput]]]:
    """Make numbers of test images; return them, and the digits that are found in the picture of each."""
    random, numbers, rows = np.random.default_rng(0), [], []
    places = random.permutation(len(images))
    while len(places) > 1:
        chosen, places = np.split(places, [random.integers(2, 7)])
        picture = saved_and_read(NUMBERS[name](images[chosen], random), name)
        numbers.append("".join(map(str, labels[chosen])))
        try:
            rows.append(find_number(picture))
        except NoDigit:
            rows.append([])
    return numbers, rows


def digits_and_numbers_right(
    classifier: ImageClassifier, numbers: Sequence[str], rows: Sequence[Sequence[NetworkInput]]
) -> tuple[float, float]:
    """Return the share of digits that are read correctly, and the share of numbers."""
    answers = classifier.probabilities(np.stack([digit.pixels for row in rows for digit in row])).argmax(1)
    parts = np.split(answers, np.cumsum([len(row) for row in rows])[:-1])
    read = ["".join(map(str, part)) for part in parts]
    return 1 - float(char_error_rate(read, list(numbers))), float(np.mean(np.array(read) == np.array(numbers)))


def found(name: str, digits: np.ndarray) -> list[NetworkInput | None]:
    """Return what is found in pictures of digits, (N, 28, 28) bytes; None where no digit is."""
    random = np.random.default_rng(0)
    inputs: list[NetworkInput | None] = []
    for digit in digits:
        picture = saved_and_read(PICTURES[name](digit, random), name)
        try:
            inputs.append(find_digit(picture))
        except NoDigit:
            inputs.append(None)
    return inputs


def hits_and_notes(
    classifier: ImageClassifier, inputs: Sequence[NetworkInput | None], labels: np.ndarray
) -> tuple[float, float]:
    """Return the share of pictures that are answered correctly, and the share of these answers with a note."""
    known = [(digit, label) for digit, label in zip(inputs, labels, strict=True) if digit]
    probabilities = classifier.probabilities(np.stack([digit.pixels for digit, _ in known]))
    answers = [
        Answer(Path(), [digit], row[None], classifier, single=True)
        for (digit, _), row in zip(known, probabilities, strict=True)
    ]
    right = [
        answer for answer, (_, label) in zip(answers, known, strict=True) if answer.probabilities.argmax() == label
    ]
    return len(right) / len(inputs), sum(answer.note != "" for answer in right) / len(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+")
    parser.add_argument("--count", type=int, default=10_000, help="test images, from the first on (default: all)")
    parser.add_argument("--only", choices=[*PICTURES, *NUMBERS], action="append", help="kind of picture (default: all)")
    options = parser.parse_args()
    runs = [Run.find(name) for name in options.runs]
    cfg = runs[0].config
    images, labels = (array[: options.count] for array in make_data(cfg, make_model(cfg)).raw_test_set())
    classifiers = [ImageClassifier(run) for run in runs]
    accuracies = [(classifier.probabilities(images).argmax(1) == labels).mean() for classifier in classifiers]
    print_head("pictures", *(run.info["model"] for run in runs))
    print_row("the test set", *(f"{accuracy:.2%}" for accuracy in accuracies))
    for name in options.only or [*PICTURES, *NUMBERS]:
        cells = []
        if name in NUMBERS:
            numbers, rows = read_numbers(name, images, labels)
            for classifier in classifiers:
                digits, whole = digits_and_numbers_right(classifier, numbers, rows)
                cells.append(f"{digits:.2%} ({whole:.2%})")
        else:
            inputs = found(name, images)
            for classifier, accuracy in zip(classifiers, accuracies, strict=True):
                hits, notes = hits_and_notes(classifier, inputs, labels)
                cells.append(f"{hits:.2%} ({hits / accuracy:.2%}, {notes:.2%})")
        print_row(name, *cells)


if __name__ == "__main__":
    main()
