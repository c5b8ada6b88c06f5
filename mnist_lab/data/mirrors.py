"""Download the gzipped IDX files from web servers, which are often slow, busy or absent."""

from __future__ import annotations

import gzip
import http.client
import importlib
import io
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

log = logging.getLogger(__name__)

TIMEOUT = 10.0  # seconds without a byte
DEADLINE = 600.0  # seconds for all files of one mirror
MAX_BYTES = 1 << 28  # of one file, decompressed; the largest of MNIST has 47,040,016
ATTEMPTS = 2
PAUSE = 1.0  # seconds before the next attempt
CHUNK = 1 << 16  # bytes


def torchvision_mirrors(name: str) -> list[str]:
    """Return torchvision's addresses of a data set; empty if it has no such set."""
    dataset = getattr(importlib.import_module("torchvision.datasets"), name, None)
    return [address.rstrip("/") + "/" for address in getattr(dataset, "mirrors", [])]


def fetch(address: str, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the decompressed content of each file from one mirror.

    Raises:
        OSError: every attempt failed: no answer, an error status, a stall, a truncated or too large file.
    """
    end = time.monotonic() + DEADLINE
    for name in names:
        yield name, _with_retries(f"{address}{name}.gz", end)


def decompress(content: bytes) -> bytes:
    """Decompress a gzip file of at most MAX_BYTES; a larger one is not decompressed further.

    Raises:
        OSError, EOFError, zlib.error: it is too large, cut short or damaged.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        decompressed = file.read(MAX_BYTES + 1)
    _check_size(decompressed)
    return decompressed


def _check_size(content: bytes | bytearray) -> None:
    if len(content) > MAX_BYTES:
        raise OSError(f"has more than {MAX_BYTES:,} bytes")


def _with_retries(url: str, end: float) -> bytes:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return decompress(_download_until(end, url))
        except (OSError, EOFError, ValueError, zlib.error, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None)
            hopeless = isinstance(reason, socket.gaierror | ConnectionRefusedError)  # no such server
            if hopeless or attempt == ATTEMPTS or time.monotonic() > end:
                raise OSError(f"{url.rsplit('/', 1)[-1]}: {error or type(error).__name__}") from error
            log.info("%s: %s; retrying", url, error)
            time.sleep(PAUSE)
    raise AssertionError("unreachable")


def _download_until(end: float, url: str) -> bytes:
    """Download a file in a thread, so that the deadline also holds while a server sends headers byte by byte."""
    outcome: list[bytes | Exception] = []

    def download() -> None:
        try:
            outcome.append(_download(url, end))
        except urllib.error.HTTPError as error:
            error.close()  # it is the response, too
            outcome.append(OSError(str(error)))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=download, daemon=True)
    thread.start()
    thread.join(max(0.0, end - time.monotonic()))
    if not outcome:
        raise TimeoutError(f"took more than {DEADLINE:g} s")
    (content,) = outcome
    if isinstance(content, Exception):
        raise content
    return content


def _download(url: str, end: float) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "mnist_lab"})
    content = bytearray()
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response, _progress() as progress:
        size = response.length
        task = progress.add_task(url, total=size)
        while chunk := response.read1(CHUNK):  # not read(), which waits for a whole chunk
            content += chunk
            progress.update(task, advance=len(chunk))
            _check_size(content)
            if time.monotonic() > end:
                raise TimeoutError(f"took more than {DEADLINE:g} s")
    if size is not None and len(content) < size:
        raise OSError(f"the connection ended after {len(content)} of {size} bytes")
    return bytes(content)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
