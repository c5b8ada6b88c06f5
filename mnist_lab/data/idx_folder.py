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
        shapes: dict[Path, tuple[int, ...]] = {}
        keys: dict[Path, tuple[str, bool, bool, int]] = {}
        for path in sorted(path for path in self._path.iterdir() if path.is_file()):
            with suppress(ValueError):
                kind, shape, *_ = parse_idx_header(_read(path, 16))
                is_unpacked = path.with_name(path.name.removesuffix(".gz")) in shapes
                if kind and 0 not in shape and not is_unpacked:
                    shapes[path], name = shape, path.name.lower()
                    keys[path] = kind, "test" in name or "t10k" in name, "train" not in name, -shape[0]
        paths = sorted(keys, key=keys.__getitem__)
        if [keys[path][0] for path in paths] != ["images"] * 2 + ["labels"] * 2 or len(set(keys.values())) < 4:
            found = ", ".join(f"{path.name} ({'x'.join(map(str, shapes[path]))})" for path in paths)
            needed = "needed are four, images and labels, for training and for test, with train and test in their names"
            raise UsageError(f"found the IDX files {shorten(found, 500) or '(none)'}; {needed}")
        return [paths[0], paths[2], paths[1], paths[3]]

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
