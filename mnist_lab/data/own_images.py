"""A user's own images: read once, checked, split, and verified by the checksum that the run recorded.

Each kind of data is a subclass of `OwnImages`, in a file of its own, that lists the files and decodes them.
"""

import hashlib
import os
from abc import abstractmethod
from collections.abc import Collection, Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import BeforeValidator, Field

from mnist_lab.data.image_source import MAX_CLASSES, Arrays, ImageSource, Labelled, check_labels
from mnist_lab.data.images import border_brightness
from mnist_lab.errors import UsageError
from mnist_lab.formatting import shorten

ClassName = Annotated[str, BeforeValidator(lambda name: str(name) if type(name) is int else name)]

MIN_CONTRAST = 20  # Most images must have this difference between brightest and darkest pixel, of 255.


class Decoded(NamedTuple):
    """Data as a subclass decodes them."""

    sets: dict[str, Labelled]  # "training", and "validation" and "test" if the data keep them apart
    classes: list[str]
    notes: list[str]  # a description of the images, then what was left out
    files: dict[str, list[str]] | None = None  # the file of each image, if each has its own


class _Prepared(NamedTuple):
    """Data that are checked and split."""

    arrays: Arrays
    settings: dict[str, Any]  # A run records them.
    notes: list[str]
    names: tuple[np.ndarray, np.ndarray]  # Training images come first, then test images.


@dataclass(frozen=True, kw_only=True)
class OwnImages(ImageSource):
    """A data set on the user's disk. A run records the settings that are None once the data are read.

    Args:
        path: the file or folder.
        test_size: share of each class's images that become the test set, where the data do not keep one apart.
        validation: number of images of the data's own validation set, which is used in place of a share of the others.
        name: for titles; None for that of the file or folder.
        classes: the names of the classes; None for those found in the data.
        background: brightness of the images' edges, from 0 to 255; None for that of the training images.
        sha256: checksum of the data; data with another one are refused.
    """

    path: str
    test_size: Annotated[float, Field(gt=0, lt=1)] = 0.2
    validation: Annotated[int, Field(ge=0)] | None = None
    name: str | None = None
    classes: list[ClassName] | None = None
    background: Annotated[int, Field(ge=0, le=255)] | None = None
    sha256: str | None = None

    # The data that were read last, by settings and files: a process makes several sources of the same data.
    _last: ClassVar[dict[Hashable, _Prepared]] = {}

    def __post_init__(self) -> None:
        """Make names of numbers: the command line has no quotes around them."""
        if self.classes:
            object.__setattr__(self, "classes", [*map(str, self.classes)])

    @property
    def _path(self) -> Path:
        return Path(self.path).expanduser().absolute()

    def load(self, root: str | os.PathLike[str] | None = None, *, download: bool = True) -> Arrays:
        """Return the images and labels, split; raise UsageError if they cannot be read or have another checksum."""
        return self._read().arrays

    def read_settings(self) -> dict[str, Any]:
        """Return path, name, classes and so on of the data as they are now, or raise UsageError."""
        settings = self._read().settings | {"path": str(self._path), "name": self.name or self._path.stem}
        return settings if self.background is None else settings | {"background": self.background}

    def notes(self) -> list[str]:
        """Return sizes and values of the images, then what was left out."""
        return self._read().notes

    def image_names(self) -> tuple[np.ndarray, np.ndarray]:
        return self._read().names

    @abstractmethod
    def _files(self) -> list[Path]:
        """Return the files that the data consist of."""

    @abstractmethod
    def _decode(self) -> Decoded:
        """Return the sets with images as (N, 28, 28) bytes, the classes and the notes."""

    def _read(self) -> _Prepared:
        """Return the data; turn every failure into a UsageError that names the path."""
        if not self.path:
            raise UsageError("data.source.path: required; name the file or folder of your data")
        try:
            return self._read_files(self._files())
        except OSError as error:
            reason = f"{error.filename or self.path}: cannot be read ({error.strerror})"
            raise UsageError(f"data.source.path={self.path}: {reason}") from error
        except UsageError as error:
            is_recorded = self.sha256 is not None and not self._path.exists()
            hint = "; if the data have moved, make a link to them here" * is_recorded
            raise UsageError(f"data.source.path={self.path}: {error}{hint}") from error

    def _read_files(self, files: list[Path]) -> _Prepared:
        """Return the data in files, which are decoded unless they were read last; refuse data other than recorded."""
        versions = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
        key = (repr(replace(self, path="", name=None, validation=None, background=None, sha256=None)), versions)
        prepared = OwnImages._last.get(key)
        checksum = prepared.settings["sha256"] if prepared else self._checksum(files)
        if self.sha256 not in (None, checksum):
            raise UsageError("the data have changed since they were recorded; restore them, or train a new run")
        if prepared is None:
            prepared = self._prepare(checksum)
            OwnImages._last = {key: prepared}
        validation = prepared.settings["validation"]
        if self.validation not in (None, validation):
            raise UsageError(f"has {validation:,} images for validation, not {self.validation}; leave validation out")
        return prepared

    def _checksum(self, files: list[Path]) -> str:
        """Return the SHA-256 sum of a file; for a folder, that of `sha256sum`'s lines for its files."""
        sums = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        if self._path in sums:
            return sums[self._path]
        lines = sorted((path.relative_to(self._path).as_posix(), digest) for path, digest in sums.items())
        return hashlib.sha256(os.fsencode("".join(f"{digest}  {name}\n" for name, digest in lines))).hexdigest()

    def _prepare(self, checksum: str) -> _Prepared:
        """Decode the data, check them, and put a validation set at the end of the training set."""
        sets, classes, notes, files = self._decode()
        check_labels(sets, len(classes))
        _check_classes(classes)
        for kind, (images, _) in sets.items():
            _check_contrast(images, kind)
        names = {kind: files[kind] if files else range(len(labels)) for kind, (_, labels) in sets.items()}
        parts = {kind: [*labelled, np.array(names[kind], object)] for kind, labelled in sets.items()}
        if "test" not in parts:
            is_test = self._choose_test_images(sets["training"][1], classes)
            parts["test"] = [array[is_test] for array in parts["training"]]
            parts["training"] = [array[~is_test] for array in parts["training"]]
        validation = len(sets["validation"][1]) if "validation" in sets else 0
        if validation:
            both = zip(parts["training"], parts["validation"], strict=True)
            parts["training"] = [np.concatenate(arrays) for arrays in both]
            notes = [*notes, "the data have a validation set of their own; data.val_size=0 leaves it out"]
        images, labels, train_names = parts["training"]
        test_images, test_labels, test_names = parts["test"]
        background = border_brightness(images)
        settings = {"validation": validation, "classes": classes, "background": background, "sha256": checksum}
        return _Prepared(Arrays(images, labels, test_images, test_labels), settings, notes, (train_names, test_names))

    def _choose_test_images(self, labels: np.ndarray, classes: list[str]) -> np.ndarray:
        """Return a mask, (N,), of the images that become the test set, a share of each class."""
        generator = np.random.default_rng(0)
        is_test = np.zeros(len(labels), bool)
        for label in np.unique(labels):
            members = generator.permutation((labels == label).nonzero()[0])
            if len(members) < 2:
                raise UsageError(f"class {classes[label]} has one image; two are needed, for training and for test")
            count = min(max(round(self.test_size * len(members)), 1), len(members) - 1)
            is_test[members[:count]] = True
        return is_test


