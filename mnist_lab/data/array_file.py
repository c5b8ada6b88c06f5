"""A file of arrays, .npz or .csv, with images and their labels."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mnist_lab.data.image_source import MAX_CLASSES, Labelled, parse_split
from mnist_lab.data.own_images import Decoded, OwnImages, describe_images, describe_left_out
from mnist_lab.data.pixel_csv import PIXELS, read_pixels
from mnist_lab.data.pixel_values import find_common_scale, find_range, to_bytes
from mnist_lab.errors import UsageError
from mnist_lab.formatting import natural_key, shorten

# A word in an array's name says what it holds.
KINDS = {"images": "images", "x": "images", "labels": "labels", "y": "labels"}
MAX_EXPANSION = 50  # Arrays may take this many bytes for each byte of their file.
SMALL_FILE = 10_000_000  # A smaller file may have arrays as large as those of a file of this size.
COPIES = 40  # Labels that are texts are copied, from bytes to characters and into sets.

_Pair = dict[str, str]  # the names of a set's arrays, "images" and "labels"
_Contents = tuple[dict[str, Labelled], list[str], list[str]]  # sets, classes if they have names, arrays left out


class ArrayFile(OwnImages):
    """A .npz file of images and labels, or a CSV such as Kaggle's train.csv.

    - .npz: images (N, H, W), (N, H, W, 3) or (N, H * W), with values on one of pixel_values.SCALES, and labels (N,),
      integers from 0 or names. The arrays are named images and labels, or x and y, with train, val or test before or
      after it if there are several sets; an array `classes` may name the classes.
    - .csv: a column named label, and 784 of pixels from 0 to 255.
    """

    def _files(self) -> list[Path]:
        if not self._path.is_file():
            raise UsageError(
                "not a file; data=image_folder reads a folder" if self._path.exists() else "file not found"
            )
        return [self._path]

    def _decode(self) -> Decoded:
        read = _read_csv if self._path.suffix.lower() == ".csv" else _read_npz
        sets, classes, left_out = read(self._path, list(self.classes or []))
        scale = find_common_scale(sets)
        sizes = {(images.shape[2], images.shape[1]) for images, _ in sets.values()}
        ranges = [find_range(images) for images, _ in sets.values()]
        values = min(lowest for lowest, _ in ranges), max(highest for _, highest in ranges)
        notes = [describe_images(sizes, values, scale)]
        if left_out:
            notes.append(describe_left_out("not needed", left_out))
        if not classes:
            largest = max((int(labels.max()) for _, labels in sets.values() if len(labels)), default=0)
            classes = [str(number) for number in range(min(largest + 1, MAX_CLASSES))]
        converted = {split: (to_bytes(images, scale), labels) for split, (images, labels) in sets.items()}
        return Decoded(converted, classes, notes)


def _read_csv(path: Path, classes: list[str]) -> _Contents:
    images, labels = read_pixels(path)
    if labels is None:
        raise UsageError("has no column named label")
    return {"training": (images, labels.astype(np.int64))}, classes, []


def _read_npz(path: Path, classes: list[str]) -> _Contents:
    max_bytes = MAX_EXPANSION * max(path.stat().st_size, SMALL_FILE)
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise UsageError("is one array; save images and labels together with numpy.savez")
            pairs = _find_sets(file.files)
            arrays = _load_arrays(file, pairs.values(), max_bytes)
            left_out = [name for name in file.files if name not in arrays]
    except (OSError, UsageError):
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise anything for damaged files.
        reason = " ".join(str(error).split())[:100]
        raise UsageError(f"not a .npz or .csv file of images ({reason})") from error
    classes = classes or _find_class_names(arrays, pairs.values())
    sets = {}
    for split, pair in pairs.items():
        images = _to_images(pair["images"], arrays[pair["images"]])
        sets[split] = images, _to_labels(pair["labels"], arrays[pair["labels"]], classes)
    return sets, classes, left_out


def _find_sets(names: Collection[str]) -> dict[str, _Pair]:
    """Return the names of the two arrays of each set, such as train_images and y_train."""
    sets: dict[str, _Pair] = {}
    for name in names:
        words = name.lower().split("_")
        kinds = [KINDS[word] for word in words if word in KINDS]
        split = parse_split("_".join(word for word in words if word not in KINDS)) if len(words) > 1 else "training"
        if len(kinds) != 1 or split is None:
            continue
        other = sets.setdefault(split, {}).setdefault(kinds[0], name)
        if other != name:
            raise UsageError(f"{other} and {name} are both {kinds[0]} of the {split} set; keep one")
    if "training" not in sets or any(len(pair) < 2 for pair in sets.values()):
        needed = "train_images, train_labels, test_images, test_labels, or images and labels"
        raise UsageError(f"holds {shorten(', '.join(names)) or 'no arrays'}; needed are {needed}")
    return sets


def _load_arrays(file: Any, pairs: Collection[_Pair], max_bytes: int) -> dict[str, np.ndarray]:
    """Return the arrays that are needed from an NpzFile, by name; refuse those that would take more than max_bytes."""
    image_names = {pair["images"] for pair in pairs}
    text_names = {pair["labels"] for pair in pairs} | ({"classes"} & set(file.files))
    needed = 0
    for member in file.zip.infolist():
        name = member.filename.removesuffix(".npy")
        if name in text_names:
            needed += COPIES * member.file_size
        elif name in image_names:
            needed += member.file_size
    _check_memory(needed, max_bytes)
    arrays = {name: np.asarray(file[name]) for name in image_names | text_names}
    for name in text_names:
        if arrays[name].dtype.kind == "S":
            arrays[name] = arrays[name].astype(str)
    # The 28x28 bytes of all images are held twice, and one image at a time becomes floats, however large it is.
    _check_memory(
        sum(2 * PIXELS * len(array) + 16 * array[:1].size for array in arrays.values() if array.ndim), max_bytes
    )
    return arrays


def _check_memory(needed: int, max_bytes: int) -> None:
    if needed > max_bytes:
        raise UsageError(f"takes {needed / 1e9:.1f} GB once read, too much for a file of its size; save fewer images")


def _find_class_names(arrays: Mapping[str, np.ndarray], pairs: Collection[_Pair]) -> list[str]:
    """Return the names in the array `classes` or, without one, the labels that are names; empty if none is."""
    if "classes" in arrays and arrays["classes"].size:
        return [str(name) for name in arrays["classes"].flat]
    labels = [arrays[pair["labels"]] for pair in pairs]
    names = {str(name) for array in labels if array.dtype.kind == "U" for name in array.flat}
    return sorted(names, key=natural_key)


def _to_images(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array of images as (N, H, W) or (N, H, W, 3) numbers."""
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    side = math.isqrt(array.shape[-1]) if array.ndim == 2 else 0
    if side and side * side == array.shape[-1]:
        array = array.reshape(-1, side, side)
    is_grey, is_coloured = array.ndim == 3, array.ndim == 4 and array.shape[-1] == 3
    if not (is_grey or is_coloured) or 0 in array.shape:
        needed = "(N, height, width), (N, height, width, 3) or (N, pixels)"
        raise UsageError(f"{name} has shape {array.shape}; {needed} is needed")
    if array.dtype.kind not in "buif":
        raise UsageError(f"{name} holds {array.dtype}; bytes, or floats from 0 to 1, are needed")
    return array


def _to_labels(name: str, array: np.ndarray, classes: list[str]) -> np.ndarray:
    """Return an array of labels as (N,) integers; a name becomes its place among the classes."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise UsageError(f"{name} has shape {array.shape}; (N,) is needed, the class of each image")
    if array.dtype.kind == "U":
        places = {class_name: place for place, class_name in enumerate(classes)}
        if unknown := set(map(str, array)) - set(places):
            known = shorten(", ".join(classes))
            raise UsageError(f"{name} holds {shorten(min(unknown))}, which is not one of {known}")
        return np.array([places[str(label)] for label in array])
    if array.dtype.kind not in "buif" or not (array == array.round()).all():
        raise UsageError(f"{name} holds {array.dtype}; whole numbers from 0, or names, are needed")
    return array.astype(np.int64)
