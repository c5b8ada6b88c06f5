"""Parts of benchmarks/fuzz.py: hostile arrays, and folders of images in odd layouts.

They must be refused in one line, or read correctly: all images, each with its class, and no set almost black.
"""

import io
import os
import random
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.fuzz_files import damaged
from mnist_lab.data import ArrayFile, ImageFolder, MNISTDataModule
from mnist_lab.data.own_images import OwnImages
from mnist_lab.data.summary import print_summary

TYPES = "bool int8 uint8 int16 >u2 uint16 int64 uint64 float16 float32 >f8 float64 complex64 S3 U3 object M8[s] V4"
FLOATS = [(0, 1, "float32"), (0, 1.001, "f8"), (-1, 1, "float16"), (-0.5, 0.5, "f4"), (0, 1.4, "f4"), (0, 17, ">f8")]
INTEGERS = [(0, 17, "int64"), (0, 255, "int16"), (0, 65535, "uint16"), (0, 4095, "u2"), (0, 60, "u1"), (0, 0, "u1")]
SCALES: list[tuple[float, float, str]] = [*FLOATS, *INTEGERS, (0, 2, "bool")]
IMAGE_SHAPES: list[tuple[int, ...]] = [(28, 28), (8, 8), (784,), (28, 28, 1), (32, 32, 3)]
ODD_SHAPES: list[tuple[int, ...]] = [(1, 60), (60, 1), (28,), (), (0, 5), (3, 28, 28), (2000, 40)]
NAMES = [
    "images labels",
    "arr_0 arr_1",
    "x y",
    "X y",
    "train_images train_labels",
    "X_Train Y_Train",
    "Labels Images",
    "images x",
]
OTHER_SETS = ["x_val y_val", "val_images val_labels", "Test_Images test_labels", "x_test y_test", "y_dev", "extra"]
PLAIN = "cat dog 0 01 10 null true ~ 1e3 1_0 = << {} [] ${oc.env:HOME} ${ # %s é - -- train val @ _ x __a"
CLASS_NAMES = [*PLAIN.split(), " ", "a b", "a\tb", "a\x1b[2Jb", "\udcff"]
HIDDEN = [".thumbnails", ".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git", "$RECYCLE.BIN", "lost+found", ".a/b"]
SETS = ". train train,test TRAIN,Test,val training,testing train,valid,test train,val Training_Set,dev "
SETS += ". val,test train,Train,test train,val,dev"


def read_hostile_arrays(chance: random.Random) -> None:
    """Read a .npz file of arrays with odd types, shapes, values and names, sometimes damaged, huge or pickled."""
    generator = np.random.default_rng(chance.randrange(2**32))
    arrays: dict[str, Any] = {}
    scale = (0, 255, "uint8") if chance.random() < 0.2 else chance.choice(SCALES)
    for names in [chance.choice(NAMES), *(names for names in OTHER_SETS if chance.random() < 0.15)]:
        pair = _images_and_labels(scale, chance.random() < 0.15, generator, chance)
        for name, array in zip(names.split(), pair, strict=False):
            arrays[name] = np.asfortranarray(array) if chance.random() < 0.1 else array
    if chance.random() < 0.1:
        names_of_classes: list[Any] = [["a", "b"], [*"abcdefghij"], np.zeros((3, 3)), ["x" * 5000, "y"], CLASS_NAMES]
        arrays["classes"] = chance.choice(names_of_classes)
    packed = io.BytesIO()
    chance.choice([np.savez, np.savez_compressed])(packed, **arrays)
    content = packed.getvalue()
    if chance.random() < 0.1:
        content = damaged(content, chance)
    elif chance.random() < 0.1:
        content = _with_huge_array(chance, [*arrays, "unused"])
    elif chance.random() < 0.05:
        packed = io.BytesIO()
        np.save(packed, next(iter(arrays.values())))
        content = packed.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / chance.choice([*["x.npz"] * 20, "x.npy", "x", "x.NPZ", "x.csv"])
        path.write_bytes(content)
        _read(ArrayFile(path=str(path)))


def _images_and_labels(
    scale: tuple[float, float, str], odd: bool, generator: np.random.Generator, chance: random.Random
) -> tuple[Any, Any]:
    """Make images on a scale and their labels, or odd ones."""
    bottom, top, kind = chance.choice(SCALES) if odd else scale
    kind = chance.choice(TYPES.split()) if odd else kind
    count = chance.choice([20, 20, 20, 40, 1, 0] if odd else [20, 40])
    shape = chance.choice(IMAGE_SHAPES + ODD_SHAPES if odd else IMAGE_SHAPES)
    values = generator.random((count, *shape)) * (top - bottom) + bottom
    if values.size and odd:
        values.flat[0] = chance.choice([top, 1e3, -1, np.nan, np.inf])
    labels: Any = np.arange(count) % chance.choice([1, 2, 2000] if odd else [2, 4, 4, 10])
    forms = [labels, labels * 1.0, labels[:, None], labels.astype("S3"), labels + 1, labels.astype(str)]
    labels = chance.choice([labels - 1, labels + 0.5, labels[1:], labels[None]] if odd else forms)
    if np.dtype(kind).kind in "MV":
        return np.zeros(values.shape, kind), labels
    with np.errstate(all="ignore"):
        return values.astype(kind), labels


