"""A CSV with the pixels of an image in each line, such as those of Kaggle's "Digit Recognizer"."""

import csv
import warnings
from pathlib import Path

import numpy as np

from mnist_lab.data.images import SIDE
from mnist_lab.errors import UsageError
from mnist_lab.formatting import shorten

PIXELS = SIDE * SIDE


def read_pixels(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the images, (N, 28, 28) bytes, of a CSV, and the labels, (N,), if it has any.

    Labels are in the column named label or class or, without a line of names, in the first of 785 columns.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first_line = [value.strip().lower() for value in next(csv.reader(file), [])]
        label_columns = [column for column, name in enumerate(first_line) if name in ("label", "class")]
        has_names = bool(label_columns) or not any(map(str.isdecimal, first_line))
        with warnings.catch_warnings():
            # NumPy warns of a file without rows, and of values such as 0.5.
            warnings.simplefilter("error")
            table = np.loadtxt(
                path,
                np.uint8,
                comments=None,
                delimiter=",",
                skiprows=int(has_names),
                ndmin=2,
                encoding="utf-8-sig",
                quotechar='"',
            )
    except (OSError, ValueError, csv.Error, Warning) as error:
        reason = getattr(error, "strerror", None) or str(error).replace("uint8", "a whole number from 0 to 255")
        raise UsageError(f"{path}: cannot be read ({shorten(reason, 200)})") from error
    columns = table.shape[1]
    if columns == PIXELS and not label_columns:
        return table.reshape(-1, SIDE, SIDE), None
    if columns != PIXELS + 1 or (has_names and not label_columns):
        needed = f"{PIXELS} of pixels are needed, and optionally one named label"
        raise UsageError(f"{path}: found {columns} columns; {needed}")
    label_column = label_columns[0] if label_columns else 0
    return np.delete(table, label_column, axis=1).reshape(-1, SIDE, SIDE), table[:, label_column].copy()
