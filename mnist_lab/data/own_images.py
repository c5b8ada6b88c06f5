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
from mnist_lab.data.array_files import Labelled, Range, find_scale, read_npz, read_pixels, to_bytes
from mnist_lab.data.image_source import MAX_CLASSES, SPLITS, Arrays, ImageSource, check_labels, split_of
from mnist_lab.data.images import UnreadableImage, border_brightness, fit_image, image_suffixes, open_image
from mnist_lab.errors import UsageError
from mnist_lab.formatting import natural_key, shorten

MIN_CONTRAST = 20  # Most images must have this difference between brightest and darkest pixel, of 255.
# Folders that systems and programs make, beside those whose names begin with a dot.
TOOL_FOLDERS = {"__macosx", "__pycache__", "@eadir", "@recycle", "#recycle", "$recycle.bin", "lost+found"}
NO_CLASS = "not in a class's folder"
LeftOut = dict[Path, str]  # why a file or folder is not read: because ...
Read = tuple[Arrays, list[str], str, list[str], int]  # data, classes, checksum, notes, validation images at the end
Decoded = tuple[dict[str, Labelled], list[str], list[str]]  # sets by name, names of the classes, notes


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
    classes: list[str] | None = None
    background: Annotated[int, Field(ge=0, le=255)] | None = None
    sha256: str | None = None

    @property
    def _path(self) -> Path:
        return Path(self.path).expanduser().absolute()

    _last: ClassVar[dict[Hashable, Read]] = {}  # of `_read`, by settings and files

    def load(self, root: str | os.PathLike[str] | None = None, *, download: bool = True) -> Arrays:
        """Return the images and labels, split; raise UsageError if they cannot be read or have another checksum."""
        return self._read()[0]

    def read_settings(self) -> dict[str, Any]:
        """Return path, name, classes and so on of the data as they are now, or raise UsageError."""
        arrays, classes, checksum, _, validation = self._read()
        return {
            "path": str(self._path),
            "name": self.name or self._path.stem,
            "validation": validation,
            "classes": classes,
            "background": border_brightness(arrays.train_images) if self.background is None else self.background,
            "sha256": checksum,
        }

    def notes(self) -> list[str]:
        """Return sizes and values of the images, then what was left out and why."""
        return self._read()[3]

    @abstractmethod
    def _files(self) -> list[Path]:
        """Return the files that the data consist of."""

    @abstractmethod
    def _decode(self) -> Decoded:
        """Return the training set, and the validation and test set if they are kept apart, with classes and notes."""

    def _checksum(self) -> str:
        """Return the SHA-256 sum of a file; for a folder, that of `sha256sum`'s lines for its files."""
        sums = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in self._files()}
        if self._path in sums:
            return sums[self._path]
        lines = sorted((path.relative_to(self._path).as_posix(), digest) for path, digest in sums.items())
        return hashlib.sha256(os.fsencode("".join(f"{digest}  {name}\n" for name, digest in lines))).hexdigest()

    def _read(self) -> Read:
        """Return images, class names, checksum and notes; those of the data that were read last are kept."""
        if not self.path:
            raise UsageError("data.source.path: required; name the file or folder of your data")
        try:
            files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self._files()]
            settings = (type(self), tuple(self.classes or ()), self.test_size, tuple(files))
            read = OwnImages._last.get(settings)
            checksum = read[2] if read else self._checksum()
            if self.sha256 not in (None, checksum):
                raise UsageError("the data have changed since they were recorded; restore them, or train a new run")
            if read is None:
                sets, classes, notes = self._decode()
                check_labels(sets, len(classes))
                _check_classes(classes)
                for kind, (images, _) in sets.items():
                    _check_contrast(images, kind)
                validation = len(sets["validation"][1]) if "validation" in sets else 0
                notes += ["the validation set is the data's own; data.val_size=0 leaves it out"] * bool(validation)
                read = (self._split(sets, classes), classes, checksum, notes, validation)
                OwnImages._last = {settings: read}
            if self.validation not in (None, read[4]):
                raise UsageError(f"has {read[4]:,} images for validation, not {self.validation}; leave validation out")
            return read
        except OSError as error:
            reason = f"{error.filename or self.path}: cannot be read ({error.strerror})"
            raise UsageError(f"data.source.path={self.path}: {reason}") from error
        except UsageError as error:
            raise UsageError(f"data.source.path={self.path}: {error}") from error

    def _split(self, sets: dict[str, Labelled], classes: list[str]) -> Arrays:
        """Return the sets, that for validation at the end of the training set, and a test set in any case."""
        images, labels = sets["training"]
        if "test" not in sets:
            generator = np.random.default_rng(0)
            is_test = np.zeros(len(labels), bool)
            for label in np.unique(labels):
                members = generator.permutation((labels == label).nonzero()[0])
                if len(members) < 2:
                    raise UsageError(f"class {classes[label]} has one image; two are needed, for training and for test")
                chosen = min(max(round(self.test_size * len(members)), 1), len(members) - 1)
                is_test[members[:chosen]] = True
            sets = sets | {"test": (images[is_test], labels[is_test])}
            images, labels = images[~is_test], labels[~is_test]
        if "validation" in sets:
            images, labels = (np.concatenate(both) for both in zip((images, labels), sets["validation"], strict=True))
        return Arrays(images, labels, *sets["test"])


