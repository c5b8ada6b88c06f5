"""A user's own images: read once, split, and verified by the checksum that the run recorded."""

import hashlib
import os
import random
from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from rich.progress import track

from mnist_lab.console import PlainConsole
from mnist_lab.data.array_files import Labelled, read_npz, read_pixels
from mnist_lab.data.image_source import Arrays, ImageSource, check_labels
from mnist_lab.data.images import UnreadableImage, border_brightness, fit_image, image_suffixes, open_image
from mnist_lab.errors import UsageError
from mnist_lab.formatting import natural_key

MAX_CLASSES = 1000


@dataclass(frozen=True, kw_only=True)
class OwnImages(ImageSource):
    """A data set on the user's disk. A run records the settings that are None once the data are read.

    Args:
        path: the file or folder.
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

    @property
    def _path(self) -> Path:
        return Path(self.path).expanduser().absolute()

    _last: ClassVar[dict[Hashable, tuple[Arrays, list[str], str]]] = {}  # of `_read`, by settings and files

    def load(self, root: str | os.PathLike[str] | None = None, *, download: bool = True) -> Arrays:
        """Return the images and labels, split; raise UsageError if they cannot be read or have another checksum."""
        return self._read()[0]

    def read_settings(self) -> dict[str, Any]:
        """Return path, name, classes, background and sha256 of the data as they are now, or raise UsageError."""
        arrays, classes, checksum = self._read()
        return {
            "path": str(self._path),
            "name": self.name or self._path.stem,
            "classes": classes,
            "background": border_brightness(arrays.train_images) if self.background is None else self.background,
            "sha256": checksum,
        }

    @abstractmethod
    def _files(self) -> list[Path]:
        """Return the files that the data consist of."""

    @abstractmethod
    def _decode(self) -> tuple[list[Labelled], list[str]]:
        """Return the training set, the test set if it is kept apart, and the names of the classes."""

    def _checksum(self) -> str:
        """Return the SHA-256 sum of a file; for a folder, that of `sha256sum`'s lines for its files."""
        sums = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in self._files()}
        if self._path in sums:
            return sums[self._path]
        lines = sorted((path.relative_to(self._path).as_posix(), digest) for path, digest in sums.items())
        return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in lines).encode()).hexdigest()

    def _read(self) -> tuple[Arrays, list[str], str]:
        """Return images, class names and checksum; those of the data that were read last are kept."""
        try:
            files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self._files()]
            settings = (type(self), tuple(self.classes or ()), self.test_size, tuple(files))
            read = OwnImages._last.get(settings)
            checksum = read[2] if read else self._checksum()
            if self.sha256 not in (None, checksum):
                raise UsageError("the data have changed since they were recorded; restore them, or train a new run")
            if read is None:
                sets, classes = self._decode()
                check_labels(sets, len(classes))
                _check_classes(classes)
                read = (self._split(sets, classes), classes, checksum)
                OwnImages._last = {settings: read}
            return read
        except OSError as error:
            reason = f"{error.filename or self.path}: cannot be read ({error.strerror})"
            raise UsageError(f"data.source.path={self.path}: {reason}") from error
        except UsageError as error:
            raise UsageError(f"data.source.path={self.path}: {error}") from error

    def _split(self, sets: list[Labelled], classes: list[str]) -> Arrays:
        """Split off the test set, a share of each class, unless the data keep one apart."""
        images, labels = sets[0]
        if len(sets) > 1:
            return Arrays(images, labels, *sets[1])
        generator = np.random.default_rng(0)
        is_test = np.zeros(len(labels), bool)
        for label in np.unique(labels):
            members = generator.permutation((labels == label).nonzero()[0])
            if len(members) < 2:
                raise UsageError(f"class {classes[label]} has one image; two are needed, for training and for test")
            chosen = min(max(round(self.test_size * len(members)), 1), len(members) - 1)
            is_test[members[:chosen]] = True
        return Arrays(images[~is_test], labels[~is_test], images[is_test], labels[is_test])


