"""Read images and labels from one file: arrays of NumPy's .npz, or a CSV with the pixels of an image in each line."""

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from mnist_lab.data.image_source import MAX_CLASSES, split_of
from mnist_lab.data.images import SIDE, fit_pixels
from mnist_lab.errors import UsageError
from mnist_lab.formatting import natural_key, shorten

Labelled = tuple[np.ndarray, np.ndarray]  # images and their labels (N,)
Range = tuple[float, float]  # lowest and highest value

KINDS = {"images": 0, "x": 0, "labels": 1, "y": 1}  # words of an array's name: 0 for images, 1 for labels
SCALES = ((0, 1), (-0.5, 0.5), (-1, 1), (0, 16), (0, 255), (-128, 127), (0, 1023), (0, 4095), (0, 65535))
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # Weights of red, green and blue (ITU-R BT.601).
SMALL_FILE, MAX_EXPANSION = 10_000_000, 50  # Arrays take up to 50 bytes for each byte of a file, or of a small one.
MAX_NAME = 4096  # bytes of a class's name
MAX_PIXELS = 1 << 24  # The limit for one image, and for all that are converted at once.
PIXELS = SIDE * SIDE
BYTES = {str(number) for number in range(256)}


def read_npz(path: Path, classes: list[str]) -> tuple[dict[str, Labelled], list[str], list[str]]:
    """Return the sets of a .npz file, with images as in the file, the classes' names, if any, and the unused arrays."""
    most = MAX_EXPANSION * max(path.stat().st_size, SMALL_FILE)
    try:
        with path.open("rb") as opened:
            if isinstance(file := np.load(opened, allow_pickle=False), np.ndarray):
                raise UsageError("is one array; save images and labels together with numpy.savez")
            sets = _find_sets(file.files)
            used = {name for pair in sets.values() for name in pair.values()} | ({"classes"} & set(file.files))
            sizes = {each.filename.removesuffix(".npy"): each.file_size for each in file.zip.infolist()}
            _check_memory(sum(sizes[name] for name in used), most)
            arrays = {name: np.asarray(file[name]) for name in used}
            arrays |= {name: array.astype(str) for name, array in arrays.items() if array.dtype.kind == "S"}
    except (OSError, UsageError):
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise anything for damaged files.
        reason = " ".join(str(error).split())[:100]
        raise UsageError(f"not a .npz or .csv file of images ({reason})") from error
    _check_memory(sum(2 * PIXELS * len(array) for array in arrays.values() if array.ndim), most)  # images and labels
    if named := [array for array in arrays.values() if array.dtype.kind == "U" and array.dtype.itemsize > MAX_NAME]:
        raise UsageError(f"holds names of {named[0].dtype.itemsize // 4:,} characters; shorten them")
    found = {
        str(label) for pair in sets.values() if arrays[pair[1]].dtype.kind == "U" for label in arrays[pair[1]].flat
    }
    by_name = sorted(found, key=natural_key if len(found) <= MAX_CLASSES else None)
    classes = classes or [str(name) for name in np.ravel(arrays.get("classes", []))] or by_name
    read = {
        split: (_as_images(pair[0], arrays[pair[0]]), _to_numbers(pair[1], arrays[pair[1]], classes))
        for split, pair in sets.items()
    }
    return read, classes, [name for name in file.files if name not in used]


def _find_sets(names: Iterable[str]) -> dict[str, dict[int, str]]:
    """Return the names of the arrays of each set, of images (0) and labels (1), such as train_images and y_train."""
    sets: dict[str, dict[int, str]] = {}
    for name in names:
        words = name.lower().split("_")
        kinds = [KINDS[word] for word in words if word in KINDS]
        split = split_of("_".join(word for word in words if word not in KINDS)) if len(words) > 1 else "training"
        if len(kinds) == 1 and split:
            if other := sets.setdefault(split, {}).get(kinds[0]):
                raise UsageError(f"{other} and {name} are the same of the {split} set; keep one")
            sets[split][kinds[0]] = name
    if "training" not in sets or any(len(pair) < 2 for pair in sets.values()):
        needed = "train_images, train_labels, test_images, test_labels, or images and labels"
        raise UsageError(f"holds {shorten(', '.join(names)) or 'no arrays'}; needed are {needed}")
    return sets


def _check_memory(needed: int, most: int) -> None:
    if needed > most:
        raise UsageError(f"takes {needed / 1e9:.1f} GB once read, too much for a file of its size; save fewer images")


def _as_images(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array of images as (N, H, W) or (N, H, W, 3) numbers."""
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    side = round(array.shape[-1] ** 0.5) if array.ndim else 0
    if array.ndim == 2 and side * side == array.shape[1]:
        array = array.reshape(-1, side, side)
    if not (array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 3)) or 0 in array.shape:
        needed = "(N, height, width), (N, height, width, 3) or (N, pixels)"
        raise UsageError(f"{name} has shape {array.shape}; {needed} is needed")
    if array.shape[1] * array.shape[2] > MAX_PIXELS:
        raise UsageError(f"{name} has shape {array.shape}; shrink the images to {MAX_PIXELS:,} pixels")
    if array.dtype.kind not in "buif":
        raise UsageError(f"{name} holds {array.dtype}; bytes, or floats from 0 to 1, are needed")
    return array


def fitting_scale(images: np.ndarray) -> tuple[Range, Range]:
    """Return the first scale that has all values of images, or (0, 0), and the range of these values."""
    low, high = float(images.min()), float(images.max())
    slack = 0.05 if images.dtype.kind == "f" else 0  # Images that were resized overshoot.
    for dark, bright in SCALES:
        if dark - slack * (bright - dark) <= low and high <= bright + slack * (bright - dark):
            return (dark, bright), (low, high)
    return (0, 0), (low, high)


def find_scale(sets: Mapping[str, Labelled]) -> tuple[Range, Range]:
    """Return the one scale of all sets, and their range; raise UsageError if they differ, or use little of it."""
    found = {split: fitting_scale(images) for split, (images, _) in sets.items()}
    scales, ranges = zip(*found.values(), strict=True)
    (dark, bright), low, high = scales[0], min(low for low, _ in ranges), max(high for _, high in ranges)
    if len(set(scales)) > 1 or not 0 < bright - dark <= 4 * min(high - low for low, high in ranges):
        values = ", ".join(f"{low:g} to {high:g} in the {split} set" for split, (_, (low, high)) in found.items())
        raise UsageError(
            f"has values from {values}; must be from 0 to 1, 0 to 255 or on another usual scale, one for all"
        )
    return (dark, bright), (low, high)


def to_bytes(images: np.ndarray, scale: Range) -> np.ndarray:
    """Return images with values on a scale, (N, H, W) or (N, H, W, 3), as (N, 28, 28) bytes."""
    pixels = np.empty((len(images), SIDE, SIDE), np.uint8)
    step = max(1, MAX_PIXELS // max(math.prod(images.shape[1:]), PIXELS))
    for start in range(0, len(images), step):
        part = (images[start : start + step].astype(np.float32) - scale[0]) * np.float32(255 / (scale[1] - scale[0]))
        grey = part @ LUMINANCE if part.ndim == 4 else part
        pixels[start : start + step] = fit_pixels(np.rint(grey).clip(0, 255).astype(np.uint8))
    return pixels


def _to_numbers(name: str, array: np.ndarray, classes: list[str]) -> np.ndarray:
    """Return an array of labels as (N,) integers; a name becomes its place among the classes."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise UsageError(f"{name} has shape {array.shape}; (N,) is needed, the class of each image")
    if array.dtype.kind == "U":
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
