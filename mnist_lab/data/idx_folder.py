"""A folder with four IDX files of any names, as MNIST's: images and labels, for training and for test."""

import gzip
import zlib
from contextlib import suppress
from pathlib import Path

from mnist_lab.data.array_file import ArrayFile, Arrays, Pair
from mnist_lab.data.data_files import open_file
from mnist_lab.data.mnist_files import parse_idx_header
from mnist_lab.errors import UsageError
from mnist_lab.formatting import shorten


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
