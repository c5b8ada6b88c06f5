"""The web servers that carry the IDX files, gzipped; slow, busy or absent year after year."""

from __future__ import annotations

import gzip
import http.client
import importlib
import logging
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

log = logging.getLogger(__name__)

TIMEOUT = 10.0  # seconds without a byte
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
        OSError: the mirror did not answer, refused, stalled, or sent half a file, in each of the attempts.
    """
    for name in names:
        yield name, _with_retries(f"{address}{name}.gz")


def _with_retries(url: str) -> bytes:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return gzip.decompress(_download(url))
        except (OSError, EOFError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None)
            hopeless = isinstance(
                reason, socket.gaierror | ConnectionRefusedError
            )  # no such server: another try is in vain
            if hopeless or attempt == ATTEMPTS:
                raise OSError(f"{url.rsplit('/', 1)[-1]}: {error or type(error).__name__}") from error
            log.info("%s: %s; once more", url, error)
            time.sleep(PAUSE)
    raise AssertionError("unreachable")


def _download(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "mnist_lab"})
    content = bytearray()
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response, _progress() as progress:
        size = int(response.headers.get("Content-Length", 0)) or None
        task = progress.add_task(url, total=size)
        while chunk := response.read(CHUNK):
            content += chunk
            progress.update(task, advance=len(chunk))
    if size is not None and len(content) < size:
        raise OSError(f"the connection ended after {len(content)} of {size} bytes")
    return bytes(content)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
