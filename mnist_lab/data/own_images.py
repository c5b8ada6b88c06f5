"""A user's own images, in a folder or a file: read once, split, and verified by the checksum that the run recorded."""

import csv
import hashlib
import os
import random
import warnings
from abc import abstractmethod
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field
from rich.progress import track

from mnist_lab.console import PlainConsole
from mnist_lab.data.image_source import MAX_CLASSES, SPLITS, Arrays, ImageSource, check_labels, split_of
from mnist_lab.data.images import (
    SIDE,
    PixelBudget,
    UnreadableImage,
    border_brightness,
    fit_image,
    fit_pixels,
    image_suffixes,
    open_image,
)
from mnist_lab.errors import UsageError
from mnist_lab.formatting import natural_key, shorten

Labelled = tuple[np.ndarray, np.ndarray]  # images and their labels (N,)
Decoded = tuple[dict[str, Labelled], list[str], list[str]]  # sets by name, names of the classes, notes
Range = tuple[float, float]  # lowest and highest value

MIN_CONTRAST = 20  # Most images must have this difference between brightest and darkest pixel, of 255.
# Folders that systems and programs make, beside those whose names begin with a dot.
TOOL_FOLDERS = {"__macosx", "__pycache__", "@eadir", "@recycle", "#recycle", "$recycle.bin", "lost+found"}
KINDS = {"images": 0, "x": 0, "labels": 1, "y": 1}  # words of an array's name: 0 for images, 1 for labels
SCALES = ((0, 1), (-0.5, 0.5), (-1, 1), (0, 16), (0, 255), (-128, 127), (0, 1023), (0, 4095), (0, 65535))
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # Weights of red, green and blue (ITU-R BT.601).
SMALL_FILE, MAX_EXPANSION = 10_000_000, 50  # Arrays take up to 50 bytes for each byte of a file, or of a small one.
COPIES = 40  # Labels that are texts are copied, from bytes to characters and into sets.
PIXELS = SIDE * SIDE


class _Read(NamedTuple):
    """Data as they were read."""

    arrays: Arrays
    settings: dict[str, Any]  # as a run records them
    notes: list[str]


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

    _last: ClassVar[dict[Hashable, _Read]] = {}  # what `_read` returned last, by settings and files

    @property
    def _path(self) -> Path:
        return Path(self.path).expanduser().absolute()

    def load(self, root: str | os.PathLike[str] | None = None, *, download: bool = True) -> Arrays:
        """Return the images and labels, split; raise UsageError if they cannot be read or have another checksum."""
        return self._read().arrays

    def read_settings(self) -> dict[str, Any]:
        """Return path, name, classes and so on of the data as they are now, or raise UsageError."""
        given = {"background": self.background} if self.background is not None else {}
        return self._read().settings | {"path": str(self._path), "name": self.name or self._path.stem} | given

    def notes(self) -> list[str]:
        """Return sizes and values of the images, then what was left out."""
        return self._read().notes

    @abstractmethod
    def _files(self) -> list[Path]:
        """Return the files that the data consist of."""

    @abstractmethod
    def _decode(self) -> Decoded:
        """Return the training set, and the validation and test set if they are kept apart, with classes and notes."""

    def _checksum(self, files: list[Path]) -> str:
        """Return the SHA-256 sum of a file; for a folder, that of `sha256sum`'s lines for its files."""
        sums = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        if self._path in sums:
            return sums[self._path]
        lines = sorted((path.relative_to(self._path).as_posix(), digest) for path, digest in sums.items())
        return hashlib.sha256(os.fsencode("".join(f"{digest}  {name}\n" for name, digest in lines))).hexdigest()

    def _read(self) -> _Read:
        """Return the data; those that were read last are kept."""
        if not self.path:
            raise UsageError("data.source.path: required; name the file or folder of your data")
        try:
            files = self._files()
            versions = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
            key = (type(self), tuple(self.classes or ()), self.test_size, versions)
            read = OwnImages._last.get(key)
            checksum = read.settings["sha256"] if read else self._checksum(files)
            if self.sha256 not in (None, checksum):
                raise UsageError("the data have changed since they were recorded; restore them, or train a new run")
            if read is None:
                read = self._prepare(checksum)
                OwnImages._last = {key: read}
            if self.validation not in (None, found := read.settings["validation"]):
                raise UsageError(f"has {found:,} images for validation, not {self.validation}; leave validation out")
            return read
        except OSError as error:
            reason = f"{error.filename or self.path}: cannot be read ({error.strerror})"
            raise UsageError(f"data.source.path={self.path}: {reason}") from error
        except UsageError as error:
            raise UsageError(f"data.source.path={self.path}: {error}") from error

    def _prepare(self, checksum: str) -> _Read:
        """Decode the data, check them, and put a validation set at the end of the training set."""
        sets, classes, notes = self._decode()
        check_labels(sets, len(classes))
        _check_classes(classes)
        for kind, (images, _) in sets.items():
            _check_contrast(images, kind)
        if "test" not in sets:
            sets |= self._split(*sets["training"], classes)
        images, labels = sets["training"]
        validation = len(sets["validation"][1]) if "validation" in sets else 0
        if validation:
            images, labels = (np.concatenate(both) for both in zip((images, labels), sets["validation"], strict=True))
            notes.append("the validation set is the data's own; data.val_size=0 leaves it out")
        background = border_brightness(images)
        settings = {"validation": validation, "classes": classes, "background": background, "sha256": checksum}
        return _Read(Arrays(images, labels, *sets["test"]), settings, notes)

    def _split(self, images: np.ndarray, labels: np.ndarray, classes: list[str]) -> dict[str, Labelled]:
        """Split a test set off, with a share of each class."""
        generator = np.random.default_rng(0)
        is_test = np.zeros(len(labels), bool)
        for label in np.unique(labels):
            members = generator.permutation((labels == label).nonzero()[0])
            if len(members) < 2:
                raise UsageError(f"class {classes[label]} has one image; two are needed, for training and for test")
            chosen = min(max(round(self.test_size * len(members)), 1), len(members) - 1)
            is_test[members[:chosen]] = True
        return {"training": (images[~is_test], labels[~is_test]), "test": (images[is_test], labels[is_test])}


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


