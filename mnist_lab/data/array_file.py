"""Files of arrays, such as .npz, .csv or IDX, with images and their labels."""

import gzip
import math
import re
import zlib
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from mnist_lab.data.data_files import check_memory, explain, find_files, limit_memory, open_file
from mnist_lab.data.image_source import MAX_CLASSES, split_name
from mnist_lab.data.images import SIDE
from mnist_lab.data.mnist_files import parse_idx_header
from mnist_lab.data.own_images import Decoded, OwnImages, describe_images, describe_left_out
from mnist_lab.data.pixel_values import find_common_scale, to_bytes
from mnist_lab.data.stored_arrays import Contents, read_arrays
from mnist_lab.errors import UsageError
from mnist_lab.formatting import natural_key, shorten

# A word in an array's name says what it holds.
KINDS = {"images": "images", "x": "images", "labels": "labels", "y": "labels"}
# The orders of axes that are tried, by their number: N images, H rows, W columns, C colours.
ORDERS = {2: ("NHW", "HWN", "NHWC", "NCHW"), 3: ("NHW", "HWN"), 4: ("NHWC", "NCHW", "HWCN")}
FLAT_MATLAB_ORDERS = ("NHW", "NWH", "HWN", "WHN")  # MATLAB puts columns below each other, and other programs rows.
COPIES = 40  # Labels that are texts are copied, from bytes to characters and into sets.

