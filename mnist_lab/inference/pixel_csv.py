"""A CSV of pixels, as Kaggle's "Digit Recognizer" gives them, and the answers that it wants."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from mnist_lab.errors import UsageError
from mnist_lab.files import require_writable_file, user_output
from mnist_lab.inference.recognise import load_classifier
from mnist_lab.runs.run import Run

PIXELS = 28 * 28
LONGEST_LINE = 100_000  # characters; of 785 columns, each may have a name of 100


def submit(run: Run, path: Path, out: Path) -> str:
    """Write what a run's tested weights make of a CSV's images, as ImageId,Label, and say so, with accuracy if known.

    Raises:
        UsageError: the CSV is not one of images, or the file cannot be written, or the run has no checkpoint.
    """
    require_writable_file(out, f"--out={out}")
    if out.exists() and path.exists() and out.samefile(path):
        raise UsageError(f"--out={out}: is the CSV of the images itself; choose another")
    images, labels = read_pixels(path)
    digits = load_classifier(run)(images).argmax(1)
    lines = ["ImageId,Label", *(f"{number},{digit}" for number, digit in enumerate(digits, start=1))]
    with user_output(out, f"--out={out}") as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    accuracy = "" if labels is None else f"accuracy by the label column: {(digits == labels).mean():.2%}\n"
    return f"{accuracy}written: {out} ({len(digits):,} images)"


def read_pixels(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The images of a CSV, (N, 28, 28) bytes, a line each, and their labels, (N,), if it has them.

    Labels are in the column named label or class or, where no line of names is, in the first one of 785.

    Raises:
        UsageError: the file cannot be read or is no such CSV; with the line.
    """
    pixels, labels = bytearray(), bytearray()
    names: list[str] | None = None
    width, place = 0, -1  # of the columns, and of the one of labels
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(_bounded_lines(file, path))
            for fields in filter(None, lines):
                where = f"{path}, line {lines.line_num}"
                if names is None:
                    header = not any(_is_number(field) for field in fields)
                    names = [field.strip().lower() for field in fields] if header else []
                    width, place = len(fields), _place_of_labels(names, len(fields), where)
                    if header:
                        continue
                if len(fields) != width:
                    raise UsageError(f"{where}: has {len(fields)} columns, not {width} as the lines before")
                try:
                    values = bytes(map(int, fields))  # takes 0 to 255
                except ValueError:
                    raise UsageError(f"{where}, {_wrong(fields)}") from None
                if place >= 0:
                    if values[place] > 9:
                        raise UsageError(f"{where}: its label is {values[place]}, not 0 to 9")
                    labels.append(values[place])
                    values = values[:place] + values[place + 1 :]
                pixels += values
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not pixels:
        raise UsageError(f"{path}: has no images in it")
    images = np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28)
    return images, np.frombuffer(labels, np.uint8) if labels else None


def _bounded_lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield a file's lines; refuse one that is so long that it would fill the memory, and is none of 784 pixels."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise UsageError(f"{path}: has a line of {LONGEST_LINE:,} characters or more; 784 pixels take less")
        yield line


def _place_of_labels(names: list[str], width: int, where: str) -> int:
    """The column of labels, -1 for none."""
    place = next((names.index(name) for name in ("label", "class") if name in names), 0 if not names else -1)
    if width == PIXELS and (place < 1 and not {"label", "class"} & set(names)):
        return -1
    if width == PIXELS + 1 and place >= 0:
        return place
    raise UsageError(
        f"{where}: has {width} columns; {PIXELS} of pixels are needed, and one named label if there is one"
    )


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _wrong(fields: list[str]) -> str:
    """Which of the fields is the first that is not a byte."""
    for column, field in enumerate(fields, start=1):
        try:
            bytes([int(field)])
        except ValueError:
            return f"column {column}: {field[:20]!r} is not a whole number from 0 to 255"
    raise AssertionError("all are")