def _describe_images(sizes: set[tuple[int, ...]], found: Range, scale: Range) -> str:
    """Describe images by the smallest and the largest of their sizes, (width, height), and their values on a scale."""
    smallest_and_largest = dict.fromkeys(f"{width} x {height}" for width, height in (min(sizes), max(sizes)))
    values = f"values {found[0]:g} to {found[1]:g} ({scale[0]:g} is black, {scale[1]:g} is white)"
    return f"{' to '.join(smallest_and_largest)} pixels, {values}"


def _describe_left_out(reason: str, names: list[str]) -> str:
    return f"left out because {reason}: {len(names):,} ({shorten(', '.join(names))})"


class ImageFolder(OwnImages):
    """A folder with a folder of images for each class, or with such folders for train, test and val, or some of these.

    Images of any size, grey or in colour, become grey ones of 28x28 pixels, as `images.fit_image` makes them.
    """

    def _files(self) -> list[Path]:
        return [path for files in self._sets().values() for paths in files.values() for path in paths]

    def _decode(self) -> Decoded:
        sets = self._sets()
        classes = list(self.classes or sets["training"])
        for name, files in sets.items():
            if unknown := [each for each in files if each not in classes]:
                raise UsageError(f"class {unknown[0]} of the {name} set is not one of {shorten(', '.join(classes))}")
        budget = PixelBudget()
        read = {name: _read_images(files, classes, budget) for name, files in sets.items()}
        low, high = min(images.min() for images, _ in read.values()), max(images.max() for images, _ in read.values())
        images = [path for files in sets.values() for paths in files.values() for path in paths]
        used = {each for path in images for each in (path, *path.parents)}
        found = [path for path in sorted(self._path.rglob("*")) if path.is_symlink() or not path.is_dir()]
        others = [path for path in found if path not in used]
        notes = [_describe_images(budget.sizes, (low, high), (0, 255))]
        for reason in dict.fromkeys(map(self._reason, others)):
            named = [path.relative_to(self._path).as_posix() for path in others if self._reason(path) == reason]
            notes.append(_describe_left_out(reason, named))
        return read, classes, notes

    def _reason(self, path: Path) -> str:
        """Return why a file or a link below the folder is not read."""
        first, *inner = path.relative_to(self._path).parts
        if any(map(_is_hidden, map(Path, (first, *inner)))):
            return "hidden"
        if path.is_symlink():
            return "a link"
        if path.suffix.lower() not in image_suffixes() or not path.is_file():
            return "not an image"
        return "not in a set's folder" if inner and not split_of(first) else "not in a class's folder"

    def _sets(self) -> dict[str, dict[str, list[Path]]]:
        """Return the image files of each class of each set."""
        if not self._path.is_dir():
            raise UsageError("not a folder; data=arrays reads a file" if self._path.exists() else "folder not found")
        folders = _folders(self._path)
        apart = [folder for folder in folders if split_of(folder.name)]
        sets = {split_of(folder.name): folder for folder in apart}
        if not apart or (len(apart) < len(folders) and not {"training"} < sets.keys()):
            return {"training": _class_files(self._path)}
        if "training" not in sets or len(apart) > len(sets):
            names = ", ".join(folder.name for folder in apart)
            raise UsageError(f"has the folders {names}; needed are one named train and at most one of val and of test")
        return {split: _class_files(sets[split]) for split in SPLITS if split in sets}


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, 2 before 10, without hidden ones, those of tools, and links to folders above."""
    found = [path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path)]
    inside = [path for path in found if not folder.resolve().is_relative_to(path.resolve())]
    return sorted(inside, key=lambda path: natural_key(path.name))


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in TOOL_FOLDERS


def _class_files(folder: Path) -> dict[str, list[Path]]:
    """Return the image files of each class of a set's folder."""
    found = {each.name: sorted(_image_files(each)) for each in _folders(folder)}
    if not found:
        raise UsageError(
            f"{folder} contains no folders of images; a folder for each class is needed, such as cat/1.png"
        )
    empty = [name for name, files in found.items() if not files]
    if empty and (len(empty) == len(found) or split_of(folder.name) in (None, "training")):
        raise UsageError(f"{folder / empty[0]} contains no images ({' '.join(sorted(image_suffixes()))})")
    return found