Arrays = Mapping[str, np.ndarray]
Pair = dict[str, str]  # the names of a set's arrays, "images" and "labels"


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
        max_bytes = limit_memory(files)
        with explain():
            contents = read_arrays(files, self._given.get("labels"), max_bytes)
            pairs = self._find_sets(contents.arrays)
            labels = {split: _to_labels(pair, contents.arrays, max_bytes) for split, pair in pairs.items()}
            images = {split: self._to_images(pair, contents, len(labels[split])) for split, pair in pairs.items()}
        given = contents.arrays.get("classes", np.empty(0)).ravel()[: MAX_CLASSES + 1].astype(str)
        numbers, classes = _number(labels, self.classes or [*map(str.strip, given.tolist())])
        for each in images.values():
            # The 28x28 bytes of all images are held twice, and one image at a time becomes floats, however large it is.
            check_memory(2 * SIDE * SIDE * len(each) + 16 * each[:1].size, max_bytes)
        values, scale = find_common_scale(images)
        notes = [describe_images({each.shape[2:0:-1] for each in images.values()}, values, scale)]
        used = {"classes", *(name for pair in pairs.values() for name in pair.values())}
        contents.left_out["not needed"] += [name for name in contents.arrays if name not in used]
        notes += [describe_left_out(reason, names) for reason, names in contents.left_out.items() if names]
        return Decoded({split: (to_bytes(images[split], scale), numbers[split]) for split in pairs}, classes, notes)

    def read_more(self, path: Path, classes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the images, (N, H, W), of a file of the same form or of its test set, and labels, (N,), or None."""
        with explain(f"{path}: "):
            files = find_files(path)
            max_bytes = limit_memory(files)
            contents = read_arrays(files, self._given.get("labels"), max_bytes, must_have_labels=False)
            pairs = ArrayFile._find_sets(self, contents.arrays, must_have_labels=False)
            pair = pairs.get("test") or next(iter(pairs.values()))
            if "labels" not in pair:
                return self._to_images(pair, contents, None), None
            labels = _number({"": _to_labels(pair, contents.arrays, max_bytes)}, classes)[0][""]
            return self._to_images(pair, contents, len(labels)), labels

    @property
    def _given(self) -> Pair:
        """The names of arrays that the user gives."""
        return {kind: str(name) for kind in ("images", "labels") if (name := getattr(self, kind)) is not None}

    def _find_sets(self, arrays: Arrays, *, must_have_labels: bool = True) -> dict[str, Pair]:
        """Return the names of the arrays of each set; a given name, such as Y_train, stands for Y_test, too."""
        given = {kind: split_name(name)[1] for kind, name in self._given.items()}
        if not must_have_labels:  # The file may be another one than was trained on.
            given = {kind: rest for kind, rest in given.items() if rest in {split_name(name)[1] for name in arrays}}
        names_of = defaultdict[tuple[str, str], list[str]](list)
        for name in arrays:
            split, rest = split_name(name)
            kinds = {KINDS.get(word) for word in re.findall("[a-z0-9]+", rest.lower())}
            chosen = [kind for kind, other in given.items() if other == rest]
            kind = chosen[0] if chosen else kinds.pop() if len(kinds) == 1 else None
            if kind and (chosen or kind not in given):
                names_of[split or "training", kind].append(name)
        for kind in ("labels", "images"):
            if ("training", kind) not in names_of and kind not in given:
                used = {"classes", *chain(*names_of.values())}
                possible = [name for name, array in arrays.items() if name not in used and _guess_kind(array) == kind]
                if possible:
                    names_of["training", kind] = possible
        sets: dict[str, Pair] = {"training": {}}
        for (set_name, kind), names in names_of.items():
            if len(names) > 1:
                choices = " or ".join(f"data.source.{kind}={name}" for name in names)
                raise UsageError(f"has {len(names)} arrays that may be the {kind}; say {shorten(choices, 200)}")
            sets.setdefault(set_name, {})[kind] = names[0]
        if not must_have_labels:
            sets = {split: pair for split, pair in sets.items() if "images" in pair}
        if not sets or (must_have_labels and any(len(pair) < 2 for pair in sets.values())):
            found = shorten(", ".join(f"{name} {array.shape}" for name, array in arrays.items())) or "no arrays"
            needed = "data.source.images=NAME data.source.labels=NAME"
            raise UsageError(f"holds {found}; say which have the training images and labels: {needed}")
        return sets

    def _to_images(self, pair: Pair, contents: Contents, count: int | None) -> np.ndarray:
        """Return the images of a set, of which there are so many, if that is known, as (N, H, W) or (N, H, W, 3)."""
        name = pair["images"]
        array, is_matlab = contents.arrays[name], name in contents.matlab
        needed = "" if count is None else f", an image for each of {count:,} labels"
        if count is None:  # There are no labels to count; MATLAB puts the images along the last axis.
            count = array.shape[-1 if is_matlab and array.ndim > 2 else 0]
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
        raise UsageError(f"{name} has shape {array.shape}; {form} is needed{needed}")


class IDXFolder(ArrayFile):
    """A folder with four IDX files of any names, plain or as .gz: images and labels, for training and for test.

    Their headers tell images, of any size, from labels. Names with test or t10k, or with train, tell the sets apart, or
    else the sizes: the test set is the smaller one.
    """

    def _files(self) -> list[Path]:
        """Return the files of the training images, the test images, and their labels."""
        if not self._path.is_dir():
            raise UsageError("not a folder; data=arrays reads a file" if self._path.exists() else "folder not found")
        keys: dict[Path, tuple[str, bool, bool, int, tuple[int, ...]]] = {}
        for path in sorted(path for path in self._path.iterdir() if path.is_file()):
            with suppress(EOFError, gzip.BadGzipFile, zlib.error), open_file(path) as file:
                kind, shape, *_ = parse_idx_header(file.read(128))
                if kind and 0 not in shape and path.with_name(path.name.removesuffix(".gz")) not in keys:
                    name = path.name.lower()
                    keys[path] = kind, "test" in name or "t10k" in name, "train" not in name, -shape[0], shape
        paths = sorted(keys, key=keys.__getitem__)
        if [keys[path][0] for path in paths] != ["images"] * 2 + ["labels"] * 2 or len(
            {key[:4] for key in keys.values()}
        ) < 4:
            found = ", ".join(f"{path.name} ({'x'.join(map(str, keys[path][4]))})" for path in paths)
            needed = "needed are four, images and labels, for training and for test, with train and test in their names"
            raise UsageError(f"found the IDX files {shorten(found, 500) or '(none)'}; {needed}")
        return paths

    def _find_sets(self, arrays: Arrays, **_: bool) -> dict[str, Pair]:
        images, test_images, labels, test_labels = arrays
        return {
            "training": {"images": images, "labels": labels},
            "test": {"images": test_images, "labels": test_labels},
        }


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


def _guess_kind(array: np.ndarray) -> str | None:
    """Return what an array may hold by its shape, "images" or "labels", or None."""
    axes = len(array.shape) - array.shape.count(1)
    if axes and array.dtype.kind in "buifSU":
        return "labels" if axes == 1 or array.dtype.kind in "SU" else "images"
    return None


def _to_labels(pair: Pair, arrays: Arrays, max_bytes: int) -> np.ndarray:
    """Return the labels of a set as (N,) integers or names; of one-hot labels, the places of the ones."""
    name, array = pair["labels"], arrays[pair["labels"]]
    check_memory(COPIES * array.nbytes, max_bytes)
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
        remedy = "; save names as texts: .astype(str) in NumPy, char() in MATLAB" * array.dtype.hasobject
        raise UsageError(f"{name} holds {array.dtype}; whole numbers from 0, or names, are needed{remedy}")
    return array.astype(np.int64)


def _number(labels: Mapping[str, np.ndarray], classes: list[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the labels of each set as places among the classes, and the names of the classes, found if none are given.

    Labels that are numbers are the names of classes, if all are, or begin with 0 or 1; with 0 if a class 0 is first.
    """
    found = {value for array in labels.values() for value in np.unique(array).tolist()}
    names = {value for value in found if isinstance(value, str)}
    if not classes and found and not names:
        in_use = f"data.source.classes=[{shorten(','.join(map(str, sorted(found))))}]"
        if min(found) < 0:
            raise UsageError(f"labels hold {min(found)}; say {in_use} if each is a class, or count from 0")
        numbers = range(min(found), max(found) + 1)
        if numbers == range(1, 11):
            digits, others = (f"data.source.classes=[1,2,3,4,5,6,7,8,9,{last}]" for last in (0, 10))
            raise UsageError(f"labels are from 1 to 10; say {digits} if 10 is the digit 0, or {others}")
        classes = [str(number) for number in numbers[:MAX_CLASSES]]
    classes = classes or sorted(names, key=natural_key)
    places: dict[str | int, int] = {name: place for place, name in enumerate(classes)}
    if not names:
        numerals: dict[str | int, int] = {
            int(name): place for place, name in enumerate(classes) if re.fullmatch("-?[0-9]{1,9}", name)
        }
        start = int(0 not in found and len(classes) in found and numerals.get(0) != 0)
        places = numerals if found <= numerals.keys() else {start + place: place for place in range(len(classes))}
    if unknown := sorted(str(value) for value in found - places.keys()):
        raise UsageError(f"labels hold {shorten(unknown[0])}, which is not one of {shorten(', '.join(classes))}")
    return {split: np.array([places[value] for value in array.tolist()]) for split, array in labels.items()}, classes
