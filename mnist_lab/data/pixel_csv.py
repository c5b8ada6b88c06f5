"""Read images from a CSV of pixels, as in Kaggle's "Digit Recognizer"."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from mnist_lab.errors import UsageError

PIXELS = 28 * 28
MAX_LINE = 100_000  # characters; each of the 785 columns may have a name of 100


def read_pixels(path: Path, max_label: int = 9) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a CSV with an image in each line.

    Labels are in the column named label or class or, without a line of names, in the first of 785 columns.

    Args:
        path: the file.
        max_label: the largest label that is valid, at most 255.

    Returns:
        The images, (N, 28, 28) bytes, and the labels, (N,), or None.

    Raises:
        UsageError: the file cannot be read or is not such a CSV; the message names the line.
    """
    pixels, labels = bytearray(), bytearray()
    names: list[str] | None = None
    width, label_column = 0, -1
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(_bounded_lines(file, path))
            for fields in filter(None, lines):
                where = f"{path}, line {lines.line_num}"
                if names is None:
                    has_names = not any(_is_number(field) for field in fields)
                    names = [field.strip().lower() for field in fields] if has_names else []
                    width, label_column = len(fields), _find_label_column(names, len(fields), where)
                    if has_names:
                        continue
                if len(fields) != width:
                    raise UsageError(f"{where}: expected {width} columns, found {len(fields)}")
                try:
                    values = bytes(map(int, fields))
                except ValueError:
                    raise UsageError(f"{where}, {_describe_invalid_pixel(fields)}") from None
                if label_column >= 0:
                    if values[label_column] > max_label:
                        raise UsageError(
                            f"{where}: invalid label {values[label_column]}; must be from 0 to {max_label}"
                        )
                    labels.append(values[label_column])
                    values = values[:label_column] + values[label_column + 1 :]
                pixels += values
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not pixels:
        raise UsageError(f"{path}: contains no images")
    images = np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28)
    return images, np.frombuffer(labels, np.uint8) if labels else None


def _bounded_lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield a file's lines, and raise UsageError for one that is too long for 784 pixels and could fill the memory."""
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise UsageError(f"{path}: a line is too long for {PIXELS} pixels ({MAX_LINE:,} characters or more)")
        yield line


def _find_label_column(names: list[str], width: int, where: str) -> int:
    """Return the index of the label column, -1 if there is none."""
    column = next((names.index(name) for name in ("label", "class") if name in names), 0 if not names else -1)
    if width == PIXELS and (column < 1 and not {"label", "class"} & set(names)):
        return -1
    if width == PIXELS + 1 and column >= 0:
        return column
    raise UsageError(f"{where}: found {width} columns; {PIXELS} of pixels are needed, and optionally one named label")


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _describe_invalid_pixel(fields: list[str]) -> str:
    """Describe the first field that is not a byte."""
    for column, field in enumerate(fields, start=1):
        try:
            bytes([int(field)])
        except ValueError:
            return f"column {column}: invalid value {field[:20]!r}; must be a whole number from 0 to 255"
    raise AssertionError("all are bytes")
