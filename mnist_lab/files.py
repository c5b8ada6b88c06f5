"""Write files that are whole or missing, and read files that a stranger may have made."""

import errno
import os
import secrets
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnist_lab.errors import UsageError

PARTIAL = ".partial"  # The names of temporary files end with it.
MAX_TEXT = 50_000_000  # bytes
ARRAY_FILES = (".npy", ".npz", ".mat", ".csv", ".tsv", ".csv.gz", ".tsv.gz", ".zip")  # These may have images.


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write to, and replace `path` by this file if the block raises no error.

    A reader, a kill, a full disk or a power failure finds the old file or the new one, never half of one. Several
    processes may write the same path; the last one wins. An OSError names `path`, not the temporary file. A file that
    is not durable takes some milliseconds less; a power failure may leave it empty unless `sync_tree` follows.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        yield partial
        if durable:
            sync(partial)
        partial.replace(path)
        if durable:
            sync(path.parent)
    except OSError as error:
        if error.filename in (None, str(partial)):  # A full disk names no file, and neither does torch.
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a text file in UTF-8, as `atomic_write` does."""
    with atomic_write(path, durable=durable) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")  # A file name may have surrogates.


def open_own(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Open a file that a stranger may have made: links are not followed, and an empty pipe does not block."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def read_text(path: Path, most: int = MAX_TEXT, errors: str = "strict") -> str:
    """Read a text file in UTF-8; raise OSError for a link, or for a file of more than `most` bytes."""
    with open(path, "rb", opener=open_own) as file:
        content = file.read(most + 1) or b""  # An empty pipe gives None.
    if len(content) > most:
        raise OSError(errno.EFBIG, f"more than {most:,} bytes", str(path))
    return content.decode(errors=errors)


def sync(path: Path) -> None:
    """Write a file's content or a folder's names to the disk, so that a power failure does not lose them."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Write all files and folders below a folder to the disk, but no links, which may be broken."""
    for path in [*(path for path in folder.rglob("*") if not path.is_symlink()), folder]:
        sync(path)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, so that a power failure does not lose them."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


def require_writable_file(path: Path, option: str) -> None:
    """Raise UsageError for a path that cannot be a file; the option, --out=PATH, starts the message."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{option}: exists and is not a file; choose another")


@contextmanager
def user_output(path: Path, option: str) -> Iterator[Path]:
    """Write a file that the user names by an option as `atomic_write` does, and make its folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            yield partial
    except OSError as error:
        raise UsageError(f"{option}: cannot be written ({error.strerror}); choose another") from error


def is_whole(checkpoint: Path) -> bool:
    """Return whether a checkpoint's ZIP file is complete with correct CRC sums, which torch does not check."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def exists(path: Path) -> bool:
    """Return whether a path exists; a name that no file can have, such as a very long one, does not."""
    return os.path.exists(path)  # noqa: PTH110  # Path.exists would raise OSError for it.