def _check_contrast(images: np.ndarray, kind: str) -> None:
    """Raise UsageError for images, (N, 28, 28) bytes, in which a network would see next to nothing."""
    brightest, darkest = np.percentile(images.max((1, 2)), 90), np.percentile(images.min((1, 2)), 10)
    if brightest - darkest < MIN_CONTRAST:
        shades = f"shades from {darkest:.0f} to {brightest:.0f} of 255"
        raise UsageError(f"the {kind} images are almost blank, most with {shades}; use the whole range of values")


def _check_classes(classes: list[str]) -> None:
    """Raise UsageError unless these can be the names of a data set's classes."""
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise UsageError(f"the number of classes is {len(classes):,}; must be from 2 to {MAX_CLASSES:,}")
    for name in classes:
        if not name.strip() or not name.isprintable() or "${" in name:
            raise UsageError(f"class name {name!r} is empty, or holds control characters or ${{; rename it")
        if classes.count(name) > 1:
            raise UsageError(f"class name {name} occurs twice; rename one")


def describe_images(sizes: Collection[tuple[int, ...]], values: tuple[float, float], scale: tuple[float, float]) -> str:
    """Describe images by their smallest and largest size, (width, height), their range of values, and its scale."""
    smallest, largest = (f"{width} x {height}" for width, height in (min(sizes), max(sizes)))
    sizes_described = smallest if smallest == largest else f"{smallest} to {largest}"
    lowest, highest = values
    black, white = scale
    return f"{sizes_described} pixels, values {lowest:g} to {highest:g} (black {black:g}, white {white:g})"


def describe_left_out(reason: str, names: list[str]) -> str:
    """Describe the files or arrays that were not read."""
    return f"left out because {reason}: {len(names):,} ({shorten(', '.join(names))})"
