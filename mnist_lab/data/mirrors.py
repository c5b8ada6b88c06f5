"""The web servers that carry the IDX files, gzipped; slow, busy or absent year after year."""

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
    """The addresses that torchvision knows for its data set of this name; none if it knows no such set."""
    dataset = getattr(importlib.import_module("torchvision.datasets"), name, None)
    return [address.rstrip("/") + "/" for address in getattr(dataset, "mirrors", [])]


def fetch(address: str, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Each file's name and decompressed content from one mirror, in turn.

    Raises:
        OSError: the mirror did not answer, refused, stalled, was too slow, or sent half a file or too large a one, in
            each of the attempts.
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
    _refuse_too_large(decompressed)
    return decompressed


def _refuse_too_large(content: bytes | bytearray) -> None:
    if len(content) > MAX_BYTES:
        raise OSError(f"has more than {MAX_BYTES:,} bytes")


def _with_retries(url: str, end: float) -> bytes:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return decompress(_download_until(end, url))
        except (OSError, EOFError, ValueError, zlib.error, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None)
            hopeless = isinstance(
                reason, socket.gaierror | ConnectionRefusedError
            )  # no such server: another try is in vain
            if hopeless or attempt == ATTEMPTS or time.monotonic() > end:
                raise OSError(f"{url.rsplit('/', 1)[-1]}: {error or type(error).__name__}") from error
            log.info("%s: %s; once more", url, error)
            time.sleep(PAUSE)
    raise AssertionError("unreachable")


def _download_until(end: float, url: str) -> bytes:
    """Download a file in a thread, so that a server that sends its headers byte by byte is not waited for either."""
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
        while chunk := response.read1(CHUNK):  # whatever has come by now: read() would wait for all of the chunk
            content += chunk
            progress.update(task, advance=len(chunk))
            _refuse_too_large(content)
            if time.monotonic() > end:
                raise TimeoutError(f"took more than {DEADLINE:g} s")
    if size is not None and len(content) < size:
        raise OSError(f"the connection ended after {len(content)} of {size} bytes")
    return bytes(content)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