def _with_huge_array(chance: random.Random, names: list[str]) -> bytes:
    """Make a file with an array that is, or claims to be, far larger than the file."""
    packed, huge = io.BytesIO(), chance.choice(names)
    method = chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
    with zipfile.ZipFile(packed, "w", method) as file:
        for name in names:
            array = io.BytesIO()
            np.save(array, np.arange(20) % 2 * 255)
            content = array.getvalue()
            if name == huge:
                shape = chance.choice([(10**6, 784), (2**40,), (20, 10**9), (4 * 10**8, 1, 1), (20, 2**31, 2**31)])
                header = str({"descr": chance.choice(["|u1", "<f8", "<U9"]), "fortran_order": False, "shape": shape})
                content = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n"
                content += bytes(chance.choice([0, 10**6, 10**8]))
            file.writestr(f"{name}.npy", content)
    return packed.getvalue()


def read_odd_folders(chance: random.Random) -> None:
    """Write folders of images with sets, nesting, hidden folders, odd names and links; read them and compare."""
    with tempfile.TemporaryDirectory() as name:
        root, written = Path(name) / "data", Counter[str]()
        classes = ["cat", "dog", "3"] if chance.random() < 0.6 else chance.sample(CLASS_NAMES, 3)
        for place in chance.choice(SETS.split()).split(","):
            for label, class_name in enumerate(classes):
                inside = ["train", "dev/x"] if chance.random() < 0.01 else ["", "", "a/b"]
                folder = root / place / class_name / chance.choice(inside)
                folder.mkdir(parents=True, exist_ok=True)
                counts = [3, 3, 4, 5] if chance.random() < 0.98 else [0, 1]
                for _ in range(chance.choice(counts)):
                    _write_image(folder, label, chance)
                    written[class_name] += 1
                if chance.random() < 0.2:
                    hidden = folder / chance.choice(HIDDEN)
                    hidden.mkdir(parents=True, exist_ok=True)
                    _write_image(hidden, 1, chance)
        oddities = chance.choice([0, 0, 1, 2])
        for _ in range(oddities):
            _add_oddity(chance.choice([path for path in [root, *root.rglob("*")] if path.is_dir()]), root, chance)
        source = ImageFolder(path=str(root))
        _read(source)
        arrays, names = source.load(), source.read_settings()["classes"]
        labels = np.concatenate([arrays.train_labels, arrays.test_labels])
        read = Counter(names[label] for label in labels)
        assert oddities or read == written, f"{dict(read)} are read where {dict(written)} were written"
        assert not {"train", "val", "test", "training", "testing"} & {name.lower() for name in names} - {*classes}


def _write_image(folder: Path, label: int, chance: random.Random) -> None:
    """Write an image whose pattern identifies its class."""
    pixels = np.random.default_rng(chance.randrange(2**32)).integers(0, 120, (20, 20), np.uint8)
    pixels[6 * label : 6 * label + 6] += 130
    name = chance.choice(["{}.png", "{}.PNG", "{}.tiff", "\udcff{}.png", "a\n{}.png", "{}.gif"])
    Image.fromarray(pixels).save(folder / name.format(chance.randrange(10**9)))


def _add_oddity(folder: Path, root: Path, chance: random.Random) -> None:
    """Add a link, an empty folder, a pipe, a file that is no image, or an almost black image."""
    path = folder / chance.choice(["odd", "odd.png", "val", "Test", "unlabelled", ".odd.png"])
    kind = chance.randrange(8)
    if path.exists() or kind == 0:
        return
    if kind < 4:
        path.symlink_to(chance.choice([".", "..", str(root), "nowhere", "odd", "odd.png"]))
    elif kind == 4:
        path.mkdir()
    elif kind == 5:
        os.mkfifo(path)
    elif kind == 6:
        path.write_bytes(b"words")
    else:
        Image.new("L", (9, 9), 1).save(path, "PNG")


def _read(source: OwnImages) -> None:
    """Read data, print their summary, and check them."""
    data = MNISTDataModule(source=source, val_size=0, mean=0.5, std=0.5)
    print_summary(data)
    for kind, (images, labels) in data.raw_sets().items():
        assert images.shape == (len(labels), 28, 28) and images.dtype == np.uint8, f"{kind} set of {images.shape}"
        assert not len(labels) or 0 <= labels.min() <= labels.max() < len(data.classes), f"labels of the {kind} set"
        assert kind == "validation" or images.max() > 19, f"the {kind} set is almost black"


READ = {"arrays": read_hostile_arrays, "folders": read_odd_folders}
