"""Read images and labels from one file: arrays of NumPy's .npz, or a CSV with the pixels of an image in each line."""

import csv
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from mnist_lab.data.images import SIDE, fit_image
from mnist_lab.errors import UsageError
from mnist_lab.formatting import natural_key

Labelled = tuple[np.ndarray, np.ndarray]  # images (N, 28, 28), uint8, and their labels (N,)

# Names of the arrays: images and labels, of the training set and of the test set if it is kept apart.
NAMES = (
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),  # of Keras's files
    ("images", "labels"),
    ("x", "y"),
    ("X", "y"),
)
PIXELS = SIDE * SIDE
BYTES = {str(number) for number in range(256)}


def read_npz(path: Path, classes: list[str]) -> tuple[list[Labelled], list[str]]:
    """Return the sets of a .npz file, training and perhaps test, and the names of the classes, if there are any."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UsageError(f"not a .npz or .csv file of images ({reason})") from error
    names = next((each for each in NAMES if set(each) <= set(arrays)), ())
    if not names:
        needed = f"{', '.join(NAMES[0])}, or {' and '.join(NAMES[2])}"
        raise UsageError(f"holds {', '.join(arrays) or 'no arrays'}; needed are {needed}")
    images = [_to_bytes(name, arrays[name]) for name in names[::2]]
    labels = [arrays[name] for name in names[1::2]]
    found = {str(label) for each in labels if each.dtype.kind in "US" for label in each.ravel()}
    classes = classes or [str(name) for name in np.ravel(arrays.get("classes", []))] or sorted(found, key=natural_key)
    numbers = [_to_numbers(name, each, classes) for name, each in zip(names[1::2], labels, strict=True)]
    return list(zip(images, numbers, strict=True)), classes


def _to_bytes(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array of images as (N, 28, 28) bytes."""
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    side = round(array.shape[-1] ** 0.5) if array.ndim else 0
    if array.ndim == 2 and side * side == array.shape[1]:
        array = array.reshape(-1, side, side)
    if not (array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 3)) or 0 in array.shape[1:]:
        needed = "(N, height, width), (N, height, width, 3) or (N, pixels)"
        raise UsageError(f"{name} has shape {array.shape}; {needed} is needed")
    if array.dtype.kind not in "buif":
        raise UsageError(f"{name} holds {array.dtype}; bytes, or floats from 0 to 1, are needed")
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if not (low >= 0 and high <= 255):  # NaN is refused, too
        raise UsageError(f"{name} has values from {low:g} to {high:g}; must be from 0 to 255, or floats from 0 to 1")
    if array.dtype.kind in "bf" and high <= 1:
        array = array * np.float32(255)
    pixels = array.round().astype(np.uint8)
    if pixels.shape[1:] == (SIDE, SIDE) or not len(pixels):
        return np.ascontiguousarray(pixels)
    return np.stack([fit_image(Image.fromarray(image)) for image in pixels])


def _to_numbers(name: str, array: np.ndarray, classes: list[str]) -> np.ndarray:
    """Return an array of labels as (N,) integers; a name becomes its place among the classes."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise UsageError(f"{name} has shape {array.shape}; (N,) is needed, the class of each image")
    if array.dtype.kind in "US":
        places = {each: place for place, each in enumerate(classes)}
        if unknown := set(map(str, array)) - set(places):
            raise UsageError(f"{name} holds {min(unknown)}, which is not one of {', '.join(places)}")
        return np.array([places[str(each)] for each in array])
    if array.dtype.kind not in "buif" or not (array == array.round()).all():
        raise UsageError(f"{name} holds {array.dtype}; whole numbers from 0, or names, are needed")
    return array.astype(np.int64)


def read_pixels(path: Path, max_label: int = 9) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the images, (N, 28, 28) bytes, and the labels, (N,), if there are any, of a CSV with an image in a line.

    Labels are in the column named label or class or, without a line of names, in the first of 785 columns.
    """
    rows = bytearray()
    width, label_column = 0, -1
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            for fields in filter(None, lines):
                where = f"{path}, line {lines.line_num}"
                if not width:
                    width, is_head = len(fields), BYTES.isdisjoint(map(str.strip, fields))
                    label_column = _find_label_column(fields if is_head else [], width, where)
                    if is_head:
                        continue
                if len(fields) != width:
                    raise UsageError(f"{where}: expected {width} columns, found {len(fields)}")
                try:
                    values = bytes(map(int, fields))
                except ValueError:
                    wrong = next(i for i, each in enumerate(fields) if each.strip() not in BYTES)
                    reason = f"invalid value {fields[wrong][:20]!r}; must be a whole number from 0 to 255"
                    raise UsageError(f"{where}, column {wrong + 1}: {reason}") from None
                if label_column >= 0 and values[label_column] > max_label:
                    raise UsageError(f"{where}: invalid label {values[label_column]}; must be from 0 to {max_label}")
                rows += values
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not rows:
        raise UsageError(f"{path}: contains no images")
    table = np.frombuffer(rows, np.uint8).reshape(-1, width)
    if label_column < 0:
        return table.reshape(-1, SIDE, SIDE), None
    return np.delete(table, label_column, axis=1).reshape(-1, SIDE, SIDE), table[:, label_column].copy()


def _find_label_column(head: list[str], width: int, where: str) -> int:
    """Return the index of the label column, or -1 without labels."""
    columns = [i for i, name in enumerate(head) if name.strip().lower() in ("label", "class")]
    if width == PIXELS and not columns:
        return -1
    if width == PIXELS + 1 and (columns or not head):
        return columns[0] if columns else 0
    raise UsageError(f"{where}: found {width} columns; {PIXELS} of pixels are needed, and optionally one named label")