class ImageFolder(OwnImages):
    """A folder, or one named train and one named test, with a folder of images for each class.

    Images of any size, grey or in colour, become grey ones of 28x28 pixels, as `images.fit_image` makes them.
    """

    def _files(self) -> list[Path]:
        return [path for files in self._sets().values() for paths in files.values() for path in paths]

    def _decode(self) -> tuple[list[Labelled], list[str]]:
        sets = self._sets()
        classes = list(self.classes or sets["train"])
        for name, files in sets.items():
            if unknown := [each for each in files if each not in classes]:
                raise UsageError(f"class {unknown[0]} of the {name} set is not one of {', '.join(classes)}")
        return [_read_images(files, classes) for files in sets.values()], classes

    def _sets(self) -> dict[str, dict[str, list[Path]]]:
        """Return the image files of each class, of the training set and, if it is kept apart, of the test set."""
        if not self._path.is_dir():
            raise UsageError("not a folder" if self._path.exists() else "folder not found")
        apart = {name: self._path / name for name in ("train", "test")}
        folders = apart if all(folder.is_dir() for folder in apart.values()) else {"train": self._path}
        return {name: _class_files(folder) for name, folder in folders.items()}


class ArrayFile(OwnImages):
    """A .npz file of images and labels, or a CSV such as Kaggle's train.csv.

    - .npz: images (N, H, W), (N, H, W, 3) or (N, H * W), bytes or floats from 0 to 1, and labels (N,), integers from 0
      or names. The names of the arrays are one of `array_files.NAMES`; an array `classes` may name the classes.
    - .csv: a column named label, and 784 of pixels from 0 to 255.
    """

    def _files(self) -> list[Path]:
        if not self._path.is_file():
            raise UsageError("not a file" if self._path.exists() else "file not found")
        return [self._path]

    def _decode(self) -> tuple[list[Labelled], list[str]]:
        classes = list(self.classes or [])
        if self._path.suffix.lower() != ".csv":
            sets, classes = read_npz(self._path, classes)
        else:
            images, labels = read_pixels(self._path, max_label=255)
            if labels is None:
                raise UsageError("has no column named label")
            sets = [(images, labels.astype(np.int64))]
        largest = max((int(labels.max()) for _, labels in sets if len(labels)), default=0)
        return sets, classes or [str(number) for number in range(min(largest + 1, MAX_CLASSES))]


def _check_classes(classes: list[str]) -> None:
    """Raise UsageError unless these can be the names of a data set's classes."""
    if len(classes) < 2:
        raise UsageError(f"has one class, {classes[0]}; two or more are needed")
    if len(classes) > MAX_CLASSES:
        raise UsageError(f"has {len(classes):,} classes; at most {MAX_CLASSES:,} are possible")
    for name in classes:
        if not name.strip() or not name.isprintable():
            raise UsageError(f"class name {name!r} is empty or holds control characters; rename it")
        if classes.count(name) > 1:
            raise UsageError(f"class name {name} occurs twice; rename one")


def _class_files(folder: Path) -> dict[str, list[Path]]:
    """Return the image files of each class."""
    folders = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))]
    if not folders:
        raise UsageError("contains no folders of images; a folder for each class is needed, such as cat/1.png")
    suffixes = image_suffixes()
    found = {}
    for each in sorted(folders, key=lambda path: natural_key(path.name)):
        files = (path for path in each.rglob("*") if path.suffix.lower() in suffixes and path.name[0] != ".")
        found[each.name] = sorted(path for path in files if path.is_file())
        if not found[each.name]:
            raise UsageError(f"{each} contains no images ({' '.join(sorted(suffixes))})")
    return found


def _read_images(files: dict[str, list[Path]], classes: list[str]) -> Labelled:
    """Return images, (N, 28, 28) bytes, and labels, (N,), the classes mixed."""
    labelled = [(path, classes.index(name)) for name, paths in files.items() for path in paths]
    random.Random(0).shuffle(labelled)
    images, console = [], PlainConsole(stderr=True)
    for path, _ in track(labelled, "reading images", console=console, transient=True, disable=not console.is_terminal):
        try:
            images.append(fit_image(open_image(path)))
        except UnreadableImage as error:
            raise UsageError(f"{path}: {error}; remove or replace it") from error
    return np.stack(images), np.array([label for _, label in labelled])
