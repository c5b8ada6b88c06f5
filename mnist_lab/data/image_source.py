"""The base class of data sets: images with labels, and the names of their classes."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mnist_lab.errors import UsageError

DIGITS = tuple("0123456789")  # MNIST's classes
MAX_CLASSES = 1000
# Folders and arrays of a set have these names, in any case; "set", "data" or "images" may follow.
SPLITS = {"training": "training|train", "validation": "validation|valid|val|dev", "test": "testing|test"}

Labelled = tuple[np.ndarray, np.ndarray]  # images and their labels, (N,)


def parse_split(name: str) -> str | None:
    """Return the set that a name stands for, "training", "validation" or "test"; None if it is no set's name."""
    split, rest = split_name(name)
    return split if rest.lower() in ("", "data", "images") else None


def split_name(name: str) -> tuple[str | None, str]:
    """Return the set that a part of a name stands for, None for none, and the rest of the name."""
    for split, words in SPLITS.items():
        if found := re.search(rf"(?i)({words})([ _-]?set)?", name):
            return split, f"{name[: found.start()]}{name[found.end() :]}".strip(" _-")
    return None, name


class Arrays(NamedTuple):
    """Images, (N, 28, 28) uint8, and labels, (N,) integers from 0, of the training and the test set."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


class ImageSource(ABC):
    """A data set.

    Attributes:
        name: its name, for titles; None until it is read.
        classes: the names of the classes, in the order of the labels; None until it is read.
        background: brightness of the images' edges, from 0 to 255; None until it is read.
        sha256: checksum or checksums of the data; None until they are read, or for data that are not verified.
    """

    name: str | None
    classes: Sequence[str] | None = DIGITS
    background: int | None = 0
    sha256: str | Mapping[str, str] | None = None

    @abstractmethod
    def load(self, root: str | os.PathLike[str] | None = None, *, download: bool = True) -> Arrays:
        """Return the images and labels, or raise UsageError if they are missing, damaged or not what was recorded.

        Downloaded data belong below root, by default `mnist_files.data_root()`; download=False forbids downloads.
        """

    def read_settings(self) -> dict[str, Any]:
        """Return the settings that are known once the data are read; a run's configuration records them."""
        return {}

    def image_names(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the files of the training and of the test images, or their indices in the data; None for 0, 1, ..."""
        return None


def check_labels(sets: Mapping[str, Labelled], classes: int) -> None:
    """Raise UsageError unless each set has images, and each image has a label from 0 to classes - 1."""
    for kind, (images, labels) in sets.items():
        if len(images) != len(labels):
            raise UsageError(f"{len(images):,} {kind} images but {len(labels):,} labels")
        if not len(images):
            raise UsageError(f"the {kind} set is empty")
        for label in (labels.min(), labels.max()):
            if not 0 <= label < classes:
                raise UsageError(f"invalid label {label} in the {kind} set; must be from 0 to {classes - 1}")
