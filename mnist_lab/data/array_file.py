"""Files of arrays, such as .npz or .csv, with images and their labels."""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mnist_lab.data.image_source import MAX_CLASSES, Labelled, split_name
from mnist_lab.data.images import SIDE
from mnist_lab.data.own_images import Decoded, OwnImages, describe_images, describe_left_out
from mnist_lab.data.pixel_csv import check_memory, read_table
from mnist_lab.data.pixel_values import find_common_scale, find_range, to_bytes
from mnist_lab.data.stored_arrays import StoredArray, find_files, list_arrays, list_members
from mnist_lab.errors import UsageError
from mnist_lab.formatting import natural_key, shorten

# A word in an array's name says what it holds.
KINDS = {"images": "images", "x": "images", "labels": "labels", "y": "labels"}
# The orders of axes that are tried, by their number: N images, H rows, W columns, C colours.
ORDERS = {2: ("NHW", "HWN", "NHWC", "NCHW"), 3: ("NHW", "HWN"), 4: ("NHWC", "NCHW", "HWCN")}
FLAT_MATLAB_ORDERS = ("NHW", "NWH", "HWN", "WHN")  # MATLAB puts columns below each other, and other programs rows.
MAX_EXPANSION = 50  # Arrays may take this many bytes for each byte of their files.
SMALL_FILE = 10_000_000  # A smaller file may have arrays as large as those of a file of this size.
COPIES = 40  # Labels that are texts are copied, from bytes to characters and into sets.

_Pair = dict[str, str]  # the names of a set's arrays, "images" and "labels"