class ImageFolder(OwnImages):
    """A folder with a folder of images for each class, or with such folders for train, test and val, or some of these.

    Images of any size, grey or in colour, become grey ones of 28x28 pixels, as `images.fit_image` makes them.
    """

    def _files(self) -> list[Path]:
        return [path for files in self._sets({}).values() for paths in files.values() for path in paths]

    def _decode(self) -> Decoded:
        left_out: LeftOut = {}
        sets = self._sets(left_out)
        classes = list(self.classes or sets["training"])
        for name, files in sets.items():
            if unknown := [each for each in files if each not in classes]:
                raise UsageError(f"class {unknown[0]} of the {name} set is not one of {', '.join(classes)}")
        sizes: set[tuple[int, ...]] = set()
        read = {name: _read_images(files, classes, sizes) for name, files in sets.items()}
        low, high = min(images.min() for images, _ in read.values()), max(images.max() for images, _ in read.values())
        notes = [_describe_images(sizes, (low, high), (0, 255))]
        for reason in dict.fromkeys(left_out.values()):
            paths = (path.relative_to(self._path) for path in left_out if left_out[path] == reason)
            notes.append(_describe_left_out(reason, [path.as_posix() for path in paths]))
        return read, classes, notes

    def _sets(self, left_out: LeftOut) -> dict[str, dict[str, list[Path]]]:
        """Return the image files of each class of each set, and add what is left out to left_out."""
        if not self._path.is_dir():
            raise UsageError("not a folder; data=arrays reads a file" if self._path.exists() else "folder not found")
        folders, images = _entries(self._path, left_out)
        left_out |= dict.fromkeys(images, NO_CLASS)
        apart = [folder for folder in folders if split_of(folder.name)]
        sets = {split_of(folder.name) or "": folder for folder in apart}
        if not apart or (len(apart) < len(folders) and not {"training"} < sets.keys()):
            return {"training": _class_files(self._path, left_out)}
        if "training" not in sets or len(apart) > len(sets):
            names = ", ".join(folder.name for folder in apart)
            raise UsageError(f"has the folders {names}; needed are one named train and at most one of val and of test")
        left_out |= {folder: "not a set's folder" for folder in folders if folder not in apart}
        return {split: _class_files(sets[split], left_out) for split in SPLITS if split in sets}


class ArrayFile(OwnImages):
    """A .npz file of images and labels, or a CSV such as Kaggle's train.csv.

    - .npz: images (N, H, W), (N, H, W, 3) or (N, H * W), with values on one of `array_files.SCALES`, and labels (N,),
      integers from 0 or names. The arrays are named images and labels, or x and y, also with train, val or test before
      or behind it; an array `classes` may name the classes.
    - .csv: a column named label, and 784 of pixels from 0 to 255.
    """

    def _files(self) -> list[Path]:
        if not self._path.is_file():
            raise UsageError(
                "not a file; data=image_folder reads a folder" if self._path.exists() else "file not found"
            )
        return [self._path]

    def _decode(self) -> Decoded:
        classes, unused = list(self.classes or []), list[str]()
        if self._path.suffix.lower() != ".csv":
            sets, classes, unused = read_npz(self._path, classes)
        else:
            images, labels = read_pixels(self._path, max_label=255)
            if labels is None:
                raise UsageError("has no column named label")
            sets = {"training": (images, labels.astype(np.int64))}
        largest = max((int(labels.max()) for _, labels in sets.values() if len(labels)), default=0)
        scale, found = find_scale(sets)
        notes = [_describe_images({images.shape[2:0:-1] for images, _ in sets.values()}, found, scale)]
        notes += [_describe_left_out("not needed", unused)] * bool(unused)
        converted = {name: (to_bytes(images, scale), labels) for name, (images, labels) in sets.items()}
        return converted, classes or [str(number) for number in range(min(largest + 1, MAX_CLASSES))], notes