def _image_files(folder: Path) -> list[Path]:
    """Return the image files at any depth of a class's folder; links to folders are left out."""
    suffixes = image_suffixes()
    images = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file()]
    folders = _folders(folder)
    if any(split_of(path.name) for path in folders) or (folders and split_of(folder.name)):
        raise UsageError(f"{folder} mixes sets and classes; train, val and test hold a folder for each class")
    deeper = [each for path in folders if not path.is_symlink() for each in _image_files(path)]
    return [path for path in images if not _is_hidden(path)] + deeper


def _read_images(files: dict[str, list[Path]], classes: list[str], budget: PixelBudget) -> Labelled:
    """Return images, (N, 28, 28) bytes, and labels, (N,), the classes mixed."""
    labelled = [(path, classes.index(name)) for name, paths in files.items() for path in paths]
    random.Random(0).shuffle(labelled)
    images, console = [], PlainConsole(stderr=True)
    for path, _ in track(labelled, "reading images", console=console, transient=True, disable=not console.is_terminal):
        try:
            images.append(fit_image(open_image(path, budget)))
        except UnreadableImage as error:
            raise UsageError(f"{path}: {error}; remove or replace it") from error
    return np.stack(images), np.array([label for _, label in labelled])


class ArrayFile(OwnImages):
    """A .npz file of images and labels, or a CSV such as Kaggle's train.csv.

    - .npz: images (N, H, W), (N, H, W, 3) or (N, H * W), with values on one of SCALES, and labels (N,), integers from 0
      or names. The arrays are named images and labels, or x and y, also with train, val or test before or behind it; an
      array `classes` may name the classes.
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
            sets, classes, unused = _read_npz(self._path, classes)
        else:
            images, labels = read_pixels(self._path)
            if labels is None:
                raise UsageError("has no column named label")
            sets = {"training": (images, labels.astype(np.int64))}
        largest = max((int(labels.max()) for _, labels in sets.values() if len(labels)), default=0)
        scale, found = _find_scale(sets)
        described = _describe_images({images.shape[2:0:-1] for images, _ in sets.values()}, found, scale)
        converted = {name: (to_bytes(images, scale), labels) for name, (images, labels) in sets.items()}
        classes = classes or [str(number) for number in range(min(largest + 1, MAX_CLASSES))]
        left_out = [_describe_left_out("not needed", unused)] * bool(unused)
        return converted, classes, [described, *left_out]


def _read_npz(path: Path, classes: list[str]) -> tuple[dict[str, Labelled], list[str], list[str]]:
    """Return the sets of a .npz file, with images as in the file, the classes' names, if any, and the unused arrays."""
    most = MAX_EXPANSION * max(path.stat().st_size, SMALL_FILE)
    try:
        with path.open("rb") as opened:
            if isinstance(file := np.load(opened, allow_pickle=False), np.ndarray):
                raise UsageError("is one array; save images and labels together with numpy.savez")
            sets = _find_sets(file.files)
            used = {name for pair in sets.values() for name in pair.values()} | ({"classes"} & set(file.files))
            images = {pair[0] for pair in sets.values()}
            sizes = [(each.filename.removesuffix(".npy"), each.file_size) for each in file.zip.infolist()]
            _check_memory(sum(size * (1 if name in images else COPIES) for name, size in sizes if name in used), most)
            arrays = {name: np.asarray(file[name]) for name in used}
            texts = {name for name in used - images if arrays[name].dtype.kind == "S"}
            arrays |= {name: arrays[name].astype(str) for name in texts}
    except (OSError, UsageError):
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise anything for damaged files.
        reason = " ".join(str(error).split())[:100]
        raise UsageError(f"not a .npz or .csv file of images ({reason})") from error
    # Images and labels are converted, one image at a time if it is large.
    sizes_once_read = [2 * PIXELS * len(array) + 16 * array[:1].size for array in arrays.values() if array.ndim]
    _check_memory(sum(sizes_once_read), most)
    labels = [arrays[pair[1]] for pair in sets.values()]
    names = {str(label) for array in labels if array.dtype.kind == "U" for label in array.flat}
    classes = classes or [*map(str, np.ravel(arrays.get("classes", [])))] or sorted(names, key=natural_key)
    read = {
        split: (_as_images(pair[0], arrays[pair[0]]), _as_numbers(pair[1], arrays[pair[1]], classes))
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
    if array.dtype.kind not in "buif":
        raise UsageError(f"{name} holds {array.dtype}; bytes, or floats from 0 to 1, are needed")
    return array


def _as_numbers(name: str, array: np.ndarray, classes: list[str]) -> np.ndarray:
    """Return an array of labels as (N,) integers; a name becomes its place among the classes."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise UsageError(f"{name} has shape {array.shape}; (N,) is needed, the class of each image")
    if array.dtype.kind == "U":
        places = {each: place for place, each in enumerate(classes)}
        if unknown := set(map(str, array)) - set(places):
            known = shorten(", ".join(places))
            raise UsageError(f"{name} holds {shorten(min(unknown))}, which is not one of {known}")
        return np.array([places[str(each)] for each in array])
    if array.dtype.kind not in "buif" or not (array == array.round()).all():
        raise UsageError(f"{name} holds {array.dtype}; whole numbers from 0, or names, are needed")
    return array.astype(np.int64)


def fitting_scale(images: np.ndarray) -> tuple[Range, Range]:
    """Return the first scale that has all values of images, or (0, 0), and the range of these values."""
    low, high = float(images.min()), float(images.max())
    slack = 0.05 if images.dtype.kind == "f" else 0  # Images that were resized overshoot.
    for dark, bright in SCALES:
        if dark - slack * (bright - dark) <= low and high <= bright + slack * (bright - dark):
            return (dark, bright), (low, high)
    return (0, 0), (low, high)


def _find_scale(sets: Mapping[str, Labelled]) -> tuple[Range, Range]:
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
    pixels: list[np.ndarray] = []
    step = max(1, (1 << 24) // images[0].size)  # All at once would take several times their memory.
    for start in range(0, len(images), step):
        values = (images[start : start + step].astype(np.float32) - scale[0]) * np.float32(255 / (scale[1] - scale[0]))
        grey = values @ LUMINANCE if values.ndim == 4 else values
        pixels += map(fit_pixels, np.rint(grey).clip(0, 255).astype(np.uint8))
    return np.stack(pixels)


def read_pixels(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the images, (N, 28, 28) bytes, and the labels, (N,), if there are any, of a CSV with an image in a line.

    Labels are in the column named label or class or, without a line of names, in the first of 785 columns.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = [value.strip().lower() for value in next(csv.reader(file), [])]
        label_columns = [place for place, name in enumerate(first) if name in ("label", "class")]
        has_names = bool(label_columns) or not any(map(str.isdecimal, first))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy warns of a file without rows, and of values such as 0.5.
            settings: dict[str, Any] = {"encoding": "utf-8-sig", "comments": None, "quotechar": '"', "ndmin": 2}
            table = np.loadtxt(path, np.uint8, delimiter=",", skiprows=int(has_names), **settings)
    except (OSError, ValueError, csv.Error, Warning) as error:
        reason = getattr(error, "strerror", None) or str(error).replace("uint8", "a whole number from 0 to 255")
        raise UsageError(f"{path}: cannot be read ({shorten(reason, 200)})") from error
    if table.shape[1] == PIXELS and not label_columns:
        return table.reshape(-1, SIDE, SIDE), None
    if table.shape[1] != PIXELS + 1 or (has_names and not label_columns):
        needed = f"{PIXELS} of pixels are needed, and optionally one named label"
        raise UsageError(f"{path}: found {table.shape[1]} columns; {needed}")
    place = label_columns[0] if label_columns else 0
    return np.delete(table, place, axis=1).reshape(-1, SIDE, SIDE), table[:, place].copy()
