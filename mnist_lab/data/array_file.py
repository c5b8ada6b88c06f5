"""A data set in one file: arrays of NumPy's .npz, or a CSV with the pixels of an image in each line."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mnist_lab.data.images import SIDE, fit_image
from mnist_lab.data.own_images import MAX_CLASSES, Labelled, OwnImages
from mnist_lab.data.pixel_csv import read_pixels
from mnist_lab.errors import UsageError
from mnist_lab.formatting import natural_key

# Names of the arrays: images and labels, of the training set and of the test set if it is kept apart.
NAMES = (
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),  # of Keras's files
    ("images", "labels"),
    ("x", "y"),
    ("X", "y"),
)


@dataclass(frozen=True, kw_only=True)
class ArrayFile(OwnImages):
    """A .npz file of images and labels, or a CSV such as Kaggle's train.csv.

    - .npz: images (N, H, W), (N, H, W, 3) or (N, H * W), bytes or floats from 0 to 1, and labels (N,), integers from 0
      or names. The names of the arrays are one of NAMES; an array `classes` may name the classes.
    - .csv: a column named label, and 784 of pixels from 0 to 255.
    """

    def _files(self) -> list[Path]:
        if not self._path.is_file():
            state = "not a file" if self._path.exists() else "file not found"
            raise UsageError(f"data.source.path={self.path}: {state}")
        return [self._path]

    def _checksum(self) -> str:
        return hashlib.sha256(self._path.read_bytes()).hexdigest()

    def _decode(self) -> Labelled:
        if self._path.suffix.lower() == ".csv":
            images, labels = read_pixels(self._path, max_label=255)
            if labels is None:
                raise UsageError(f"data.source.path={self.path}: has no column named label")
            sets = [(images, labels.astype(np.int64))]
            return Labelled(sets[0], None, self._class_names(sets, list(self.classes or [])))
        arrays = self._read_npz()
        names = next((each for each in NAMES if set(each) <= set(arrays)), ())
        if not names:
            raise UsageError(
                f"data.source.path={self.path}: holds {', '.join(arrays) or 'no arrays'}; needed are "
                f"{', '.join(NAMES[0])}, or {' and '.join(NAMES[2])}"
            )
        named = map(str, np.ravel(arrays.get("classes", [])))
        in_labels = {str(label) for name in names[1::2] if _is_text(arrays[name]) for label in arrays[name].ravel()}
        classes = list(self.classes or named) or sorted(in_labels, key=natural_key)
        sets = []
        for image_name, label_name in zip(names[::2], names[1::2], strict=True):
            images = self._images(image_name, arrays[image_name])
            labels = self._labels(label_name, arrays[label_name], classes)
            if len(images) != len(labels):
                raise UsageError(
                    f"data.source.path={self.path}: {len(images):,} {image_name} but {len(labels):,} {label_name}"
                )
            if not len(images):
                raise UsageError(f"data.source.path={self.path}: {image_name} is empty")
            sets.append((images, labels))
        return Labelled(sets[0], sets[1] if len(sets) > 1 else None, self._class_names(sets, classes))

    def _read_npz(self) -> Mapping[str, np.ndarray]:
        try:
            with self._path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                if not isinstance(file, np.lib.npyio.NpzFile):
                    raise ValueError("a single array")
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
            reason = " ".join(str(error).split())[:100]
            raise UsageError(f"data.source.path={self.path}: not a .npz or .csv file of images ({reason})") from error

    def _images(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return an array of images as (N, 28, 28) bytes."""
        where = f"data.source.path={self.path}: {name}"
        if array.ndim == 4 and array.shape[-1] == 1:
            array = array[..., 0]
        side = round(array.shape[-1] ** 0.5)
        if array.ndim == 2 and side * side == array.shape[1]:
            array = array.reshape(-1, side, side)
        if not (array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 3)) or 0 in array.shape[1:]:
            raise UsageError(
                f"{where} has shape {array.shape}; (N, height, width), (N, height, width, 3) or (N, pixels) is needed"
            )
        if array.dtype.kind not in "buif":
            raise UsageError(f"{where} holds {array.dtype}; bytes, or floats from 0 to 1, are needed")
        low, high = (array.min(), array.max()) if array.size else (0, 0)
        if not (low >= 0 and high <= 255):  # NaN is refused, too
            raise UsageError(
                f"{where} has values from {low:g} to {high:g}; must be from 0 to 255, or floats from 0 to 1"
            )
        if array.dtype.kind in "bf" and high <= 1:
            array = array * np.float32(255)
        pixels = array.round().astype(np.uint8) if array.dtype.kind == "f" else array.astype(np.uint8)
        if pixels.shape[1:] == (SIDE, SIDE):
            return np.ascontiguousarray(pixels)
        return np.stack([fit_image(Image.fromarray(image)) for image in pixels])

    def _labels(self, name: str, array: np.ndarray, classes: list[str]) -> np.ndarray:
        """Return an array of labels as (N,) int64; names are replaced by their places among the classes."""
        where = f"data.source.path={self.path}: {name}"
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1:
            raise UsageError(f"{where} has shape {array.shape}; (N,) is needed, the class of each image")
        if _is_text(array):
            places = {each: place for place, each in enumerate(classes)}
            if unknown := [each for each in map(str, array) if each not in places]:
                raise UsageError(f"{where} holds {unknown[0]}, which is not one of {', '.join(places)}")
            return np.array([places[str(each)] for each in array])
        if array.dtype.kind not in "bui" and not (array.dtype.kind == "f" and (array == array.round()).all()):
            raise UsageError(f"{where} holds {array.dtype}; whole numbers from 0, or names, are needed")
        return array.astype(np.int64)

    def _class_names(self, sets: list[tuple[np.ndarray, np.ndarray]], names: list[str]) -> list[str]:
        """Return the names of the classes or, without names, their numbers."""
        low, high = (int(pick([pick(labels) for _, labels in sets])) for pick in (min, max))
        limit = len(names) if names else MAX_CLASSES
        if low < 0 or high >= limit:
            wrong = low if low < 0 else high
            raise UsageError(f"data.source.path={self.path}: invalid label {wrong}; must be from 0 to {limit - 1}")
        return names or [str(number) for number in range(high + 1)]


def _is_text(array: np.ndarray) -> bool:
    return array.dtype.kind in "US"