@dataclass(frozen=True, kw_only=True)
class ArrayFile(OwnImages):
    """A file, or a folder of files, with arrays of images and labels: .npz, .npy, .mat, or a CSV such as Kaggle's.

    - Images are (N, H, W), (N, H * W), with colours (N, H, W, 3) or (N, 3, H, W), or in another order of axes that the
      number of labels tells; values are on one of pixel_values.SCALES. Labels are (N,) integers or names, or one-hot.
    - Arrays are named images and labels, or x and y, with train, val or test before or after it if there are several
      sets; an array `classes` may name the classes.
    - A CSV has a column of labels and one for each pixel.

    Args:
        images: the name of the array of images; None to find it.
        labels: the name of the array or column of labels, or first or last for such a column; None to find it.
        axes: the order of the images' axes, N images, H rows, W columns and C colours; None to find it.
    """

    images: str | None = None
    labels: str | int | None = None
    axes: Literal["NHW", "NWH", "HWN", "WHN", "NHWC", "NCHW", "NCWH", "HWCN", "WHCN"] | None = None

    def _files(self) -> list[Path]:
        return find_files(self._path)

    def _decode(self) -> Decoded:
        files = self._files()
        max_bytes = _max_bytes(files)
        with _explain():
            stored, unread = list_arrays(files, self._label, max_bytes)
            pairs = _find_sets(stored, {"images": self.images, "labels": self._label})
            arrays = _load_arrays(stored, pairs.values(), max_bytes)
        unread += [name for name in stored if name not in arrays]
        classes = self.classes or [str(name).strip() for name in arrays.get("classes", np.array([])).astype(str).flat]
        labels, classes = _number(
            {split: _to_labels(pair["labels"], arrays[pair["labels"]]) for split, pair in pairs.items()}, classes
        )
        sets: dict[str, Labelled] = {}
        for split, pair in pairs.items():
            name, count = pair["images"], len(labels[split])
            images = self._to_images(name, arrays[name], count, is_matlab=stored[name].is_matlab)
            # The 28x28 bytes of all images are held twice, and one image at a time becomes floats, however large it is.
            check_memory(2 * SIDE * SIDE * count + 16 * images[:1].size, max_bytes)
            sets[split] = images, labels[split]
        scale = find_common_scale(sets)
        sizes = {(images.shape[2], images.shape[1]) for images, _ in sets.values()}
        ranges = [find_range(images) for images, _ in sets.values()]
        values = min(lowest for lowest, _ in ranges), max(highest for _, highest in ranges)
        notes = [describe_images(sizes, values, scale)] + [describe_left_out("not needed", unread)] * bool(unread)
        converted = {split: (to_bytes(images, scale), numbers) for split, (images, numbers) in sets.items()}
        return Decoded(converted, classes, notes)

    @property
    def _label(self) -> str | None:
        return None if self.labels is None else str(self.labels)

    def read_csv(self, path: Path, classes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the images, (N, H, W), of a CSV of the same form, and their labels, (N,), if it has any."""
        with _explain(f"{path}: "):
            (member,) = list_members(path)
            table, column, _ = read_table(member, self._label, _max_bytes([path]), must_have_labels=False)
            labels = {} if column is None else _number({"": _to_labels("label", column)}, classes)[0]
            return self._to_images("the table", table, len(table)), labels.get("")

    def _to_images(self, name: str, array: np.ndarray, count: int, *, is_matlab: bool = False) -> np.ndarray:
        """Return an array of images as (N, H, W) or (N, H, W, 3) numbers."""
        if array.dtype.kind not in "buif":
            raise UsageError(f"{name} holds {array.dtype}; bytes, or floats from 0 to 1, are needed")
        orders = FLAT_MATLAB_ORDERS if is_matlab and array.ndim == 2 else ORDERS.get(array.ndim, ())
        arranged: dict[str, np.ndarray] = {}
        for axes in [self.axes] if self.axes else orders:
            images = _arrange(array, axes)
            if images is not None and len(images) == count:
                arranged[axes] = images
        if len(arranged) == 1:
            return arranged.popitem()[1]
        if arranged:
            choices = " or ".join(f"data.source.axes={axes}" for axes in arranged)
            readings = f"say {choices} (N images, H rows, W columns, C colours)"
            raise UsageError(f"{name} has shape {array.shape}, which can be read in several ways; {readings}")
        form = self.axes or "(N, height, width), (N, height, width, 3) or (N, pixels)"
        raise UsageError(f"{name} has shape {array.shape}; {form} is needed, an image for each of {count:,} labels")


def _arrange(array: np.ndarray, axes: str) -> np.ndarray | None:
    """Return images, whose axes are in this order, as (N, H, W) or (N, H, W, 3); None if they cannot be."""
    if array.ndim == 2 and "N" in (axes[0], axes[-1]):
        count, pixels = array.shape if axes[0] == "N" else array.shape[::-1]
        colours = 3 if "C" in axes else 1
        side = math.isqrt(pixels // colours)
        if side * side * colours == pixels:
            sizes = {"N": count, "H": side, "W": side, "C": colours}
            array = array.reshape([sizes[axis] for axis in axes])
    if array.ndim != len(axes) or 0 in array.shape:
        return None
    array = array.transpose([axes.index(axis) for axis in "NHWC" if axis in axes])
    if array.shape[3:] == (1,):
        return array[..., 0]
    return array if array.shape[3:] in ((), (3,)) else None


def _max_bytes(files: Collection[Path]) -> int:
    """Return how much memory the contents of files may take."""
    return MAX_EXPANSION * max(sum(file.stat().st_size for file in files), SMALL_FILE)


@contextmanager
def _explain(where: str = "") -> Iterator[None]:
    """Turn every error of reading a file into a UsageError that begins with where it is."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{where}{error}") from error
    except Exception as error:  # NumPy, SciPy, zipfile and zlib raise anything for damaged files.
        reason = getattr(error, "strerror", None)
        problem = "cannot be read" if reason else "not a .npz, .npy, .mat or UTF-8 CSV file of images"
        raise UsageError(f"{where}{problem} ({shorten(reason or str(error) or type(error).__name__)})") from error


def _find_sets(stored: Mapping[str, StoredArray], given: Mapping[str, str | None]) -> dict[str, _Pair]:
    """Return the names of the two arrays of each set, such as train_images and y_train.

    A name that is given, such as Y_train, stands for those of other sets, too, such as Y_test.
    """
    sets: dict[str, _Pair] = {"training": {}}
    for name in stored:
        split, rest = split_name(name)
        kinds = {KINDS.get(word) for word in re.findall("[a-z0-9]+", rest.lower())}
        chosen = [kind for kind, other in given.items() if other and split_name(other)[1] == rest]
        kind = chosen[0] if chosen else kinds.pop() if len(kinds) == 1 else None
        if kind and (chosen or not given[kind]):
            other = sets.setdefault(split or "training", {}).setdefault(kind, name)
            if other != name:
                raise _several(kind, [other, name])
    for kind in ("labels", "images"):
        if kind not in sets["training"] and not given[kind]:
            used = {"classes", *(name for pair in sets.values() for name in pair.values())}
            possible = [name for name, array in stored.items() if name not in used and _guess_kind(array) == kind]
            if len(possible) > 1:
                raise _several(kind, possible)
            if possible:
                sets["training"][kind] = possible[0]
    if any(len(pair) < 2 for pair in sets.values()):
        found = shorten(", ".join(f"{name} {array.shape}" for name, array in stored.items())) or "no arrays"
        needed = "data.source.images=NAME data.source.labels=NAME"
        raise UsageError(f"holds {found}; say which have the training images and labels: {needed}")
    return sets


