"""A folder with four IDX files of any names, as MNIST's: images and labels, for training and for test."""

import gzip
import zlib
from contextlib import suppress
from pathlib import Path

from mnist_lab.data.array_file import MAX_EXPANSION, SMALL_FILE
from mnist_lab.data.image_source import MAX_CLASSES
from mnist_lab.data.mnist_files import parse_idx, parse_idx_header
from mnist_lab.data.own_images import Decoded, OwnImages, describe_images
from mnist_lab.data.pixel_values import to_bytes
from mnist_lab.errors import UsageError
from mnist_lab.formatting import shorten


class IDXFolder(OwnImages):
    """A folder with four IDX files of any names, plain or as .gz: images and labels, for training and for test.

    Their headers tell images, of any size, from labels. Names with test or t10k, or with train, tell the sets apart, or
    else the sizes: the test set is the smaller one.
    """

    def _files(self) -> list[Path]:
        """Return the files of the training images, their labels, the test images and theirs."""
        if not self._path.is_dir():
            raise UsageError("not a folder; data=arrays reads a file" if self._path.exists() else "folder not found")
        shapes: dict[str, dict[Path, tuple[int, ...]]] = {"images": {}, "labels": {}, "": {}}
        for path in sorted(path for path in self._path.iterdir() if path.is_file()):
            with suppress(ValueError):
                kind, shape, *_ = parse_idx_header(_read(path, 16))
                if 0 not in shape and path.with_suffix("") not in shapes[kind]:  # A .gz may be there unpacked, too.
                    shapes[kind][path] = shape
        images, labels = (_order_sets(shapes[kind]) for kind in ("images", "labels"))
        if not images or not labels:
            found = (shapes["images"] | shapes["labels"]).items()
            described = ", ".join(f"{path.name} ({'x'.join(map(str, shape))})" for path, shape in found)
            needed = "needed are four, images and labels, for training and for test, with train and test in their names"
            raise UsageError(f"found the IDX files {shorten(described, 500) or '(none)'}; {needed}")
        return [images[0], labels[0], images[1], labels[1]]

    def _decode(self) -> Decoded:
        arrays = []
        for path, kind in zip(self._files(), ("images", "labels") * 2, strict=True):
            try:
                arrays.append(parse_idx(_read(path, MAX_EXPANSION * max(path.stat().st_size, SMALL_FILE)), kind))
            except ValueError as error:
                raise UsageError(f"{path.name}: {error}") from error
        images, labels = arrays[::2], [each.astype(int) for each in arrays[1::2]]
        first, last = min(each.min() for each in labels), max(each.max() for each in labels)
        classes = list(self.classes or map(str, range(first, min(last + 1, first + MAX_CLASSES))))
        values = min(each.min() for each in images), max(each.max() for each in images)
        notes = [describe_images({each.shape[:0:-1] for each in images}, values, (0, 255))]
        pairs = [(to_bytes(each, (0, 255)), numbers - first) for each, numbers in zip(images, labels, strict=True)]
        return Decoded(dict(zip(("training", "test"), pairs, strict=True)), classes, notes)


def _read(path: Path, max_bytes: int) -> bytes:
    """Return at most max_bytes of a file, decompressed; raise ValueError for a damaged .gz."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(max_bytes)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(str(error)) from error


def _order_sets(shapes: dict[Path, tuple[int, ...]]) -> list[Path]:
    """Return the files of the training and of the test set; nothing if there are not two, or they look alike."""

    def sort_key(path: Path) -> tuple[bool, bool, int]:
        name = path.name.lower()
        return "test" in name or "t10k" in name, "train" not in name, -shapes[path][0]

    paths = sorted(shapes, key=sort_key)
    return paths if len(paths) == 2 and sort_key(paths[0]) != sort_key(paths[1]) else []