def _describe_images(sizes: set[tuple[int, ...]], found: Range, scale: Range) -> str:
    """Describe images by the smallest and the largest of their sizes, (width, height), and their values on a scale."""
    smallest_and_largest = dict.fromkeys(f"{width} x {height}" for width, height in (min(sizes), max(sizes)))
    values = f"values {found[0]:g} to {found[1]:g} ({scale[0]:g} is black, {scale[1]:g} is white)"
    return f"{' to '.join(smallest_and_largest)} pixels, {values}"


def _describe_left_out(reason: str, names: list[str]) -> str:
    return f"left out because {reason}: {len(names):,} ({shorten(', '.join(names))})"


def _check_contrast(images: np.ndarray, kind: str) -> None:
    """Raise UsageError for images, (N, 28, 28) bytes, in which a network would see next to nothing."""
    brightest, darkest = np.percentile(images.max((1, 2)), 90), np.percentile(images.min((1, 2)), 10)
    if brightest - darkest < MIN_CONTRAST:
        shades = f"shades from {darkest:.0f} to {brightest:.0f} of 255"
        raise UsageError(f"the {kind} images are almost blank, most with {shades}; use the whole range of values")


def _check_classes(classes: list[str]) -> None:
    """Raise UsageError unless these can be the names of a data set's classes."""
    if len(classes) < 2:
        raise UsageError(f"has one class, {classes[0]}; two or more are needed")
    if len(classes) > MAX_CLASSES:
        raise UsageError(f"has {len(classes):,} classes; at most {MAX_CLASSES:,} are possible")
    for name in classes:
        if not name.strip() or not name.isprintable():
            raise UsageError(f"class name {name!r} is empty or holds control characters; rename it")
        if "${" in name:
            raise UsageError(f"class name {name} holds ${{, which a configuration would resolve; rename it")
        if classes.count(name) > 1:
            raise UsageError(f"class name {name} occurs twice; rename one")


def _class_files(folder: Path, left_out: LeftOut) -> dict[str, list[Path]]:
    """Return the image files of each class of a set's folder."""
    folders, images = _entries(folder, left_out)
    left_out |= dict.fromkeys(images, NO_CLASS)
    if not folders:
        raise UsageError(
            f"{folder} contains no folders of images; a folder for each class is needed, such as cat/1.png"
        )
    ordered = sorted(folders, key=lambda path: natural_key(path.name))
    found = {each.name: _image_files(each, left_out) for each in ordered}
    empty = [name for name, files in found.items() if not files]
    if empty and (len(empty) == len(found) or split_of(folder.name) in (None, "training")):
        raise UsageError(f"{folder / empty[0]} contains no images ({' '.join(sorted(image_suffixes()))})")
    return found


def _image_files(folder: Path, left_out: LeftOut) -> list[Path]:
    """Return the image files at any depth of a class's folder."""
    found, pending = [], [folder]
    while pending:
        folders, images = _entries(pending.pop(), left_out)
        if any(split_of(path.name) for path in folders) or (folders and split_of(folder.name)):
            raise UsageError(f"{folder} mixes sets and classes; train, val and test hold a folder for each class")
        left_out |= {path: "a link" for path in folders if path.is_symlink()}
        found += images
        pending += [path for path in folders if path not in left_out]
    return sorted(found)


def _entries(folder: Path, left_out: LeftOut) -> tuple[list[Path], list[Path]]:
    """Return the folders and the image files in a folder, without those that are hidden or that tools make."""
    folders, images, suffixes = [], [], image_suffixes()
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name.lower() in TOOL_FOLDERS:
            left_out[path] = "hidden"
        elif path.suffix.lower() in suffixes and path.is_file():
            images.append(path)
        elif path.is_dir() and not folder.resolve().is_relative_to(path.resolve()):  # a link to a folder above it
            folders.append(path)
        else:
            left_out[path] = "not an image"
    return folders, images


def _read_images(files: dict[str, list[Path]], classes: list[str], sizes: set[tuple[int, ...]]) -> Labelled:
    """Return images, (N, 28, 28) bytes, and labels, (N,), the classes mixed; add the files' sizes to sizes."""
    labelled = [(path, classes.index(name)) for name, paths in files.items() for path in paths]
    random.Random(0).shuffle(labelled)
    images, console = [], PlainConsole(stderr=True)
    for path, _ in track(labelled, "reading images", console=console, transient=True, disable=not console.is_terminal):
        try:
            image = open_image(path)
            sizes.add(image.info["size"])
            images.append(fit_image(image))
        except UnreadableImage as error:
            raise UsageError(f"{path}: {error}; remove or replace it") from error
    return np.stack(images), np.array([label for _, label in labelled])