def _several(kind: str, names: list[str]) -> UsageError:
    """Return the error for arrays of which each may have the images, or the labels."""
    choices = " or ".join(f"data.source.{kind}={name}" for name in names)
    return UsageError(f"has {len(names)} arrays that may be the {kind}; say {shorten(choices, 200)}")


def _guess_kind(array: StoredArray) -> str | None:
    """Return what an array may hold by its shape, "images" or "labels", or None."""
    axes = len(array.shape) - array.shape.count(1)
    if axes and array.dtype.kind in "buifSU":
        return "labels" if axes == 1 or array.dtype.kind in "SU" else "images"
    return None


def _load_arrays(stored: Mapping[str, StoredArray], pairs: Collection[_Pair], max_bytes: int) -> dict[str, np.ndarray]:
    """Return the arrays that are needed, by name; refuse those that would take more than max_bytes."""
    copies = {pair["images"]: 1 for pair in pairs} | {pair["labels"]: COPIES for pair in pairs}
    copies |= {"classes": COPIES} if "classes" in stored else {}
    arrays = {name: stored[name] for name in copies}
    # The contents of a .mat file are in memory, too.
    sizes = {name: (1 + a.is_matlab) * math.prod(a.shape) * a.dtype.itemsize for name, a in arrays.items()}
    check_memory(sum(copies[name] * size for name, size in sizes.items()), max_bytes)
    return {name: array.load() for name, array in arrays.items()}


def _to_labels(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array of labels as (N,) integers or names; of one-hot labels, the places of the ones."""
    is_number = array.dtype.kind in "buif"
    if array.ndim == 2 and 1 in array.shape:
        array = array.ravel()
    elif array.ndim == 2 and array.size and is_number and np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all():
        array = array.argmax(1)
    if array.ndim != 1:
        raise UsageError(f"{name} has shape {array.shape}; (N,) is needed, the class of each image, or one-hot labels")
    if array.dtype.kind in "SU":
        return np.char.strip(array.astype(str))
    if not is_number or not ((array == np.rint(array)) & (abs(array) < 2**53)).all():
        raise UsageError(f"{name} holds {array.dtype}; whole numbers from 0, or names, are needed")
    return array.astype(np.int64)


def _number(labels: Mapping[str, np.ndarray], classes: list[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the labels of each set as places among the classes, and the names of the classes, found if none are given.

    Labels that are numbers begin with the name of the first class, if that is a number, or else with 0 or 1.
    """
    found = {value for array in labels.values() for value in np.unique(array).tolist()}
    names = [value for value in found if isinstance(value, str)]
    numbers = range(0) if names or not found else range(max(min(found), 0), max(found) + 1)
    if not classes and numbers == range(1, 11):
        digits, others = (f'"data.source.classes={[*map(str, range(1, 10)), last]}"' for last in ("0", "10"))
        raise UsageError(f"labels are from 1 to 10; say {digits} if 10 is the digit 0, or {others}")
    classes = classes or sorted(names, key=natural_key) or [str(number) for number in numbers[:MAX_CLASSES]]
    places: dict[str | int, int] = {name: place for place, name in enumerate(classes)}
    numerals: dict[str | int, int] = {
        int(name): place for name, place in places.items() if re.fullmatch("[0-9]{1,9}", str(name))
    }
    if not names and found and found <= numerals.keys():
        places = numerals
    elif not names:
        starts = [int(classes[0]), 0] if classes and re.fullmatch("[0-9]{1,9}", classes[0]) else [0, 1]
        fits = [start for start in starts if start <= numbers.start and numbers.stop <= start + len(classes)]
        places = {(*fits, 0)[0] + place: place for place in range(len(classes))}
    if unknown := sorted(str(value) for value in found - places.keys()):
        raise UsageError(f"labels hold {shorten(unknown[0])}, which is not one of {shorten(', '.join(classes))}")
    return {split: np.array([places[value] for value in array.tolist()]) for split, array in labels.items()}, classes
