"""A user's own images: read once, split, and verified by the checksum that the run recorded."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from mnist_lab.data.image_source import Arrays, ImageSource
from mnist_lab.data.images import border_brightness
from mnist_lab.errors import UsageError

MAX_CLASSES = 1000
SPLIT_SEED = 0  # of the choice of the test images


class Labelled(NamedTuple):
    """Images (N, 28, 28), uint8, with labels (N,), int64, and the names of the classes."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray] | None  # None: not kept apart
    classes: list[str]


@dataclass(frozen=True, kw_only=True)
class OwnImages(ImageSource):
    """A data set on the user's disk.

    The last four settings are known once the data are read; a run records them in its configuration.

    Args:
        path: where it lies.
        test_size: share of each class's images that become the test set, where the data do not keep one apart.
        name: for titles; None for that of the file or folder.
        classes: the names of the classes; None for those found in the data.
        background: brightness of the images' edges, from 0 to 255; None for that of the training images.
        sha256: checksum of the data; data with another one are refused.
    """

    path: str
    test_size: Annotated[float, Field(gt=0, lt=1)] = 0.2
    name: str | None = None
    classes: list[str] | None = None
    background: Annotated[int, Field(ge=0, le=255)] | None = None
    sha256: str | None = None

    _last: ClassVar[tuple[Hashable, Any]] = (None, None)  # what was read last, and what was found

    def load(self, root: str | os.PathLike[str] | None = None, *, download: bool = True) -> Arrays:
        """Return the images and labels, split into training and test set.

        Raises:
            UsageError: the data cannot be read, or their checksum is not the recorded one.
        """
        return self._read()[0]

    def read_settings(self) -> dict[str, Any]:
        """Return path, name, classes, background and sha256 of the data as they are now.

        Raises:
            UsageError: the data cannot be read, or their checksum is not the recorded one.
        """
        arrays, classes, checksum = self._read()
        return {
            "path": str(self._path),
            "name": self.name or self._path.stem,
            "classes": classes,
            "background": border_brightness(arrays.train_images) if self.background is None else self.background,
            "sha256": checksum,
        }

    @property
    def _path(self) -> Path:
        return Path(self.path).expanduser().absolute()

    @abstractmethod
    def _files(self) -> list[Path]:
        """Return the files that the data consist of."""

    @abstractmethod
    def _checksum(self) -> str:
        """Return the SHA-256 sum of the data."""

    @abstractmethod
    def _decode(self) -> Labelled:
        """Return the images."""

    def _read(self) -> tuple[Arrays, list[str], str]:
        """Return images, class names and checksum; those of the data that were read last are kept."""
        try:
            files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self._files()]
            made_of = (type(self), tuple(self.classes or ()), self.test_size, tuple(files))
            if OwnImages._last[0] != made_of:
                checksum = self._checksum()
                self._verify(checksum)  # before the work
                labelled = self._decode()
                check_classes(labelled.classes, self.path)
                OwnImages._last = (made_of, (self._split(labelled), labelled.classes, checksum))
        except OSError as error:
            place = error.filename or self.path
            raise UsageError(f"data.source.path={self.path}: {place}: cannot be read ({error.strerror})") from error
        found: tuple[Arrays, list[str], str] = OwnImages._last[1]
        self._verify(found[2])
        return found

    def _verify(self, checksum: str) -> None:
        if self.sha256 not in (None, checksum):
            raise UsageError(
                f"data.source.path={self.path}: the data have changed since they were recorded (another SHA-256); "
                "restore them, or train a new run"
            )

    def _split(self, labelled: Labelled) -> Arrays:
        """Split off the test set, unless the data keep one apart."""
        images, labels = labelled.train
        if labelled.test is not None:
            return Arrays(images, labels, *labelled.test)
        counts = Counter(labels.tolist())
        if alone := [labelled.classes[label] for label, count in sorted(counts.items()) if count < 2]:
            raise UsageError(
                f"data.source.path={self.path}: class {alone[0]} has one image; two or more are needed, "
                "for training and for test"
            )
        random = np.random.default_rng(SPLIT_SEED)
        is_test = np.zeros(len(labels), bool)
        for label, count in sorted(counts.items()):
            chosen = min(max(round(self.test_size * count), 1), count - 1)
            is_test[random.permutation((labels == label).nonzero()[0])[:chosen]] = True
        return Arrays(images[~is_test], labels[~is_test], images[is_test], labels[is_test])


def check_classes(classes: list[str], path: str) -> None:
    """Raise UsageError unless these can be the names of a data set's classes."""
    where = f"data.source.path={path}"
    if len(classes) < 2:
        raise UsageError(f"{where}: has one class, {classes[0]}; two or more are needed")
    if len(classes) > MAX_CLASSES:
        raise UsageError(f"{where}: has {len(classes):,} classes; at most {MAX_CLASSES:,} are possible")
    for name, count in Counter(classes).items():
        if not name.strip() or not name.isprintable():
            raise UsageError(f"{where}: class name {name!r} is empty or holds control characters; rename it")
        if count > 1:
            raise UsageError(f"{where}: class name {name} occurs twice; rename one")
